// adaround: whether each weight goes down or up is learned (Nagel et al., arXiv 2004.10568). ŵ = s (⌊w/s⌋ + h(V)) with
// the rectified sigmoid h; V follows the gradient of the layer's error plus λ Σ (1 - |2h - 1|^β), which drives h to 0
// or 1 as β falls. With the gram of the inputs the gradient is that of all of them at once, so some hundred steps do
// what the paper's ten thousand batches do.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "linalg/gemm.h"
#include "method/affine_range.h"
#include "method/affine_rows.h"
#include "method/input.h"
#include "method/layer.h"
#include "method/target.h"

namespace nibble::method::adaround {

namespace {

using encoding::AffineParams;
using encoding::Granularity;
using encoding::ScaleZero;

constexpr int kStepsPerEffort = 100;
// The paper's 0.01 belongs to a loss in the units of its activations. Here each weight counts in its own: the error
// that one step of its code makes by itself. Found by the error of real layers at 2 to 4 bits.
constexpr float kLambda = 0.5f, kRate = 0.1f;
constexpr float kFirstBeta = 20, kLastBeta = 2, kWarmUp = 0.2f;  // share of the steps without the regulariser
constexpr float kReach = 1.2f, kBelow = -0.1f;                   // h(V) = clip(kReach σ(V) + kBelow, 0, 1)

// σ(V) by linear interpolation: exp() for each weight in each step would take longer than the products.
class Sigmoid {
 public:
  Sigmoid() {
    for (std::size_t i = 0; i < table_.size(); ++i)
      table_[i] = 1 / (1 + std::exp(kEnd - static_cast<float>(i) / kPerUnit));
  }
  float operator()(float v) const {
    const float at = (std::clamp(v, -kEnd, kEnd) + kEnd) * kPerUnit;
    const auto cell = static_cast<std::size_t>(at);
    return table_[cell] + (at - static_cast<float>(cell)) * (table_[cell + 1] - table_[cell]);
  }

 private:
  static constexpr float kEnd = 8, kPerUnit = 128;
  std::array<float, static_cast<std::size_t>(2 * kEnd * kPerUnit) + 2> table_;
};

// Slope of λ (1 - |2h - 1|^β) along h at one step, by cells of h.
class Regulariser {
 public:
  void set(float beta) {
    for (std::size_t i = 0; i < kCells; ++i) {
      const float side = 2 * (static_cast<float>(i) + 0.5f) / static_cast<float>(kCells) - 1;
      slope_[i] = -kLambda * 2 * beta * std::copysign(std::pow(std::fabs(side), beta - 1), side);
    }
  }
  float slope(float h) const {
    return slope_[std::min(static_cast<std::size_t>(h * static_cast<float>(kCells)), kCells - 1)];
  }

 private:
  static constexpr std::size_t kCells = 1024;
  std::array<float, kCells> slope_{};
};

// What is learned, and Adam's means of its gradient.
struct Learned {
  std::vector<float> v, mean, square;
  std::vector<float> floor;  // code below, before clipping
};

class AdaRound final : public Quantizer {
 public:
  explicit AdaRound(const Job& job) : job_(job), params_(job.target->affine) {
    job_.options.range = RangeRule::kMse;  // the paper's step size
  }

  void prepare(ExecContext& context, const RowSource& weights) override {
    require_gram(job_, "adaround");
    corrected_.prepare(context, job_, weights);
    const std::int64_t cols = job_.shape.cols();
    for (std::int64_t c = 0; c < cols; ++c)
      curve_.push_back(job_.statistics.gram[static_cast<std::size_t>(c * cols + c)]);
    const float mean = std::accumulate(curve_.begin(), curve_.end(), 0.0f) / static_cast<float>(cols);
    for (float& curve : curve_) curve = std::max({curve, 1e-3f * mean, 1e-30f});
    if (params_.granularity == Granularity::kTensor) whole_ = choose_whole_scale(context, job_, {}, weights);
    prepared_ = true;
  }

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows);
    if (!prepared_) fail(ErrorCode::kInternal, "tensor '{}': not prepared", job_.tensor);
    const std::int64_t cols = job_.shape.cols();
    std::vector<float> target(weights, weights + n_rows * cols);
    corrected_.correct(target.data(), row_begin, n_rows);
    AffineRows rows = nearest(target, n_rows, RangeRule::kMse);
    const AffineRows learned = learn(rows, target);
    keep_better(learned, target, rows);
    if (params_.granularity != Granularity::kTensor)
      keep_better(nearest(target, n_rows, RangeRule::kMinMax), target, rows);
    write_rows(job_, rows, row_begin, out);
  }

