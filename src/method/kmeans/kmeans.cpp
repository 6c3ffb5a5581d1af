// kmeans: the centroids of each tensor, row or group, found exactly and weighted by the importance of the inputs.
#include "method/kmeans/kmeans.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "encoding/affine.h"
#include "encoding/codebook.h"
#include "method/input.h"
#include "method/kmeans/solver.h"
#include "tensor/half.h"

namespace nibble::method::kmeans {

namespace {

using encoding::CodebookParams;
using encoding::Granularity;

constexpr float kLargest = 65504.0f;  // of f16

// The weights of a whole tensor by value, rounded to 11 bits behind the leading one: those of a 16-bit model are there
// exactly, of others nearer than an f16 centroid. Importance is summed in whole numbers, so that threads do not matter.
class Histogram {
 public:
  Histogram() : sums_(kBins) {}
  void add(float value, double weight) {
    sums_[bin_of(value)].fetch_add(static_cast<std::uint64_t>(std::llround(weight * kUnit)), std::memory_order_relaxed);
  }
  std::vector<Point> points() const {
    std::vector<Point> all;
    for (std::uint32_t bin = 0; bin < kBins; ++bin) {
      const std::uint64_t sum = sums_[bin].load(std::memory_order_relaxed);
      if (sum > 0) all.push_back({value_of(bin), static_cast<double>(sum) / kUnit});
    }
    return all;
  }

 private:
  static constexpr int kDropped = 12;  // bits of an f32
  static constexpr std::uint32_t kBins = 1u << (32 - kDropped);
  static constexpr double kUnit = 1 << 20;  // the importance of a row adds up to its columns: no sum overflows

  // Ascending with the value: negative numbers by their complement, positive ones above them.
  static std::uint32_t bin_of(float value) {
    std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    bits = (bits + (1u << (kDropped - 1))) >> kDropped;  // cannot overflow below infinity
    constexpr std::uint32_t kSign = kBins >> 1;
    return (bits & kSign) != 0 ? kBins - 1 - bits : bits + kSign;
  }
  static float value_of(std::uint32_t bin) {
    constexpr std::uint32_t kSign = kBins >> 1;
    const std::uint32_t bits = bin < kSign ? kBins - 1 - bin : bin - kSign;
    return std::bit_cast<float>(bits << kDropped) + 0.0f;  // no negative zero
  }
  std::vector<std::atomic<std::uint64_t>> sums_;
};

class Kmeans final : public Quantizer {
 public:
  explicit Kmeans(const Job& job)
      : job_(job), params_(job.target->codebook), importance_(prepare_importance(job)), cols_(job.shape.cols()) {}

