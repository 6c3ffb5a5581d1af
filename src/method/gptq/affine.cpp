#include "method/gptq/affine.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "encoding/affine.h"
#include "linalg/gemm.h"
#include "method/affine_range.h"
#include "method/gptq/hessian.h"
#include "method/input.h"

namespace nibble::method::gptq {

namespace {

using encoding::AffineParams;
using encoding::Granularity;
using encoding::ScaleZero;

constexpr std::int64_t kBlock = 128;  // columns whose errors are spread to all later ones at once

// The rows of one call, columns by place.
struct Rows {
  std::int64_t n = 0, cols = 0;
  std::vector<float> weights;        // (n, cols): rounded up to the sweep, compensated behind it
  std::vector<float> errors;         // (n, kBlock)
  std::vector<std::uint8_t> stored;  // (n, cols), by column
  std::vector<ScaleZero> scales;     // (n, groups)
};

class Affine final : public Quantizer {
 public:
  explicit Affine(const Job& job) : job_(job), params_(job.target->affine) {}

  void prepare(ExecContext& /*context*/, const RowSource& weights) override {
    hessian_ = make_hessian(job_);
    if (params_.granularity == Granularity::kTensor) whole_ = tensor_scale(weights);
  }

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows);
    if (!hessian_) fail(ErrorCode::kInternal, "tensor '{}': not prepared", job_.tensor);
    Rows rows = gather(weights, n_rows);
    for (std::int64_t begin = 0; begin < rows.cols; begin += kBlock) {
      const std::int64_t end = std::min(rows.cols, begin + kBlock);
      sweep(rows, begin, end);
      const std::int64_t rest = rows.cols - end;
      if (rest == 0) continue;
      linalg::gemm_subtract(n_rows, rest, end - begin, rows.errors.data(), kBlock,
                            hessian_->factor.data() + begin * rows.cols + end, rows.cols, rows.weights.data() + end,
                            rows.cols);
    }
    write(rows, row_begin, out);
  }

 private:
  std::int64_t column(std::int64_t place) const {
    return hessian_->order.empty() ? place : hessian_->order[static_cast<std::size_t>(place)];
  }

  // Weights of inputs that are never there are zero, as in the reference. With the columns in an order of their own
  // every group's scale is chosen before the sweep, from the weights as they were.
  Rows gather(const float* weights, std::int64_t n_rows) const {
    Rows rows;
    rows.n = n_rows;
    rows.cols = job_.shape.cols();
    rows.weights.resize(static_cast<std::size_t>(n_rows * rows.cols));
    rows.errors.resize(static_cast<std::size_t>(n_rows * kBlock));
    rows.stored.resize(rows.weights.size());
    rows.scales.resize(static_cast<std::size_t>(n_rows * n_groups()), whole_);
    std::vector<float> row(static_cast<std::size_t>(rows.cols));
    for (std::int64_t r = 0; r < n_rows; ++r) {
      for (std::int64_t c = 0; c < rows.cols; ++c)
        row[static_cast<std::size_t>(c)] =
            hessian_->dead[static_cast<std::size_t>(c)] ? 0.0f : weights[r * rows.cols + c];
      for (std::int64_t g = 0; g < n_groups() && !hessian_->order.empty(); ++g) choose(rows, r, g, row.data());
      for (std::int64_t place = 0; place < rows.cols; ++place)
        rows.weights[static_cast<std::size_t>(r * rows.cols + place)] = row[static_cast<std::size_t>(column(place))];
    }
    return rows;
  }

  std::int64_t n_groups() const { return encoding::groups_per_row(params_, job_.shape.cols()); }

  // row: by column.
  void choose(Rows& rows, std::int64_t r, std::int64_t group, const float* row) const {
    if (params_.granularity == Granularity::kTensor) return;
    const std::int64_t width = encoding::group_columns(params_, rows.cols), begin = group * width;
    const std::int64_t n = std::min(width, rows.cols - begin);
    rows.scales[static_cast<std::size_t>(r * n_groups() + group)] =
        choose_scale(params_, job_.options.range, row + begin, nullptr, n);
  }

  // Rounds the columns of a block one after the other; the error of each is spread to the later ones of the block.
  void sweep(Rows& rows, std::int64_t begin, std::int64_t end) const {
    const std::int64_t width = encoding::group_columns(params_, rows.cols);
    const int offset = encoding::stored_offset(params_);
    for (std::int64_t r = 0; r < rows.n; ++r) {
      float* row = rows.weights.data() + r * rows.cols;
      float* errors = rows.errors.data() + r * kBlock;
      for (std::int64_t place = begin; place < end; ++place) {
        const std::int64_t at = column(place), group = at / width;
        if (hessian_->order.empty() && at % width == 0) choose(rows, r, group, row);
        const ScaleZero& scale = rows.scales[static_cast<std::size_t>(r * n_groups() + group)];
        const int code = encoding::nearest_code(params_, row[place], scale);
        rows.stored[static_cast<std::size_t>(r * rows.cols + at)] = static_cast<std::uint8_t>(code + offset);
        const float* factor = hessian_->factor.data() + place * rows.cols;
        const float error = (row[place] - encoding::decode_code(code, scale)) / factor[place];
        errors[place - begin] = error;
        for (std::int64_t next = place + 1; next < end; ++next) row[next] -= error * factor[next];
      }
    }
  }

  void write(const Rows& rows, std::int64_t row_begin, const RowsOut& out) const {
    const std::uint64_t row_bytes = encoding::row_code_bytes(params_, rows.cols);
    const bool per_tensor = params_.granularity == Granularity::kTensor;
    if (per_tensor && row_begin == 0) encoding::store_scale_zero(params_, whole_, out.parts[1], out.parts[2], 0);
    for (std::int64_t r = 0; r < rows.n; ++r) {
      encoding::pack_codes(params_.bits, rows.stored.data() + r * rows.cols, rows.cols,
                           out.parts[0] + static_cast<std::uint64_t>(r) * row_bytes);
      for (std::int64_t g = 0; g < n_groups() && !per_tensor; ++g) {
        const std::int64_t at = r * n_groups() + g;
        encoding::store_scale_zero(params_, rows.scales[static_cast<std::size_t>(at)], out.parts[1], out.parts[2], at);
      }
    }
  }

  // Of the weights as they are: the sweep changes them only by what rounding costs.
  ScaleZero tensor_scale(const RowSource& weights) const {
    std::vector<float> row(static_cast<std::size_t>(weights.cols()));
    Range all;
    for (std::int64_t r = 0; r < weights.rows(); ++r) {
      weights.read(r, r + 1, row.data());
      require_representable(job_, row.data(), r, 1);
      const Range range = range_of(row.data(), weights.cols());
      all = {std::min(all.low, range.low), std::max(all.high, range.high)};
    }
    return encoding::scale_of_range(params_, all.low, all.high);
  }

  Job job_;
  AffineParams params_;
  std::optional<Hessian> hessian_;
  ScaleZero whole_;
};

}  // namespace

std::unique_ptr<Quantizer> make_affine(const Job& job) { return std::make_unique<Affine>(job); }

}  // namespace nibble::method::gptq
