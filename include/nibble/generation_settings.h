// How a model is run and its next token is chosen: what continuing a text and chatting share.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace nibble {

struct GenerationSettings {
  std::int64_t context = 0;  // tokens of room; 0: what the model was trained for
  // Each of these added to the logit of a token before anything else; minus infinity: never this token.
  std::vector<std::pair<std::int32_t, float>> logit_bias;
  float repetition_penalty = 1;
  std::int64_t repetition_window = 64;  // tokens that the penalty looks back; 0: all
  float temperature = 0;                // 0: always the likeliest token
  int top_k = 0;                        // 0: all
  float top_p = 1;
  float min_p = 0;
  std::uint64_t seed = 0;             // the same seed gives the same text
  bool exact = false;                 // by the exact path, in f32
  std::vector<std::string> adapters;  // LoRA, run beside the weights: "PATH" or "PATH:SCALE"
  std::string kv_cache;  // f32, f16, q8_0, int8, ... (docs/kv-cache.md); empty: the model's, or else f16, exact f32
};

}  // namespace nibble