  void prepare(ExecContext& context, const RowSource& weights) override {
    if (params_.granularity != Granularity::kTensor) return;
    const std::int64_t rows = weights.rows();
    Histogram histogram;
    if (rows > 0 && cols_ > 0) {
      context.pool.parallel_dynamic((rows - 1) / kChunkRows + 1, [&](std::int64_t chunk) {
        context.check_cancelled();
        std::vector<float> row(static_cast<std::size_t>(cols_));
        for (std::int64_t r = chunk * kChunkRows, end = std::min(rows, r + kChunkRows); r < end; ++r) {
          weights.read(r, r + 1, row.data());
          require_representable(job_, row.data(), r, 1, kLargest);
          const float* importance = importance_of(r);
          for (std::int64_t c = 0; c < cols_; ++c)
            histogram.add(row[static_cast<std::size_t>(c)],
                          importance != nullptr ? static_cast<double>(importance[c]) : 1.0);
        }
      });
    }
    std::vector<Point> points = histogram.points();
    sort_points(points);  // the two zeros
    whole_ = best_codebook(points, params_.bits);
    prepared_ = true;
  }

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows, kLargest);
    const bool per_tensor = params_.granularity == Granularity::kTensor;
    if (per_tensor && !prepared_) fail(ErrorCode::kInternal, "tensor '{}': not prepared", job_.tensor);
    if (per_tensor && row_begin == 0) store_centroids(whole_, out.parts[1]);
    const std::int64_t width = encoding::centroid_columns(params_, cols_);
    const std::int64_t tables = encoding::tables_per_row(params_, cols_);
    const std::uint64_t row_bytes = encoding::codebook_row_bytes(params_, cols_);
    const int n = encoding::centroid_count(params_);
    const std::int64_t together = encoding::rows_per_table(params_, cols_);
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(cols_));
    std::vector<Codebook> own(static_cast<std::size_t>(tables));
    std::vector<Point> points;
    for (std::int64_t r = 0; r < n_rows; ++r) {
      for (std::int64_t t = 0; t < tables && !per_tensor && r % together == 0; ++t) {
        const std::int64_t begin = t * width, end = std::min(cols_, begin + width);
        gather(weights, row_begin, r, std::min(n_rows, r + together), begin, end, points);
        own[static_cast<std::size_t>(t)] = best_codebook(points, params_.bits);
        store_centroids(own[static_cast<std::size_t>(t)], out.parts[1] + (r / together * tables + t) * n * 2);
      }
      for (std::int64_t c = 0; c < cols_; ++c) {
        const Codebook& book = per_tensor ? whole_ : own[static_cast<std::size_t>(c / width)];
        codes[static_cast<std::size_t>(c)] =
            static_cast<std::uint8_t>(nearest_centroid(book.centroids, n, weights[r * cols_ + c]));
      }
      encoding::pack_codes(params_.bits, codes.data(), cols_, out.parts[0] + static_cast<std::uint64_t>(r) * row_bytes);
    }
  }

 private:
  // The weights that share a table: of rows [row, row_end) of `weights`, which begin at row `first` of the tensor.
  void gather(const float* weights, std::int64_t first, std::int64_t row, std::int64_t row_end, std::int64_t begin,
              std::int64_t end, std::vector<Point>& points) const {
    points.clear();
    for (; row < row_end; ++row) {
      const float* importance = importance_of(first + row);
      for (std::int64_t c = begin; c < end; ++c) {
        points.push_back(
            {weights[row * cols_ + c] + 0.0f, importance != nullptr ? static_cast<double>(importance[c]) : 1.0});
      }
    }
    sort_points(points);
  }

  void store_centroids(const Codebook& book, std::byte* dst) const {
    convert_f32_to_f16(book.centroids.data(), dst, encoding::centroid_count(params_));
  }

  const float* importance_of(std::int64_t row) const {
    if (importance_.empty()) return nullptr;
    const std::int64_t rows_per_expert = job_.shape.rows() * cols_ / static_cast<std::int64_t>(importance_.size());
    return importance_.data() + row / rows_per_expert * cols_;
  }

  static constexpr std::int64_t kChunkRows = 64;
  Job job_;
  CodebookParams params_;
  std::vector<float> importance_;
  std::int64_t cols_;
  Codebook whole_;
  bool prepared_ = false;
};

bool supports(const encoding::EncodingInfo& target) {
  return target.family == encoding::Family::kCodebook && !encoding::has_blocks(target.codebook);
}

std::unique_ptr<Quantizer> make(const Job& job) {
  if (!supports(*job.target)) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': method 'kmeans' makes codebooks (kmeans4-channel), not {}",
         job.tensor, job.target->name);
  }
  return make_kmeans(job);
}

}  // namespace

std::unique_ptr<Quantizer> make_kmeans(const Job& job) { return std::make_unique<Kmeans>(job); }

const Method& entry() {
  static const Method method = {
      .name = "kmeans",
      .summary = "codebooks of centroids per tensor, row or group, exact, weighted by the importance of the inputs",
      .source = "k-means in one dimension by dynamic programming (Wang and Song 2011)",
      .statistics = "mean x² of the inputs, if given (--calib)",
      .cost = "0.35 µs of a core per weight",
      .supports = supports,
      .make = make,
  };
  return method;
}

}  // namespace nibble::method::kmeans
