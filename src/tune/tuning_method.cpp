#include "tune/tuning_method.h"

#include <algorithm>
#include <array>

namespace nibble::tune {

namespace {

BlockTuning autoround() {
  BlockTuning tuning;
  tuning.trained = {.weights = false, .scales = true, .zeros = false, .offsets = true};
  tuning.optimizer = "signsgd";
  tuning.search_again = true;
  return tuning;
}

BlockTuning block_ap() {
  BlockTuning tuning;
  tuning.trained = {.weights = true, .scales = true, .zeros = true, .offsets = false};
  tuning.optimizer = "adamw";
  tuning.schedule = "cosine";
  tuning.final_fraction = 0.05;
  return tuning;
}

BlockTuning absorb() {
  BlockTuning tuning = block_ap();
  tuning.absorb_iterations = 100;
  return tuning;
}

// The published hyper-parameters: 4096 samples of 2048 tokens, two epochs of batches of two, from nearest rounding.
BlockTuning block_ap_paper() {
  BlockTuning tuning = block_ap();
  tuning.absolute = true;
  tuning.keep_codes = false;
  tuning.lr_weights = 2e-5;
  tuning.lr_scales = tuning.lr_zeros = 1e-4;
  tuning.batch_sequences = 2;
  tuning.iterations = 4096;
  return tuning;
}

// Weights alone, from nearest rounding, as ZeroQuant trains one layer after the other; here the inputs come from the
// quantized layers before.
BlockTuning lkd() {
  BlockTuning tuning = block_ap();
  tuning.trained = {.weights = true, .scales = false, .zeros = false, .offsets = false};
  tuning.keep_codes = false;
  return tuning;
}

}  // namespace

std::span<const TuningMethod> tuning_methods() {
  static const std::array<TuningMethod, 5> methods = {{
      {"autoround", "rounding offsets and scales of a block by signed gradients, from where gptq leaves it",
       "SignRound, arXiv 2309.05516; intel/auto-round", "a few hundred passes forth and back over each block", "gptq",
       autoround()},
      {"block-ap", "weights, scales and zeros of a block by AdamW, from where gptq leaves it",
       "EfficientQAT, arXiv 2407.11062, 3.2", "a few hundred passes forth and back over each block", "gptq",
       block_ap()},
      {"absorb",
       "block-ap behind solvers whose errors the block's later linears learn to make up for before they are solved",
       "QuIP#, arXiv 2402.04396, 5; EfficientQAT", "as block-ap, and as much again for the linears", "gptq", absorb()},
      {"lkd", "layer-by-layer distillation: the weights of a block by AdamW, from nearest rounding",
       "ZeroQuant, arXiv 2206.01861, 4.3", "a few hundred passes forth and back over each block", "rtn", lkd()},
      {"block-ap-paper", "the same with the published learning rates and steps, from nearest rounding",
       "EfficientQAT, arXiv 2407.11062, 4.1", "4096 passes forth and back over each block", "rtn", block_ap_paper()},
  }};
  return methods;
}

BlockTuning tuning_here(const TuningMethod& method, std::uint64_t seed) {
  BlockTuning tuning = method.tuning;
  tuning.seed = seed;
  tuning.isa = best_isa();
  tuning.precision = linalg::parse_precision("auto", tuning.isa);
  return tuning;
}

const TuningMethod* find_tuning_method(std::string_view name) {
  const auto methods = tuning_methods();
  const auto found = std::ranges::find(methods, name, &TuningMethod::name);
  return found == methods.end() ? nullptr : &*found;
}

}  // namespace nibble::tune
