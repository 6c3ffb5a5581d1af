// Random rotations of a vector space, and of runs of a matrix's rows or columns.
#pragma once

#include <cstdint>
#include <vector>

#include "linalg/hadamard.h"

namespace nibble::transform::rotate {

// A random orthogonal matrix R (n, n).
class Rotation {
 public:
  enum class Kind : std::uint8_t {
    kPlain,  // the mixer alone, whatever the seed: what a decoder can do with inputs (ModelSpec::online_rotation)
    kAny,  // H D: random signs, then a mixer (QuaRot, arXiv 2404.00456, 3.1): what lies in one channel is spread evenly
    kKeepsMean,  // H P Hᵀ, P random signs and order of all but the first: R (1, ..., 1)ᵀ = (1, ..., 1)ᵀ
  };
  // Errors as linalg::Mixer.
  Rotation(std::int64_t n, Kind kind, std::uint64_t seed);

  std::int64_t size() const { return mixer_.size(); }
  // Each run of `size` numbers of x, (runs, size), becomes R times it. From any thread.
  void rotate_runs(std::int64_t runs, float* x) const;
  // Each run of `size` rows of x, (runs, size, cols), becomes R times it. From any thread.
  void rotate_rows(std::int64_t runs, std::int64_t cols, float* x) const;

 private:
  void apply(float* x, std::int64_t width, std::vector<float>& scratch) const;  // x (size, width)
  linalg::Mixer mixer_;
  std::vector<float> signs_;
  std::vector<std::int32_t> order_;  // of kKeepsMean, else empty
};

}  // namespace nibble::transform::rotate
