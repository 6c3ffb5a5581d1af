// How the inputs of a linear are rounded before it multiplies: a type of its own, beside the encoding of its weights.
//
// Names: `int{4..8}-{tensor,token,gN}[-asym][-overT]`, `fp8-tensor` and `fp8-{token,gN}[-e8m0]`.
//   tensor   one scale for all inputs, fixed in the file ("static")
//   token    a scale for each token, from its largest magnitude ("dynamic")
//   gN       a scale for every N columns of each token (dynamic)
//   asym     codes 0 .. 2^b - 1 and a zero point, from least to largest; else codes +-(2^(b-1) - 1)
//   e8m0     scales are powers of two
//   overT    inputs of at least T in magnitude are neither rounded nor counted for the scale (LLM.int8(), arXiv
//            2208.07339, 3.2; here for each token, so that a token's result does not depend on its batch)
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tensor/tensor.h"

namespace nibble::encoding {

enum class InputCode : std::uint8_t { kInteger, kE4m3 };
enum class InputScope : std::uint8_t { kTensor, kToken, kGroup };

// Interned, as EncodingInfo.
struct ActivationInfo {
  std::string name;
  InputCode code{};
  int bits = 8;
  InputScope scope = InputScope::kToken;
  std::int64_t group = 0;  // columns, when scope is kGroup; the last group may be shorter
  bool symmetric = true;
  double threshold = 0;        // T; 0: all are rounded
  bool powers_of_two = false;  // scales, that is

  bool is_static() const { return scope == InputScope::kTensor; }
};

// The type of that name; find gives null for an unknown one, get throws Error{kInvalidArgument}. Thread-safe.
const ActivationInfo* find_activation(std::string_view name);
const ActivationInfo& get_activation(std::string_view name);

// The largest level of symmetric codes: 127 of 8 bits, 448 of E4M3.
float largest_level(const ActivationInfo& info) noexcept;
// Scale and zero point for inputs between `least` <= 0 and `largest` >= 0; symmetric: for the larger magnitude.
struct InputScale {
  float scale = 0;
  int zero = 0;
};
InputScale input_scale(const ActivationInfo& info, float least, float largest) noexcept;
// Throws Error{kFormat} for a static scale that is not a positive number, or a zero point out of range.
void check_rounding(const InputRounding& rounding);

// A row of inputs, (cols), as its codes say it: out[c] = scale * (code - zero); `out` may be `x`. Columns that are kept
// stay as they are and do not count for the scale. Codes are of x * (1 / scale), E4M3 of x / scale and held within
// +-448, as compressed-tensors (lifecycle/forward_helpers.py) and DeepSeek V3 (inference/kernel.py: act_quant) have it.
void round_inputs(const InputRounding& rounding, const float* x, std::int64_t cols, float* out) noexcept;

// Of symmetric integers in groups of whole blocks, none left as it is: the scale of every `block` columns of a row.
// The codes are then clamp(round(x * (1 / scale)), +-largest_level), to nearest even, and 0 of scale 0.
void block_scales(const InputRounding& rounding, const float* x, std::int64_t cols, std::int64_t block,
                  float* scales) noexcept;
bool has_block_scales(const ActivationInfo& info, std::int64_t block) noexcept;

}  // namespace nibble::encoding
