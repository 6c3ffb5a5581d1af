#include "transform/rotate/rotation.h"

#include <algorithm>
#include <numeric>

#include "base/rng.h"

namespace nibble::transform::rotate {

namespace {

constexpr std::int64_t kTile = 64;  // columns that are rotated together, in the cache
enum Stream : std::uint64_t { kSigns, kOrder };

}  // namespace

Rotation::Rotation(std::int64_t n, Kind kind, std::uint64_t seed) : mixer_(n, kind == Kind::kPlain ? 0 : seed) {
  const auto size = static_cast<std::size_t>(n);
  for (std::size_t i = 0; i < size; ++i) signs_.push_back(random_bits(seed, kSigns, i) >> 63 != 0 ? -1.0f : 1.0f);
  if (kind == Kind::kPlain) signs_.assign(size, 1.0f);
  if (kind != Kind::kKeepsMean) return;
  signs_[0] = 1;
  order_.resize(size);
  std::iota(order_.begin(), order_.end(), 0);
  for (std::size_t i = size - 1; i > 1; --i)  // Fisher and Yates, of all but the first
    std::swap(order_[i], order_[1 + static_cast<std::size_t>(random_bits(seed, kOrder, i) % i)]);
}

void Rotation::apply(float* x, std::int64_t width, std::vector<float>& scratch) const {
  const std::int64_t n = size();
  if (!order_.empty()) {
    mixer_.multiply_transposed(x, width);
    scratch.assign(x, x + n * width);
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const float* from = order_.empty() ? x + i * width : scratch.data() + order_[at] * width;
    for (std::int64_t c = 0; c < width; ++c) x[i * width + c] = signs_[at] * from[c];
  }
  mixer_.multiply(x, width);
}

void Rotation::rotate_runs(std::int64_t runs, float* x) const {
  std::vector<float> scratch;
  for (std::int64_t i = 0; i < runs; ++i) apply(x + i * size(), 1, scratch);
}

void Rotation::rotate_rows(std::int64_t runs, std::int64_t cols, float* x) const {
  const std::int64_t n = size();
  std::vector<float> tile(static_cast<std::size_t>(n * std::min(cols, kTile))), scratch;
  for (std::int64_t run = 0; run < runs; ++run, x += n * cols) {
    for (std::int64_t begin = 0; begin < cols; begin += kTile) {
      const std::int64_t width = std::min(kTile, cols - begin);
      for (std::int64_t i = 0; i < n; ++i) std::copy_n(x + i * cols + begin, width, tile.data() + i * width);
      apply(tile.data(), width, scratch);
      for (std::int64_t i = 0; i < n; ++i) std::copy_n(tile.data() + i * width, width, x + i * cols + begin);
    }
  }
}

}  // namespace nibble::transform::rotate
