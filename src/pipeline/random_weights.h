// Normally distributed weights, made fast: sixteen random bits pick one of 65536 quantiles, already in the output's
// type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "encoding/encoding.h"

namespace nibble::pipeline {

class RandomWeights {
 public:
  // Values mean + deviation * z as `type` (f32, f16 or bf16). Value i of a stream is a function of (seed, stream, i).
  RandomWeights(const encoding::EncodingInfo& type, float mean, float deviation, std::uint64_t seed,
                std::uint64_t stream);

  // Values [begin, begin + n) of the stream.
  void fill(std::int64_t begin, std::int64_t n, std::byte* out) const noexcept;

 private:
  std::size_t width_;             // bytes of a value
  std::vector<std::byte> table_;  // 65536 values
  std::uint64_t seed_, stream_;
};

}  // namespace nibble::pipeline
