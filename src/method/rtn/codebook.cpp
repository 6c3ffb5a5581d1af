// nf4 and fp4: the largest magnitude of each block, then the level by the rounding rule; nearest gives the bytes of
// bitsandbytes. Searched scales are fractions of that magnitude.
#include "encoding/codebook.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "method/affine_range.h"
#include "method/input.h"
#include "method/kmeans/kmeans.h"
#include "method/rtn/quantizers.h"
#include "method/rtn/round.h"

namespace nibble::method::rtn {

namespace {

using encoding::CodebookParams;
using encoding::kSuperBlock;

constexpr float kLeastScale = 1e-38f;  // that is divided by

// A block of the flattened tensor: its weights, the first of them the element `begin`, and whether it is a full one.
struct Block {
  const float* weights;
  std::int64_t begin;
  std::int64_t count;
  bool full;
};

class Blocks final : public Quantizer {
 public:
  explicit Blocks(const Job& job)
      : job_(job), params_(job.target->codebook), importance_(prepare_importance(job)), cols_(job.shape.cols()) {
    std::vector<float> levels(encoding::levels_of(params_.kind).begin(), encoding::levels_of(params_.kind).end());
    std::ranges::sort(levels);
    std::ranges::copy(levels, ascending_);
  }

  // Double quantization takes the mean of all scales off first.
  void prepare(ExecContext& context, const RowSource& weights) override {
    if (!params_.double_quant) return;
    find_scales(context, weights);
    const std::size_t n = scales_.size();
    double sum = 0;
    for (const float scale : scales_) sum += static_cast<double>(scale);
    offset_ = n > 0 ? static_cast<float>(sum / static_cast<double>(n)) : 0.0f;
    scale_codes_.resize(n);
    for (std::size_t begin = 0; begin < n; begin += kSuperBlock) {
      const std::size_t end = std::min(n, begin + kSuperBlock);
      float largest = 0;
      for (std::size_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(scales_[i] - offset_));
      supers_.push_back(largest);
      for (std::size_t i = begin; i < end; ++i) {
        const float part = largest > 0 ? (scales_[i] - offset_) / largest : 0.0f;
        scale_codes_[i] = static_cast<std::byte>(encoding::nearest_dynamic(part));
      }
    }
  }

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows);
    if (params_.double_quant && cols_ > 0 && scales_.empty() && n_rows > 0)
      fail(ErrorCode::kInternal, "tensor '{}': not prepared", job_.tensor);
    const std::int64_t begin = row_begin * cols_, n = n_rows * cols_;
    if (begin % params_.block != 0)
      fail(ErrorCode::kInternal, "tensor '{}': row {} is no step", job_.tensor, row_begin);
    if (n > 0) std::memset(out.parts[0], 0, static_cast<std::size_t>(encoding::block_count(n, 2)));
    for (std::int64_t at = 0; at < n; at += params_.block) {
      const std::int64_t count = std::min(params_.block, n - at);
      const Block block = {weights + at, begin + at, count, count == params_.block};
      const float scale =
          params_.double_quant ? scales_[static_cast<std::size_t>(block.begin / params_.block)] : scale_of(block);
      if (!params_.double_quant) std::memcpy(out.parts[1] + at / params_.block * 4, &scale, 4);
      store_codes(block, scale, out.parts[0] + at / 2);
    }
    // Half of a last byte is the code of 0.
    if (n % 2 != 0) out.parts[0][n / 2] |= static_cast<std::byte>(encoding::nearest_level(params_.kind, 0));
    if (params_.double_quant) store_scales(begin / params_.block, encoding::block_count(n, params_.block), out);
  }

 private:
  void find_scales(ExecContext& context, const RowSource& weights) {
    const std::int64_t step = encoding::row_step(*job_.target, job_.shape), rows = job_.shape.rows();
    const std::int64_t chunk_rows = std::max(step, kChunkWeights / std::max<std::int64_t>(cols_, 1) / step * step);
    scales_.resize(static_cast<std::size_t>(encoding::block_count(rows * cols_, params_.block)));
    if (scales_.empty()) return;
    context.pool.parallel_dynamic((rows - 1) / chunk_rows + 1, [&](std::int64_t chunk) {
      context.check_cancelled();
      const std::int64_t begin = chunk * chunk_rows, end = std::min(rows, begin + chunk_rows);
      std::vector<float> values(static_cast<std::size_t>((end - begin) * cols_));
      weights.read(begin, end, values.data());
      require_representable(job_, values.data(), begin, end - begin);
      const auto n = static_cast<std::int64_t>(values.size());
      for (std::int64_t at = 0; at < n; at += params_.block) {
        const std::int64_t count = std::min(params_.block, n - at), element = begin * cols_ + at;
        scales_[static_cast<std::size_t>(element / params_.block)] =
            scale_of({values.data() + at, element, count, count == params_.block});
      }
    });
  }

