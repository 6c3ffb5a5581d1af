// Small floats: the scale of each tile from its largest magnitude or searched, then the code by the rounding rule.
#include "encoding/scaled.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "encoding/float_code.h"
#include "method/input.h"
#include "method/rtn/quantizers.h"
#include "method/rtn/round.h"

namespace nibble::method::rtn {

namespace {

using encoding::FloatForm;
using encoding::ScaledParams;

// Rows and columns of one matrix; importance of its columns, or null.
struct Tile {
  const float* weights = nullptr;
  const float* importance = nullptr;
  std::int64_t rows = 0, cols = 0, stride = 0;
};

float magnitude_of(const Tile& tile) {
  float largest = 0;
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const float* row = tile.weights + r * tile.stride;
    for (std::int64_t c = 0; c < tile.cols; ++c) largest = std::max(largest, std::fabs(row[c]));
  }
  return largest;
}

// Searched scales are the usual one times 2^(k / 8), from 0.7 to twice it; powers of two the ones beside it. The usual
// one is the first, so that an equal one does not take its place.
std::vector<int> search_steps(const ScaledParams& params) {
  if (params.scale_dtype == Dtype::kF8E8m0) return {0, -8, 8};
  return {0, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8};
}

class Scaled final : public Quantizer {
 public:
  explicit Scaled(const Job& job)
      : job_(job),
        params_(job.target->scaled),
        form_(encoding::float_form(params_.code)),
        importance_(prepare_importance(job)),
        steps_(search_steps(params_)),
        cols_(job.shape.cols()) {
    const Shape scales = encoding::scaled_scales_shape(params_, job.shape);
    n_matrices_ = scales[0];
    matrix_rows_ = n_matrices_ > 0 ? job.shape.rows() / n_matrices_ : 0;
    whole_ = params_.tile_rows == 0;
  }

