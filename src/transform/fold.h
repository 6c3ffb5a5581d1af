// Scaling two sides of a link against each other.
#pragma once

#include <functional>
#include <vector>

#include "model/links.h"
#include "transform/transform.h"

namespace nibble::transform {

// Divides the producer's channels by `scale`, (link.rows()), and multiplies the consumers' columns by it, with
// exchanged weights in f32. Where the producer is a norm that is kept in a type of 16 bits, what it becomes is rounded
// first and the scale follows, so that the product stays what it was; `scale` is then what was used.
void fold(BlockScope& scope, const model::Link& link, std::vector<float>& scale);
// Folds every link of the block that has consumers to be quantized with the factors that `choose` gives for it, the
// stage of its inputs and the slots of those consumers; empty: the link stays as it is.
using ChooseFactors = std::function<std::vector<float>(const model::Link& link, const calib::Stage& stage,
                                                       std::vector<std::size_t> slots)>;
void fold_links(BlockScope& scope, const ChooseFactors& choose);

// A weight as f32 numbers, and back into the source.
std::vector<float> read_weight(const model::ModelSource& source, std::size_t slot);
void write_weight(model::ModelSource& source, std::size_t slot, const std::vector<float>& values);
std::size_t slot_index(const model::ModelSpec& spec, model::Role role, int layer, bool bias = false);  // kNoSlot: none
inline constexpr std::size_t kNoSlot = ~std::size_t{0};

}  // namespace nibble::transform