  float scale_of(const Block& block) const {
    float largest = 0;
    for (std::int64_t i = 0; i < block.count; ++i) largest = std::max(largest, std::fabs(block.weights[i]));
    // The package holds the scale of a last, shorter block above zero.
    const float scale = block.full ? largest : std::max(largest, kLeastScale);
    if (job_.options.range == RangeRule::kMinMax || largest == 0) return scale;
    float best = scale;
    double least = error_at(block, scale);
    for (int i = 1; i < kShrinks / 2; ++i) {
      const float candidate = shrink(i) * scale;
      const double error = error_at(block, candidate);
      if (error < least) {
        least = error;
        best = candidate;
      }
    }
    return best;
  }

  // Sum of importance * error^2 of nearest levels.
  double error_at(const Block& block, float scale) const {
    double sum = 0;
    for (std::int64_t i = 0; i < block.count; ++i) {
      const int code = encoding::nearest_level(params_.kind, normed(block, scale, i));
      const float level = encoding::levels_of(params_.kind)[static_cast<std::size_t>(code)];
      const auto error = static_cast<double>(block.weights[i] - level * scale);
      sum += importance_of(block.begin + i) * error * error;
    }
    return sum;
  }

  double importance_of(std::int64_t element) const {
    if (importance_.empty()) return 1;
    const auto n = static_cast<std::int64_t>(importance_.size());
    const std::int64_t rows_per_expert = job_.shape.rows() * cols_ / n;
    return static_cast<double>(
        importance_[static_cast<std::size_t>(element / cols_ / rows_per_expert * cols_ + element % cols_)]);
  }

  // The package multiplies by the inverse, and divides in a last, shorter block.
  static float normed(const Block& block, float scale, std::int64_t i) {
    const float held = std::max(scale, kLeastScale);
    const float level = block.full ? block.weights[i] * (1.0f / held) : block.weights[i] / held;
    return std::clamp(level, -1.0f, 1.0f);
  }

  void store_codes(const Block& block, float scale, std::byte* dst) const {
    for (std::int64_t i = 0; i < block.count; ++i) {
      const int code = code_of(normed(block, scale, i), block.begin + i);
      dst[i / 2] |= static_cast<std::byte>(code << (i % 2 == 0 ? 4 : 0));
    }
  }

  int code_of(float value, std::int64_t element) const {
    if (job_.options.rounding == Rounding::kNearest) return encoding::nearest_level(params_.kind, value);
    const auto* above = std::upper_bound(ascending_ + 1, ascending_ + 15, value);
    const float low = above[-1], high = *above;
    const float part = std::clamp((value - low) / (high - low), 0.0f, 1.0f);
    const bool up = round_by(job_.options, part, element / cols_, element % cols_) > 0;
    return encoding::nearest_level(params_.kind, up ? high : low);
  }

  void store_scales(std::int64_t first, std::int64_t count, const RowsOut& out) const {
    std::memcpy(out.parts[1], scale_codes_.data() + first, static_cast<std::size_t>(count));
    if (first > 0) return;
    std::memcpy(out.parts[2], supers_.data(), supers_.size() * sizeof(float));
    std::memcpy(out.parts[3], &offset_, sizeof offset_);
  }

  static constexpr std::int64_t kChunkWeights = 1 << 18;
  Job job_;
  CodebookParams params_;
  std::vector<float> importance_;
  std::int64_t cols_;
  float ascending_[16] = {};
  // With double quantization, of the whole tensor: scales by block, and what they become.
  std::vector<float> scales_, supers_;
  std::vector<std::byte> scale_codes_;
  float offset_ = 0;
};

}  // namespace

std::unique_ptr<Quantizer> make_codebook(const Job& job) {
  if (encoding::has_blocks(job.target->codebook)) return std::make_unique<Blocks>(job);
  Job unweighted = job;
  unweighted.statistics = {};
  return kmeans::make_kmeans(unweighted);
}

}  // namespace nibble::method::rtn
