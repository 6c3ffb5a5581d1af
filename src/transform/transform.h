// Rewrites of a model that leave its function as it is and make its weights easier to quantize.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/exec_context.h"
#include "calib/block_walk.h"
#include "method/quantizer.h"
#include "model/source.h"

namespace nibble::transform {

// What a weight is to become: quantized by a method, or kept as a plain type.
struct SlotTarget {
  const encoding::EncodingInfo* target = nullptr;  // null: it is not quantized
  const method::Method* method = nullptr;
  const encoding::EncodingInfo* kept_as = nullptr;   // the type of a weight that is not; null: as it is
  const encoding::ActivationInfo* inputs = nullptr;  // how its inputs will be rounded; null: they will not
};

// One block, not quantized yet, with the walk standing before it.
struct BlockScope {
  ExecContext& context;
  calib::BlockWalk& walk;
  model::ModelSource& source;           // whose weights are exchanged for the rewritten ones
  std::span<const SlotTarget> targets;  // by slot
  const method::Options& options;
  int layer;
  std::string_view settings = {};  // of the transform
};

struct Transform {
  std::string_view name;     // "awq"
  std::string_view summary;  // one line
  std::string_view origin;   // paper
  // Of each block before it is quantized, in a walk over a text. Null: nothing.
  void (*apply)(BlockScope& scope) = nullptr;
  // Throws Error{kInvalidArgument} for settings it does not take. Null: it takes none.
  void (*check)(std::string_view settings) = nullptr;
  // Of the whole model before all else, without a text: the same function in other weights, made when they are read.
  // Throws Error{kUnsupported} naming what stands in the way. Null: nothing.
  using SharedSource = std::shared_ptr<const model::ModelSource>;
  SharedSource (*apply_model)(const SharedSource& source, std::uint64_t seed, std::string_view settings) = nullptr;
};

std::span<const Transform* const> all_entries();
// A transform as it is asked for: "awq", "smoothquant:alpha=0.7".
struct Chosen {
  const Transform* transform = nullptr;
  std::string settings;
};
Chosen choose(std::string_view text);  // throws Error{kInvalidArgument} naming those there are

}  // namespace nibble::transform
