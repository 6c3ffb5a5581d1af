// The keys of a mixture of experts in both kinds of configuration.
#pragma once

#include "container/metadata.h"
#include "json/json.h"
#include "model/model_spec.h"

namespace nibble::model {

// Of an architecture's experts: what config.json calls their number, and the values that stand for missing keys.
struct ExpertDefaults {
  std::string_view count_key = "num_experts";
  std::int64_t count = 0, used = 0;
  std::int64_t ffn = 0;              // 0: 'intermediate_size'
  std::string_view shared_key = {};  // of the shared expert's size; empty: there is none
  std::int64_t shared = 0;
  bool renormalize_key = false;  // 'norm_topk_prob' exists; else the weights are renormalized
  bool renormalize = false;      // where it is missing
  bool leading_dense = false;    // 'first_k_dense_replace' counts dense blocks, instead of a list and a step
};
// All blocks but those that 'decoder_sparse_step' and 'mlp_only_layers' leave dense.
void experts_from_hf(const json::Value& config, const ExpertDefaults& defaults, ModelSpec& spec);
// The way back. Throws Error{kUnsupported} when the blocks' experts differ.
void experts_to_hf(const ModelSpec& spec, const ExpertDefaults& defaults, json::Value& config);

// Of all blocks but the first 'leading_dense_block_count': GGUF has no key for other dense ones.
void experts_from_gguf(const container::Metadata& metadata, ModelSpec& spec);
void experts_to_gguf(const ModelSpec& spec, container::Metadata& metadata);

}  // namespace nibble::model
