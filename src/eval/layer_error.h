// How a model's error grows over depth: the distance of its hidden states from the reference's after each block.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/exec_context.h"
#include "calib/token_chunks.h"
#include "eval/score.h"
#include "json/json.h"

namespace nibble::eval {

struct LayerError {
  int layer = -1;               // -1: the embedding
  double relative_error = 0;    // sqrt(sum |h - h'|² / sum |h|²) over all tokens
  double mean_token_error = 0;  // mean over tokens of |h - h'| / |h|: not ruled by the few tokens of huge norm
  double cosine = 1;            // mean over tokens
};

// Over all tokens of the chunks, some chunks at a time; the reference's states of one batch are held. Throws
// Error{kInvalidArgument} when the models differ in depth or width.
std::vector<LayerError> layer_errors(ExecContext& context, const calib::TokenChunks& chunks, const Contender& reference,
                                     const Contender& candidate, std::int64_t batch_tokens = 1024);

json::Value to_json(const std::vector<LayerError>& errors);
std::string to_table(const std::vector<LayerError>& errors);

}  // namespace nibble::eval
