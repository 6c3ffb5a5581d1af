// Weights and inputs rounded on the way forward, straight through on the way back: what a model is trained with that
// will run in few bits.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/tensor.h"
#include "train/tape.h"

namespace nibble::train {

// The codes that a group of weights can take.
struct CodeLevels {
  std::int64_t group = 0;     // columns of a row that share a scale; the last group may be shorter
  double low = 0, high = 0;   // least and largest code
  std::vector<float> levels;  // ascending, in place of the codes themselves; empty: none
  bool lows = false;          // what stands for zeros is subtracted as it is: s * q - low
};

// Group g of row r becomes s (q - z), q = round(w / s + offset + z) held in [low, high], z a number of the group, of
// any value; or, with `lows`, s q - low, which is the same with z = low / s. scales: (rows, groups), or (1, 1) for all;
// zeros likewise or invalid: 0; offsets: (rows, cols) or invalid. A group of scale 0 is 0 - low. Gradients as
// TrainingOps::round_group_backward says.
template <typename Real>
Var fake_quantize(Tape<Real>& tape, Var w, Var scales, Var zeros, Var offsets, const CodeLevels& codes);
// Codes that stay: s (q - z), or s q - low, of levels q that are given, (rows, cols).
template <typename Real>
Var dequantize(Tape<Real>& tape, const float* levels, std::int64_t rows, std::int64_t cols, Var scales, Var zeros,
               const CodeLevels& codes);

// The nearest integer held in [low, high]; the gradient passes where it is not held.
template <typename Real>
Var round_straight(Tape<Real>& tape, Var x, double low, double high);
// The nearest value of a dtype of scales; the gradient passes.
template <typename Real>
Var round_to(Tape<Real>& tape, Var x, Dtype dtype);
// Each number of x (rows, blocks) times those of its block among the factors, (rows, blocks * per_block), which must
// outlive the tape's use of them.
template <typename Real>
Var spread(Tape<Real>& tape, Var x, const float* factors, std::int64_t per_block);
// Rows as encoding::round_inputs() has them; the gradient passes where a fixed scale does not hold an input at an end.
template <typename Real>
Var round_inputs(Tape<Real>& tape, Var x, const InputRounding& rounding);

}  // namespace nibble::train
