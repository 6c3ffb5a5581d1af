// The affine family: a range per tensor, row or group, min-max or searched, then codes by the rounding rule.
#include "encoding/affine.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "method/affine_range.h"
#include "method/input.h"
#include "method/rtn/quantizers.h"
#include "method/rtn/round.h"

namespace nibble::method::rtn {

namespace {

using encoding::AffineParams;
using encoding::Granularity;
using encoding::ScaleZero;

class Affine final : public Quantizer {
 public:
  explicit Affine(const Job& job) : job_(job), params_(job.target->affine), importance_(prepare_importance(job)) {}

  // A per-tensor range needs the whole tensor.
  void prepare(ExecContext& context, const RowSource& weights) override {
    if (params_.granularity != Granularity::kTensor) return;
    const Range range = tensor_range(context, weights);
    whole_ = encoding::scale_of_range(params_, range.low, range.high);
    if (job_.options.range == RangeRule::kMse) whole_ = search_whole(context, weights, range);
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
    if (per_tensor && row_begin == 0) encoding::store_scale_zero(params_, whole_, out.parts[1], out.parts[2], 0);
    for (std::int64_t r = 0; r < n_rows; ++r) {
      const float* row = weights + r * cols;
      for (std::int64_t g = 0; g < n_groups; ++g) {
        const std::int64_t begin = g * width, end = std::min(cols, begin + width);
        ScaleZero at = whole_;
        if (!per_tensor) {
          at = choose_scale(params_, job_.options.range, row + begin, importance_of(row_begin + r, begin), end - begin);
          encoding::store_scale_zero(params_, at, out.parts[1], out.parts[2], r * n_groups + g);
        }
        round_group(row, begin, end, row_begin + r, at, stored.data());
      }
      encoding::pack_codes(params_.bits, stored.data(), cols, out.parts[0] + static_cast<std::uint64_t>(r) * row_bytes);
    }
  }

 private:
  const float* importance_of(std::int64_t row, std::int64_t col) const {
    if (importance_.empty()) return nullptr;
    const std::int64_t cols = job_.shape.cols();
    const std::int64_t rows_per_expert = job_.shape.rows() * cols / static_cast<std::int64_t>(importance_.size());
    return importance_.data() + row / rows_per_expert * cols + col;
  }

  // Calls body(chunk, row, values) for every row; each chunk of rows is one task.
  template <typename Body>
  std::int64_t for_each_row(ExecContext& context, const RowSource& weights, Body&& body) const {
    const std::int64_t n_chunks = (weights.rows() + kChunkRows - 1) / kChunkRows;
    context.pool.parallel_dynamic(n_chunks, [&](std::int64_t chunk) {
      context.check_cancelled();
      std::vector<float> row(static_cast<std::size_t>(weights.cols()));
      const std::int64_t end = std::min(weights.rows(), (chunk + 1) * kChunkRows);
      for (std::int64_t r = chunk * kChunkRows; r < end; ++r) {
        weights.read(r, r + 1, row.data());
        body(static_cast<std::size_t>(chunk), r, row.data());
      }
    });
    return n_chunks;
  }

  Range tensor_range(ExecContext& context, const RowSource& weights) const {
    std::vector<Range> ranges(static_cast<std::size_t>((weights.rows() + kChunkRows - 1) / kChunkRows));
    for_each_row(context, weights, [&](std::size_t chunk, std::int64_t row, const float* values) {
      require_representable(job_, values, row, 1);
      const Range range = range_of(values, weights.cols());
      const bool first = row % kChunkRows == 0;
      ranges[chunk].low = first ? range.low : std::min(ranges[chunk].low, range.low);
      ranges[chunk].high = first ? range.high : std::max(ranges[chunk].high, range.high);
    });
    Range all = ranges.empty() ? Range{} : ranges.front();
    for (const Range& range : ranges) all = {std::min(all.low, range.low), std::max(all.high, range.high)};
    return all;
  }

  ScaleZero search_whole(ExecContext& context, const RowSource& weights, const Range& range) const {
    std::array<ScaleZero, kShrinks> candidates;
    for (int i = 0; i < kShrinks; ++i) {
      candidates[static_cast<std::size_t>(i)] =
          encoding::scale_of_range(params_, shrink(i) * range.low, shrink(i) * range.high);
    }
    // Summed per chunk and then in order, so that the result does not depend on the threads.
    std::vector<std::array<double, kShrinks>> errors(
        static_cast<std::size_t>((weights.rows() + kChunkRows - 1) / kChunkRows));
    for_each_row(context, weights, [&](std::size_t chunk, std::int64_t row, const float* values) {
      for (std::size_t i = 0; i < kShrinks; ++i) {
        errors[chunk][i] +=
            static_cast<double>(range_error(params_, values, importance_of(row, 0), weights.cols(), candidates[i]));
      }
    });
    std::array<double, kShrinks> sums{};
    for (const auto& chunk : errors) {
      for (std::size_t i = 0; i < kShrinks; ++i) sums[i] += chunk[i];
    }
    const auto least = std::min_element(sums.begin(), sums.end()) - sums.begin();
    return candidates[static_cast<std::size_t>(least)];
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

  static constexpr std::int64_t kChunkRows = 64;
  Job job_;
  AffineParams params_;
  std::vector<float> importance_;
  ScaleZero whole_;
  bool prepared_ = false;
};

}  // namespace

std::unique_ptr<Quantizer> make_affine(const Job& job) { return std::make_unique<Affine>(job); }

}  // namespace nibble::method::rtn
