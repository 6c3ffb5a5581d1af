// Counter-based random numbers: value i of stream s is a pure function of (seed, s, i), so any thread order gives the
// same.
#pragma once

#include <cmath>
#include <cstdint>

namespace nibble {

// SplitMix64 finaliser (Steele et al. 2014) over a Weyl sequence.
inline std::uint64_t random_bits(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  auto mix = [](std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  };
  return mix(mix(seed + 0x9E3779B97F4A7C15ull * (stream + 1)) + 0x9E3779B97F4A7C15ull * (index + 1));
}

// Uniform in [0, 1), 24 bits.
inline float random_uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  return static_cast<float>(random_bits(seed, stream, index) >> 40) * 0x1p-24f;
}

// Standard normal (Box-Muller on the two halves of one draw).
inline float random_normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  const std::uint64_t bits = random_bits(seed, stream, index);
  const float u = (static_cast<float>(bits >> 40) + 0.5f) * 0x1p-24f;
  const float v = static_cast<float>(bits & 0xFFFFFF) * 0x1p-24f;
  return std::sqrt(-2.0f * std::log(u)) * std::cos(6.28318530717958647692f * v);
}

}  // namespace nibble
