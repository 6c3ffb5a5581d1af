// The affine family: a range per tensor, row or group, min-max or searched, then codes by the rounding rule.
#include "encoding/affine.h"

#include <algorithm>
#include <cmath>

#include "method/affine_range.h"
#include "method/input.h"
#include "method/output_range.h"
#include "method/rtn/quantizers.h"
#include "method/rtn/round.h"

namespace nibble::method::rtn {

namespace {

using encoding::AffineParams;
using encoding::Granularity;
using encoding::ScaleZero;

class Affine final : public Quantizer {
 public:
  explicit Affine(const Job& job) : job_(job), params_(affine_params(job)), importance_(prepare_importance(job)) {
    if (by_output()) require_gram(job, "rtn");
  }

  // A per-tensor range needs the whole tensor.
  void prepare(ExecContext& context, const RowSource& weights) override {
    if (params_.granularity != Granularity::kTensor) return;
    whole_ = choose_whole_scale(context, job_, importance_, weights);
    prepared_ = true;
  }

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows);
    const bool per_tensor = params_.granularity == Granularity::kTensor;
    if (per_tensor && !prepared_) fail(ErrorCode::kInternal, "tensor '{}': not prepared", job_.tensor);
    const std::int64_t cols = job_.shape.cols();
    const std::int64_t width = encoding::group_columns(params_, cols);
    const std::int64_t n_groups = encoding::groups_per_row(params_, cols);
    const std::uint64_t row_bytes = encoding::row_code_bytes(params_, cols);
    std::vector<std::uint8_t> stored(static_cast<std::size_t>(cols));
    std::vector<ScaleZero> scales;
    if (by_output()) scales = choose_scales_by_output(params_, weights, n_rows, cols, job_.statistics.gram);
    if (per_tensor && row_begin == 0) encoding::store_scale_zero(params_, whole_, out.parts[1], out.parts[2], 0);
    for (std::int64_t r = 0; r < n_rows; ++r) {
      const float* row = weights + r * cols;
      for (std::int64_t g = 0; g < n_groups; ++g) {
        const std::int64_t begin = g * width, end = std::min(cols, begin + width);
        ScaleZero at = whole_;
        if (!per_tensor) {
          at = by_output() ? scales[static_cast<std::size_t>(r * n_groups + g)]
                           : choose_scale(params_, job_.options.range, row + begin,
                                          importance_at(job_, importance_, row_begin + r, begin), end - begin);
          encoding::store_scale_zero(params_, at, out.parts[1], out.parts[2], r * n_groups + g);
        }
        round_group(row, begin, end, row_begin + r, at, stored.data());
      }
      encoding::pack_codes(params_.bits, stored.data(), cols, out.parts[0] + static_cast<std::uint64_t>(r) * row_bytes);
    }
  }

 private:
  bool by_output() const {
    return job_.options.range == RangeRule::kOutput && params_.granularity != Granularity::kTensor;
  }

  void round_group(const float* row, std::int64_t begin, std::int64_t end, std::int64_t row_index, const ScaleZero& at,
                   std::uint8_t* stored) const {
    const encoding::CodeRange codes = encoding::code_range(params_);
    const int offset = encoding::stored_offset(params_);
    for (std::int64_t col = begin; col < end; ++col) {
      int code = at.zero;
      if (at.scale > 0) {
        // Held first so that the conversion never meets a number too large for it; 512 is beyond every code.
        const float level = std::clamp(row[col] / at.scale, -512.0f, 512.0f);
        const int steps = static_cast<int>(round_by(job_.options, level, row_index, col));
        code = std::clamp(steps + at.zero, codes.min, codes.max);
      }
      stored[col] = static_cast<std::uint8_t>(code + offset);
    }
  }

  Job job_;
  AffineParams params_;
  std::vector<float> importance_;
  ScaleZero whole_;
  bool prepared_ = false;
};

}  // namespace

std::unique_ptr<Quantizer> make_affine(const Job& job) { return std::make_unique<Affine>(job); }

}  // namespace nibble::method::rtn