 private:
  AffineRows nearest(const std::vector<float>& target, std::int64_t n_rows, RangeRule rule) const {
    AffineRows rows(params_, n_rows, job_.shape.cols());
    std::fill(rows.scales.begin(), rows.scales.end(), whole_);
    for (std::int64_t r = 0; r < n_rows; ++r) {
      const float* row = target.data() + r * rows.cols;
      for (std::int64_t g = 0; g < rows.groups && params_.granularity != Granularity::kTensor; ++g) {
        const std::int64_t begin = g * rows.width;
        rows.at(r, g) = choose_scale(params_, rule, row + begin, nullptr, rows.group_end(g) - begin);
      }
      for (std::int64_t c = 0; c < rows.cols; ++c)
        rows.codes[static_cast<std::size_t>(r * rows.cols + c)] =
            static_cast<std::int16_t>(encoding::nearest_code(params_, row[c], rows.at(r, c / rows.width)));
    }
    return rows;
  }

  // Of each row the one with the smaller error: on held-out inputs where there are any.
  void keep_better(const AffineRows& other, const std::vector<float>& target, AffineRows& rows) const {
    const std::span<const float> judge =
        job_.statistics.held_out.empty() ? job_.statistics.gram : job_.statistics.held_out;
    const auto now = row_errors(rows.n, rows.cols, rows.values(), target, judge);
    const auto then = row_errors(rows.n, rows.cols, other.values(), target, judge);
    for (std::int64_t r = 0; r < rows.n; ++r) {
      if (then[static_cast<std::size_t>(r)] < now[static_cast<std::size_t>(r)]) rows.copy_row(r, other);
    }
  }

  // h(V) starts as the part of w / s above the code below.
  Learned start(const AffineRows& rows, const std::vector<float>& target) const {
    Learned out;
    out.v.resize(target.size());
    out.mean.resize(target.size());
    out.square.resize(target.size());
    out.floor.resize(target.size());
    for (std::int64_t i = 0; i < rows.n * rows.cols; ++i) {
      const auto k = static_cast<std::size_t>(i);
      const ScaleZero& at = rows.at(i / rows.cols, i % rows.cols / rows.width);
      const float steps = at.scale > 0 ? std::clamp(target[k] / at.scale, -512.0f, 512.0f) : 0.0f;
      out.floor[k] = std::floor(steps) + static_cast<float>(at.zero);
      const float part = steps - std::floor(steps);
      out.v[k] = -std::log(kReach / (part - kBelow) - 1);
    }
    return out;
  }

  float soft(float v) const { return std::clamp(kReach * sigmoid_(v) + kBelow, 0.0f, 1.0f); }

  AffineRows learn(const AffineRows& rows, const std::vector<float>& target) const {
    Learned learned = start(rows, target);
    const int steps = kStepsPerEffort * std::max(job_.options.effort, 0);
    std::vector<float> values(target.size());
    Regulariser regulariser;
    for (int step = 0; step < steps; ++step) {
      const float after = (static_cast<float>(step) / static_cast<float>(steps) - kWarmUp) / (1 - kWarmUp);
      regulariser.set(kLastBeta + (kFirstBeta - kLastBeta) * std::max(1 - after, 0.0f));
      soft_values(rows, learned, values);
      const std::vector<float> gradient = gradient_of(rows.n, rows.cols, values, target, job_.statistics.gram);
      move(rows, gradient, step, after > 0 ? &regulariser : nullptr, learned);
    }
    AffineRows out = rows;
    const encoding::CodeRange range = encoding::code_range(params_);
    for (std::size_t i = 0; i < out.codes.size(); ++i) {
      const int up = soft(learned.v[i]) >= 0.5f ? 1 : 0;
      out.codes[i] =
          static_cast<std::int16_t>(std::clamp(static_cast<int>(learned.floor[i]) + up, range.min, range.max));
    }
    return out;
  }

