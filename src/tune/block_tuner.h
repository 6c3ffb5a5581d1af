// One block trained to give what the unquantized one gave: SignRound (arXiv 2309.05516) and EfficientQAT's Block-AP
// (arXiv 2407.11062, 3.2).
#pragma once

#include <cstdint>
#include <vector>

#include "base/cpu.h"
#include "base/exec_context.h"
#include "linalg/gemm.h"
#include "model/source.h"
#include "train/optimizer.h"
#include "tune/rounded_tensor.h"

namespace nibble::tune {

// States before the block as the quantized part gives them, and behind it as the original gives them, (sequences *
// length, hidden); those that are learned from and those that
// judge; without any the former do.
struct BlockStates {
  std::int64_t length = 0;
  std::int64_t n_train = 0, n_held_out = 0;  // sequences
  const float *inputs = nullptr, *targets = nullptr;
  const float *held_out_inputs = nullptr, *held_out_targets = nullptr;
};

// A weight of the block as it was quantized first, and what it stands for.
struct BlockTensor {
  std::size_t slot = 0;  // of the source's spec
  TensorView start;
  std::vector<float> original;  // (rows, cols)
};

struct BlockTuning {
  Trained trained;
  std::string optimizer = "signsgd";
  int iterations = 200;
  std::int64_t batch_sequences = 8;
  // The learning rates at the start: of offsets and weights in steps between values, of scales as a share of them, of
  // zeros in codes. They fall to `final_fraction`.
  // With `absolute` those of weights and scales are in the weights' own units instead, as papers give them.
  bool absolute = false;
  double lr_offsets = 0.005, lr_weights = 0.005, lr_scales = 0.005, lr_zeros = 0.005;
  std::string schedule = "linear";
  double final_fraction = 0;
  double weight_decay = 0;
  double left_out = 0;  // share of the block's squared errors, the largest, that are not learned from
  // Steps that train what of the block is not quantized yet, after each stage; 0: none. Learning rate: `lr_plain` of
  // the weights' own size.
  int absorb_iterations = 0;
  double lr_plain = 0.002;
  // Are the scales of block encodings searched anew for what the tuning made of the weights?
  bool search_again = false;
  // Are weights that are rounded first moved into the cells of the codes they have, as far as need be?
  bool keep_codes = true;
  std::uint64_t seed = 0;
  Isa isa = Isa::kScalar;
  linalg::Precision precision = linalg::Precision::kF32;  // of the products of linears
};

struct TunedBlock {
  double before = 0, after = 0;  // squared error of the held-out outputs over their square
  int best_iteration = 0;        // 0: as it was
  double seconds = 0;
  std::vector<Tensor> tensors;  // of each BlockTensor or slot; empty where nothing was better
  // With search_again: those of block encodings before they are rounded, f32; empty ones of others.
  std::vector<Tensor> unrounded;
};

// `source` gives all other weights of the block. The result is that of the iteration with the least held-out error;
// nothing where none is below the first.
TunedBlock tune_block(ExecContext& context, const model::ModelSource& source, int layer, const BlockStates& states,
                      std::vector<BlockTensor> tensors, const BlockTuning& options);
// What quantized weights of a block lose, trained into those that are not yet: `slots`, whose tensors are f32
// (QuIP#, arXiv 2402.04396, section 5). The result as above.
TunedBlock absorb_error(ExecContext& context, const model::ModelSource& source, int layer, const BlockStates& states,
                        const std::vector<std::size_t>& slots, const BlockTuning& options);
// The squared error of the held-out outputs over their square.
double block_error(ExecContext& context, const model::ModelSource& source, int layer, const BlockStates& states,
                   const BlockTuning& options);

}  // namespace nibble::tune
