#include "method/kept_columns.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "encoding/affine.h"
#include "method/quantize_tensor.h"
#include "tensor/half.h"

namespace nibble::method {

namespace {

constexpr std::int64_t kRowsPerTask = 64;

class WithoutColumns final : public RowSource {
 public:
  WithoutColumns(const RowSource& weights, std::span<const std::int32_t> columns)
      : weights_(weights), columns_(columns) {}
  std::int64_t rows() const override { return weights_.rows(); }
  std::int64_t cols() const override { return weights_.cols(); }
  void read(std::int64_t row_begin, std::int64_t row_end, float* out) const override {
    weights_.read(row_begin, row_end, out);
    for (std::int64_t row = row_begin; row < row_end; ++row, out += cols()) {
      for (const std::int32_t c : columns_) out[c] = 0;
    }
  }

 private:
  const RowSource& weights_;
  std::span<const std::int32_t> columns_;
};

// Statistics in which some inputs are zeros.
class StatisticsWithout {
 public:
  StatisticsWithout(const Statistics& all, std::int64_t cols, std::span<const std::int32_t> columns) {
    static constexpr std::span<const float> Statistics::*kParts[] = {&Statistics::importance, &Statistics::gram,
                                                                     &Statistics::held_out, &Statistics::cross,
                                                                     &Statistics::held_out_cross};
    for (std::size_t i = 0; i < std::size(kParts); ++i) {
      std::vector<float>& own = own_[i];
      own.assign((all.*kParts[i]).begin(), (all.*kParts[i]).end());
      const std::int64_t rows = std::ssize(own) / cols;
      for (const std::int32_t c : columns) {
        for (std::int64_t row = 0; row < rows; ++row) own[static_cast<std::size_t>(row * cols + c)] = 0;
        if (rows == cols) std::fill_n(own.begin() + c * cols, cols, 0.0f);
      }
      statistics_.*kParts[i] = own;
    }
  }
  const Statistics& get() const { return statistics_; }

 private:
  std::vector<float> own_[5];
  Statistics statistics_;
};

}  // namespace

std::vector<std::int32_t> largest_columns(std::span<const float> inputs, std::int64_t cols, std::int64_t count) {
  std::vector<float> largest(static_cast<std::size_t>(cols));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    float& of = largest[i % largest.size()];
    of = std::max(of, std::fabs(inputs[i]));
  }
  std::vector<std::int32_t> columns(largest.size());
  std::iota(columns.begin(), columns.end(), 0);
  std::ranges::stable_sort(columns, std::greater<>(),
                           [&](std::int32_t c) { return largest[static_cast<std::size_t>(c)]; });
  columns.resize(static_cast<std::size_t>(count));
  std::ranges::sort(columns);
  return columns;
}

void quantize_keeping(ExecContext& context, const Method& method, const Job& job, const RowSource& weights,
                      std::span<const std::int32_t> columns, Tensor& out) {
  const std::int64_t rows = weights.rows(), cols = weights.cols(), kept = std::ssize(columns);
  const StatisticsWithout statistics(job.statistics, cols, columns);
  Job others = job;
  others.target = &encoding::without_kept(*job.target);
  others.statistics = statistics.get();
  Tensor tensor = encoding::allocate(*others.target, job.shape);
  quantize_into(context, method, others, WithoutColumns(weights, columns), 0, tensor);
  for (int i = 0; i < tensor.view().n_parts; ++i) {
    const Part& part = tensor.view().parts[static_cast<std::size_t>(i)];
    std::ranges::copy(part.bytes, out.mutable_part(part.role).begin());
  }
  std::memcpy(out.mutable_part(PartRole::kOutlierColumns).data(), columns.data(), columns.size_bytes());
  std::byte* values = out.mutable_part(PartRole::kOutliers).data();
  context.pool.parallel_dynamic((rows + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t task) {
    const std::int64_t begin = task * kRowsPerTask, end = std::min(rows, begin + kRowsPerTask);
    std::vector<float> whole(static_cast<std::size_t>((end - begin) * cols)), row(columns.size());
    weights.read(begin, end, whole.data());
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::size_t i = 0; i < columns.size(); ++i)
        row[i] = whole[static_cast<std::size_t>((r - begin) * cols + columns[i])];
      convert_f32_to_f16(row.data(), values + r * kept * 2, kept);
    }
  });
}

}  // namespace nibble::method