  void soft_values(const AffineRows& rows, const Learned& learned, std::vector<float>& values) const {
    const encoding::CodeRange range = encoding::code_range(params_);
    const auto low = static_cast<float>(range.min), high = static_cast<float>(range.max);
    for (std::int64_t r = 0; r < rows.n; ++r) {
      for (std::int64_t c = 0; c < rows.cols; ++c) {
        const auto i = static_cast<std::size_t>(r * rows.cols + c);
        const ScaleZero& at = rows.at(r, c / rows.width);
        const float code = std::clamp(learned.floor[i] + soft(learned.v[i]), low, high);
        values[i] = at.scale * (code - static_cast<float>(at.zero));
      }
    }
  }

  // One step of Adam.
  void move(const AffineRows& rows, const std::vector<float>& gradient, int step, const Regulariser* regulariser,
            Learned& learned) const {
    constexpr float kMean = 0.9f, kSquare = 0.999f, kTiny = 1e-8f;
    const float mean_unit = 1 / (1 - std::pow(kMean, static_cast<float>(step + 1)));
    const float square_unit = 1 / (1 - std::pow(kSquare, static_cast<float>(step + 1)));
    const encoding::CodeRange range = encoding::code_range(params_);
    for (std::int64_t r = 0; r < rows.n; ++r) {
      for (std::int64_t c = 0; c < rows.cols; ++c) {
        const auto i = static_cast<std::size_t>(r * rows.cols + c);
        const float scale = rows.at(r, c / rows.width).scale;
        const float s = sigmoid_(learned.v[i]), h = kReach * s + kBelow;
        const float code = learned.floor[i] + h;
        float slope = 0;
        if (scale > 0 && h > 0 && h < 1) {
          if (code > static_cast<float>(range.min) && code < static_cast<float>(range.max))
            slope = 2 * gradient[i] / (scale * curve_[static_cast<std::size_t>(c)]);
          if (regulariser != nullptr) slope += regulariser->slope(h);
          slope *= kReach * s * (1 - s);
        }
        learned.mean[i] += (1 - kMean) * (slope - learned.mean[i]);
        learned.square[i] += (1 - kSquare) * (slope * slope - learned.square[i]);
        learned.v[i] -= kRate * learned.mean[i] * mean_unit / (std::sqrt(learned.square[i] * square_unit) + kTiny);
      }
    }
  }

  Job job_;
  AffineParams params_;
  Target corrected_;
  std::vector<float> curve_;  // (cols): the diagonal of the gram, but not next to nothing
  ScaleZero whole_;
  bool prepared_ = false;
  Sigmoid sigmoid_;
};

bool supports(const encoding::EncodingInfo& target) { return target.family == encoding::Family::kAffine; }

std::unique_ptr<Quantizer> make(const Job& job) {
  if (!supports(*job.target) || !encoding::fits(*job.target, job.shape)) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': method 'adaround' cannot make {} of shape {}", job.tensor,
         job.target->name, job.shape.to_string());
  }
  return std::make_unique<AdaRound>(job);
}

}  // namespace

const Method& entry() {
  static const Method method = {
      .name = "adaround",
      .summary = "rounding down or up learned from the layer's error, on the affine family",
      .source = "Nagel et al., arXiv 2004.10568",
      .statistics = "x xᵀ of the inputs (--calib)",
      .cost = "runs over the text; some 30 µs of a core per weight",
      .supports = supports,
      .make = make,
      .needs_gram = true,
  };
  return method;
}

}  // namespace nibble::method::adaround
