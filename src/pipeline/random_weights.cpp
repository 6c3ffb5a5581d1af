#include "pipeline/random_weights.h"

#include <cmath>
#include <cstring>

#include "base/rng.h"

namespace nibble::pipeline {

namespace {

constexpr int kQuantiles = 65536;

// Quantiles (i + 1/2) / 65536 of the standard normal, ascending: Newton's method on the distribution function.
const std::vector<float>& normal_quantiles() {
  static const std::vector<float> quantiles = [] {
    std::vector<float> values(kQuantiles);
    double z = 0;
    for (int i = kQuantiles / 2; i < kQuantiles; ++i) {          // upward from the middle, each from the one before
      const double upper = (kQuantiles - i - 0.5) / kQuantiles;  // probability above
      for (int step = 0; step < 8; ++step) {
        const double density = std::exp(-0.5 * z * z) * 0.3989422804014327;
        z += (0.5 * std::erfc(z * 0.7071067811865476) - upper) / density;
      }
      values[static_cast<std::size_t>(i)] = static_cast<float>(z);
      values[static_cast<std::size_t>(kQuantiles - 1 - i)] = static_cast<float>(-z);
    }
    return values;
  }();
  return quantiles;
}

template <typename T>
void fill_as(const std::byte* table_bytes, std::uint64_t seed, std::uint64_t stream, std::int64_t begin, std::int64_t n,
             std::byte* out) noexcept {
  const auto* table = reinterpret_cast<const T*>(table_bytes);
  const auto put = [&](std::int64_t i, std::uint64_t bits) {
    const T value = table[bits >> (16 * (i & 3)) & 0xFFFF];
    std::memcpy(out + (i - begin) * static_cast<std::int64_t>(sizeof(T)), &value, sizeof(T));
  };
  std::int64_t i = begin;
  const std::int64_t end = begin + n;
  for (; i < end && (i & 3) != 0; ++i) put(i, random_bits(seed, stream, static_cast<std::uint64_t>(i) >> 2));
  for (; i + 4 <= end; i += 4) {
    const std::uint64_t bits = random_bits(seed, stream, static_cast<std::uint64_t>(i) >> 2);
    for (int k = 0; k < 4; ++k) put(i + k, bits);
  }
  for (; i < end; ++i) put(i, random_bits(seed, stream, static_cast<std::uint64_t>(i) >> 2));
}

}  // namespace

RandomWeights::RandomWeights(const encoding::EncodingInfo& type, float mean, float deviation, std::uint64_t seed,
                             std::uint64_t stream)
    : width_(static_cast<std::size_t>(type.block_bytes)), table_(kQuantiles * width_), seed_(seed), stream_(stream) {
  std::vector<float> values = normal_quantiles();
  for (float& value : values) value = mean + deviation * value;
  type.encode(values.data(), table_.data(), kQuantiles);
}

void RandomWeights::fill(std::int64_t begin, std::int64_t n, std::byte* out) const noexcept {
  if (width_ == sizeof(std::uint16_t)) {
    fill_as<std::uint16_t>(table_.data(), seed_, stream_, begin, n, out);
  } else {
    fill_as<std::uint32_t>(table_.data(), seed_, stream_, begin, n, out);
  }
}

}  // namespace nibble::pipeline
