// One tensor trained in the encoding that it will have: its numbers, scales and zeros as parameters, rounded on the way
// forward.
#pragma once

#include <memory>
#include <vector>

#include "encoding/encoding.h"
#include "train/fake_quantize.h"

namespace nibble::tune {

// What of it is trained.
struct Trained {
  bool weights = false;  // the numbers that are rounded
  bool scales = false;   // of block encodings d of each block, its scales of sub-blocks stay
  bool zeros = false;    // likewise dmin
  bool offsets = false;  // what is added before rounding, within half a step (SignRound, arXiv 2309.05516)
};

class RoundedTensor {
 public:
  // `start`: a tensor of an affine encoding without kept columns or group index, or of a block encoding with a grid.
  // weights: what is rounded, (rows, cols); empty: the codes of `start` stay as they are. Throws
  // Error{kUnsupported} naming an encoding that cannot be trained.
  RoundedTensor(const std::string& name, const TensorView& start, std::vector<float> weights, const Trained& trained);

  // Its values, (rows, cols).
  train::Var values(train::Tape<float>& tape);
  // What is trained, each kind on its own; null where it is not. Scales, and the minima of block encodings, are
  // multiples of what they were; zeros are codes, offsets are in codes or levels.
  train::Parameter* weights() { return of(trained_.weights, weights_); }
  train::Parameter* scales() { return of(trained_.scales, scales_); }
  train::Parameter* zeros() { return of(trained_.zeros, zeros_); }
  train::Parameter* offsets() { return of(trained_.offsets, offsets_); }
  double mean_step() const;    // between neighbouring values, over all groups
  double offset_step() const;  // what an offset of one step is: 1, of non-linear types the mean between two levels
  // After every step: scales stay away from zero, offsets within half a step.
  void hold();
  // Of one whose codes stay: `original`, (rows, cols), moved no farther than needed to round to those codes, within a
  // twentieth of a step of the ends of their cells.
  std::vector<float> into_cells(std::vector<float> original) const;
  bool has_blocks() const { return encoding_->family == encoding::Family::kBlock; }
  // The numbers with their offsets, f32; not of one whose codes stay.
  Tensor unrounded() const;
  // The tensor as it is by now, as values() has it.
  Tensor pack() const;

  static bool supports(const encoding::EncodingInfo& encoding);

 private:
  static train::Parameter* of(bool trained, train::Parameter& parameter) { return trained ? &parameter : nullptr; }
  void read_affine(const TensorView& start);
  void read_blocks(const TensorView& start);
  struct Group {
    float scale, zero;  // value = scale * (level - zero)
  };
  Group group_at(std::int64_t i) const;  // of number i
  void pack_affine(Tensor& out) const;
  void pack_blocks(Tensor& out) const;

  std::string name_;
  const encoding::EncodingInfo* encoding_;
  Shape shape_;
  InputRounding inputs_;
  Trained trained_;
  train::CodeLevels codes_;
  bool keeps_codes_ = false;
  std::vector<float> levels_;  // of the codes of `start`, (rows, cols), where they stay
  train::Parameter weights_, scales_, zeros_, offsets_;
  std::vector<float> first_scales_, first_mins_;  // that multiples are of
  std::vector<float> sub_scales_, sub_mins_;      // of block encodings, (rows, groups)
  std::vector<std::byte> start_bytes_;            // of block encodings: what is not trained
};

}  // namespace nibble::tune
