// The transforms that a request names, by when they are done.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "transform/transform.h"

namespace nibble::pipeline {

struct Transforms {
  std::vector<transform::Chosen> of_model;   // of the whole model, before all else
  std::vector<transform::Chosen> of_blocks;  // of each block in a walk over a text, in order

  // Those of the whole model, one after the other.
  std::shared_ptr<const model::ModelSource> rewrite(std::shared_ptr<const model::ModelSource> source,
                                                    std::uint64_t seed) const;
};
// Throws Error{kInvalidArgument} for an unknown one, and for one that learns from a text where there is none.
Transforms choose_transforms(std::span<const std::string> names, bool text);

// Matrices of the block that are made when they are read would be made again for every pass through it: exchanges them
// for their numbers in f32. Were there any?
bool hold_made_weights(ExecContext& context, model::ModelSource& source, int layer);

}  // namespace nibble::pipeline
