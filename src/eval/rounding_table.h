// What the rounding rule alone is worth: one model, one encoding, one range, rounded in four ways.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/exec_context.h"
#include "calib/token_chunks.h"
#include "eval/measures.h"
#include "json/json.h"
#include "model/source.h"

namespace nibble::eval {

struct RoundingOptions {
  const encoding::EncodingInfo* target = nullptr;  // of the linears of the blocks
  int draws = 10;                                  // of stochastic rounding, with seeds 1 .. draws
  Isa isa = Isa::kScalar;
};

struct RoundingTable {
  const encoding::EncodingInfo* target = nullptr;
  double reference_perplexity = 0;
  Measures nearest, floor, ceil;
  std::vector<Measures> stochastic;  // one per draw
};

// All variants run by the exact path over the same chunks, against the model as it is. Quantized in memory.
RoundingTable rounding_table(ExecContext& context, std::shared_ptr<const model::ModelSource> source,
                             const calib::TokenChunks& chunks, const RoundingOptions& options);

json::Value to_json(const RoundingTable& table);
std::string to_table(const RoundingTable& table);  // in Markdown

}  // namespace nibble::eval
