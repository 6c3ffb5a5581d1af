// Small floats beside the scales of their tiles, as several schemes store them: X and X + a suffix.
//
// A scale is above 0. One of 0 is read where all codes of its tile are 0, too, as published models have it of tiles of
// zeros; any other makes no weights, so the file is damaged, as it is with a scale that is negative, NaN or infinite.
// Scales of a byte are looked at when their rows are used, and not here: of large models they are gigabytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "container/checkpoint.h"
#include "encoding/encoding.h"

namespace nibble::container::hf {

// The tensors of a folder by name, some of which become part of others.
class TensorJoin {
 public:
  explicit TensorJoin(std::vector<TensorEntry>& tensors);  // throws Error{kFormat} when two have the same name
  TensorEntry* find(std::string_view name) const;          // null when absent
  // `part` belongs to another tensor now and is none of its own.
  void absorb(const TensorEntry& part);
  void finish();  // removes what was absorbed; the names found are valid until then

 private:
  std::vector<TensorEntry>& tensors_;
  std::unordered_map<std::string_view, TensorEntry*> by_name_;
  std::vector<bool> absorbed_;
};

// How many rows and columns share a scale, 0 is all of them; how the inputs of such a weight are rounded (null: not at
// all).
struct Tile {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const encoding::ActivationInfo* inputs = nullptr;
};
inline constexpr Tile kPerTensor = {0, 0};
inline constexpr Tile kPerChannel = {1, 0};
// Two positive numbers, rows and columns, of a config. Throws Error{kFormat} naming the key.
Tile read_tile(const json::Value& object, std::string_view key);

// Joins each f8_e4m3 tensor with the scale `suffix` behind its name: the first of `tiles` that the shape of the scale
// fits. Throws Error{kFormat} for a tensor that has none, for one of another type that has one, and for shapes and
// types that are not possible. Scales of a byte are powers of two when `byte_scales` says so. A fixed scale of inputs
// is the tensor named by its module and the first of `input_suffixes` that is there.
inline constexpr std::string_view kInputScale[] = {".input_scale"};
void join_fp8(std::vector<TensorEntry>& tensors, std::string_view suffix, const std::vector<Tile>& tiles,
              bool byte_scales, std::span<const std::string_view> input_suffixes = kInputScale);

// Throws Error{kFormat} naming `scales` for a scale of the view that is none.
void check_scales(const TensorView& view, std::string_view scales);

// Parts as they are, each a tensor of the file; behind them that of a fixed scale of inputs, f32 (1).
void copy_parts(const TensorView& tensor, std::span<const std::span<std::byte>> files);

}  // namespace nibble::container::hf
