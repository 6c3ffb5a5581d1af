// What a sweep gave on the affine family made better: scales, zeros and codes, by steps that each lower the error of
// the layer.
#pragma once

#include "method/affine_rows.h"

namespace nibble::method::gptq {

// The same for all rows: the gram cut as the steps need it.
class AffineDescent {
 public:
  AffineDescent() = default;
  AffineDescent(const encoding::AffineParams& params, std::int64_t cols, std::span<const float> gram);

  // One pass: scales and zeros of each group with its codes fixed, then codes one at a time. values and gradient
  // (n, cols), (values - target) gram, are kept up to date.
  void pass(AffineRows& rows, std::vector<float>& values, std::vector<float>& gradient) const;

 private:
  void refit_group(AffineRows& rows, std::int64_t group, std::vector<float>& values,
                   std::vector<float>& gradient) const;
  void descend_tile(AffineRows& rows, std::int64_t begin, std::int64_t end, std::vector<float>& values,
                    std::vector<float>& gradient) const;

  encoding::AffineParams params_;
  std::int64_t cols_ = 0;
  std::span<const float> gram_;
  std::vector<float> sums_;  // (cols): of each column, its products with the columns of its group
};

}  // namespace nibble::method::gptq