  // What belongs to a whole matrix: its largest magnitude, and of one scale its error under others.
  void prepare(ExecContext& context, const RowSource& weights) override {
    if (!whole_ && !params_.global_scale) return;
    const auto n = static_cast<std::size_t>(n_matrices_);
    std::vector<float> largest(n);
    for_chunks(
        context, weights, [](std::size_t, const Tile& tile) { return magnitude_of(tile); },
        [&](std::size_t matrix, float value) { largest[matrix] = std::max(largest[matrix], value); });
    for (std::size_t m = 0; m < n; ++m) {
      globals_.push_back(encoding::global_of_magnitude(params_, largest[m]));
      if (whole_) scales_.push_back(encoding::scale_of_magnitude(params_, largest[m], globals_[m]));
    }
    if (whole_ && is_searched()) search_whole(context, weights);
  }

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows);
    if (row_begin == 0) store_whole(out);
    std::vector<std::uint8_t> codes;
    RowsOut at = out;
    const std::uint64_t row_bytes = encoding::scaled_row_bytes(params_, cols_);
    for (std::int64_t r = 0; r < n_rows;) {
      const std::int64_t row = row_begin + r, left = std::min(n_rows - r, matrix_rows_ - row % matrix_rows_);
      const std::int64_t height = whole_ ? left : std::min(left, params_.tile_rows);
      codes.resize(static_cast<std::size_t>(height * cols_));
      at.parts[1] += quantize_tiles(weights + r * cols_, row, height, codes.data(), at.parts[1]);
      for (std::int64_t i = 0; i < height; ++i, at.parts[0] += row_bytes)
        encoding::pack_float_codes(params_, codes.data() + i * cols_, cols_, at.parts[0]);
      r += height;
    }
  }

 private:
  bool is_searched() const { return job_.options.range != RangeRule::kMinMax; }
  float global_of(std::int64_t row) const {
    return params_.global_scale ? globals_.at(static_cast<std::size_t>(row / matrix_rows_)) : 1.0f;
  }

  const float* importance_at(std::int64_t row) const {
    if (importance_.empty()) return nullptr;
    const std::int64_t rows_per_expert = job_.shape.rows() * cols_ / static_cast<std::int64_t>(importance_.size());
    return importance_.data() + row / rows_per_expert * cols_;
  }

  // visit(matrix, tile) of rows of one matrix at a time on all threads, then merge(matrix, result) in their order.
  template <typename Visit, typename Merge>
  void for_chunks(ExecContext& context, const RowSource& weights, Visit&& visit, Merge&& merge) const {
    constexpr std::int64_t kChunkWeights = 1 << 18;
    if (matrix_rows_ == 0 || cols_ == 0) return;
    const std::int64_t rows = std::clamp<std::int64_t>(kChunkWeights / cols_, 1, matrix_rows_);
    const std::int64_t per_matrix = (matrix_rows_ - 1) / rows + 1;
    std::vector<decltype(visit(std::size_t{}, Tile{}))> results(static_cast<std::size_t>(per_matrix * n_matrices_));
    context.pool.parallel_dynamic(per_matrix * n_matrices_, [&](std::int64_t chunk) {
      context.check_cancelled();
      const std::int64_t matrix = chunk / per_matrix, first = chunk % per_matrix * rows;
      const std::int64_t begin = matrix * matrix_rows_ + first, n = std::min(rows, matrix_rows_ - first);
      std::vector<float> values(static_cast<std::size_t>(n * cols_));
      weights.read(begin, begin + n, values.data());
      require_representable(job_, values.data(), begin, n);
      results[static_cast<std::size_t>(chunk)] =
          visit(static_cast<std::size_t>(matrix), Tile{values.data(), importance_at(begin), n, cols_, cols_});
    });
    for (std::size_t i = 0; i < results.size(); ++i) merge(i / static_cast<std::size_t>(per_matrix), results[i]);
  }

  void search_whole(ExecContext& context, const RowSource& weights) {
    const std::size_t n = steps_.size();
    std::vector<double> errors(scales_.size() * n);
    for_chunks(
        context, weights,
        [&](std::size_t matrix, const Tile& tile) {
          std::vector<double> each;
          for (const int step : steps_) each.push_back(error_of(tile, candidate(scales_[matrix], step)));
          return each;
        },
        [&](std::size_t matrix, const std::vector<double>& each) {
          for (std::size_t i = 0; i < n; ++i) errors[matrix * n + i] += each[i];
        });
    for (std::size_t m = 0; m < scales_.size(); ++m) {
      const auto own = std::span(errors).subspan(m * n, n);
      scales_[m] = candidate(scales_[m], steps_[static_cast<std::size_t>(std::ranges::min_element(own) - own.begin())]);
    }
  }

  float candidate(float usual, int k) const {
    return encoding::round_float_scale(params_.scale_dtype, usual * std::exp2(static_cast<float>(k) / 8));
  }

  // Sum of importance * error^2 of nearest codes.
  double error_of(const Tile& tile, float scale) const {
    double sum = 0;
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      const float* row = tile.weights + r * tile.stride;
      for (std::int64_t c = 0; c < tile.cols; ++c) {
        const auto error = static_cast<double>(row[c] - form_.values[form_.nearest(row[c] / scale)] * scale);
        sum += (tile.importance != nullptr ? static_cast<double>(tile.importance[c]) : 1.0) * error * error;
      }
    }
    return sum;
  }

  float scale_of(const Tile& tile, float global) const {
    const float magnitude = magnitude_of(tile);
    const float usual = encoding::scale_of_magnitude(params_, magnitude, global);
    if (!is_searched() || magnitude == 0) return usual;
    float best = usual;
    double least = HUGE_VAL;
    for (const int step : steps_) {
      const float scale = candidate(usual, step);
      const double error = error_of(tile, scale / global);
      if (!(error < least)) continue;
      least = error;
      best = scale;
    }
    return best;
  }

  // Rows that share scales, from `row` on. Gives the bytes of scales that were written.
  std::ptrdiff_t quantize_tiles(const float* weights, std::int64_t row, std::int64_t height, std::uint8_t* codes,
                                std::byte* scales) const {
    const std::int64_t n_tiles = encoding::scales_per_row(params_, cols_);
    const std::int64_t width = params_.tile_cols == 0 ? cols_ : params_.tile_cols;
    const float* importance = importance_at(row);
    for (std::int64_t t = 0; t < n_tiles; ++t) {
      const std::int64_t begin = t * width, count = std::min(width, cols_ - begin);
      const Tile tile = {weights + begin, importance != nullptr ? importance + begin : nullptr, height, count, cols_};
      const float scale =
          whole_ ? scales_.at(static_cast<std::size_t>(row / matrix_rows_)) : scale_of(tile, global_of(row));
      if (!whole_) encoding::store_float_scale(params_.scale_dtype, scale, scales, t);
      const float divisor = scale / global_of(row);
      for (std::int64_t r = 0; r < height; ++r) {
        for (std::int64_t c = begin; c < begin + count; ++c)
          codes[r * cols_ + c] = code_of(weights[r * cols_ + c] / divisor, row + r, c);
      }
    }
    return whole_
               ? 0
               : static_cast<std::ptrdiff_t>(n_tiles) * static_cast<std::ptrdiff_t>(dtype_bytes(params_.scale_dtype));
  }

  std::uint8_t code_of(float value, std::int64_t row, std::int64_t col) const {
    const std::uint8_t nearest = form_.nearest(value);
    if (job_.options.rounding == Rounding::kNearest) return nearest;
    // The magnitudes around it, then up or down from the lower value.
    const float magnitude = std::fabs(value);
    auto below = static_cast<std::uint8_t>(nearest & (form_.sign - 1));
    if (form_.values[below] > magnitude) --below;
    const std::uint8_t above = std::min<std::uint8_t>(static_cast<std::uint8_t>(below + 1), form_.largest_code);
    const float gap = form_.values[above] - form_.values[below];
    const float part = gap > 0 ? std::clamp((magnitude - form_.values[below]) / gap, 0.0f, 1.0f) : 0.0f;
    const bool negative = std::signbit(value);
    const bool up = round_by(job_.options, negative ? 1 - part : part, row, col) > 0.5f;
    return static_cast<std::uint8_t>((nearest & form_.sign) | (up != negative ? above : below));
  }

  void store_whole(const RowsOut& out) const {
    const auto needed = static_cast<std::size_t>(whole_ || params_.global_scale ? n_matrices_ : 0);
    if (globals_.size() != needed) fail(ErrorCode::kInternal, "tensor '{}': not prepared", job_.tensor);
    for (std::size_t m = 0; m < scales_.size(); ++m)
      encoding::store_float_scale(params_.scale_dtype, scales_[m], out.parts[1], static_cast<std::int64_t>(m));
    if (params_.global_scale) std::memcpy(out.parts[2], globals_.data(), globals_.size() * sizeof(float));
  }

  Job job_;
  ScaledParams params_;
  const FloatForm& form_;
  std::vector<float> importance_;
  std::vector<int> steps_;
  std::int64_t cols_, n_matrices_ = 0, matrix_rows_ = 0;
  bool whole_ = false;                   // one scale for a matrix
  std::vector<float> globals_, scales_;  // of the matrices
};

// GGUF's blocks of mxfp4: made apart and put in their order.
class Mxfp4Blocks final : public Quantizer {
 public:
  explicit Mxfp4Blocks(const Job& job) : job_(job), parts_(with_parts(job)) {}

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    Tensor tensor = encoding::allocate(encoding::get("mxfp4-hf"), {n_rows, job_.shape.cols()});
    parts_.quantize_rows(weights, row_begin, n_rows, encoding::rows_at(tensor, 0));
    const std::uint64_t row_bytes = encoding::row_bytes(*job_.target, job_.shape.cols());
    for (std::int64_t r = 0; r < n_rows; ++r)
      encoding::repack_row(tensor.view(), r, out.parts[0] + static_cast<std::uint64_t>(r) * row_bytes);
  }

 private:
  static Job with_parts(Job job) {
    job.target = &encoding::get("mxfp4-hf");
    return job;
  }
  Job job_;
  Scaled parts_;
};

}  // namespace

std::unique_ptr<Quantizer> make_scaled(const Job& job) { return std::make_unique<Scaled>(job); }
std::unique_ptr<Quantizer> make_mxfp4_blocks(const Job& job) { return std::make_unique<Mxfp4Blocks>(job); }

}  // namespace nibble::method::rtn
