#include "eval/input_outliers.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "eval/statistics.h"

namespace nibble::eval {

namespace {

// Share of tokens that an outlier feature is large in (Dettmers et al., arXiv 2208.07339, section 4).
constexpr double kFeatureShare = 0.06;

struct Token {
  Moments moments;
  double sum_abs = 0;
  float least = 0, largest = 0;
  std::int64_t not_finite = 0;

  Token() = default;
  explicit Token(std::span<const float> x) : moments(x), least(x[0]), largest(x[0]) {
    for (const float value : x) {
      sum_abs += std::fabs(static_cast<double>(value));
      least = std::min(least, value);
      largest = std::max(largest, value);
    }
    if (!std::isfinite(sum_abs))
      not_finite = std::ranges::count_if(x, [](float value) { return !std::isfinite(value); });
  }
  float max_abs() const { return std::max(-least, largest); }
};

}  // namespace

Moments::Moments(std::span<const float> values) : count_(static_cast<std::int64_t>(values.size())) {
  for (const float value : values) mean_ += static_cast<double>(value);
  if (count_ > 0) mean_ /= static_cast<double>(count_);
  for (const float value : values) {
    const double distance = static_cast<double>(value) - mean_, square = distance * distance;
    squares_ += square;
    cubes_ += square * distance;
    fourths_ += square * square;
  }
}

// Pébay, Sandia report SAND2008-6212: pairwise updates of the sums up to the fourth power.
void Moments::merge(const Moments& other) {
  if (other.count_ == 0) return;
  const auto a = static_cast<double>(count_), b = static_cast<double>(other.count_), n = a + b;
  const double d = other.mean_ - mean_, step = d / n;
  fourths_ += other.fourths_ + d * step * step * step * a * b * (a * a - a * b + b * b) +
              6 * step * step * (a * a * other.squares_ + b * b * squares_) +
              4 * step * (a * other.cubes_ - b * cubes_);
  cubes_ += other.cubes_ + d * step * step * a * b * (a - b) + 3 * step * (a * other.squares_ - b * squares_);
  squares_ += other.squares_ + d * step * a * b;
  mean_ += step * b;
  count_ += other.count_;
}

double Moments::rms() const { return std::sqrt(variance() + mean_ * mean_); }

double Moments::kurtosis() const {
  if (!(squares_ > 0)) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(count_) * fourths_ / (squares_ * squares_);
}

InputOutliers::InputOutliers(std::int64_t n_matrices, std::int64_t cols, float threshold)
    : cols_(cols),
      threshold_(threshold),
      tokens_(static_cast<std::size_t>(n_matrices)),
      column_max_(static_cast<std::size_t>(n_matrices * cols)),
      exceeding_(column_max_.size()),
      least_(std::numeric_limits<float>::max()),
      largest_(std::numeric_limits<float>::lowest()) {}

void InputOutliers::add(ExecContext& context, const float* x, std::span<const std::int64_t> begins) {
  add_tokens(context, x, begins.back());
  for (std::size_t m = 0; m < tokens_.size(); ++m) {
    add_columns(context, x, begins[m], begins[m + 1], static_cast<std::int64_t>(m));
    tokens_[m] += begins[m + 1] - begins[m];
  }
}

// Sums over a token are made by one thread, those over tokens in their order.
void InputOutliers::add_tokens(ExecContext& context, const float* x, std::int64_t n) {
  std::vector<Token> tokens(static_cast<std::size_t>(n));
  context.pool.parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t)
      tokens[static_cast<std::size_t>(t)] = Token({x + t * cols_, static_cast<std::size_t>(cols_)});
  });
  for (const Token& token : tokens) {
    not_finite_ += token.not_finite;
    moments_.merge(token.moments);
    sum_abs_ += token.sum_abs;
    const double rms = token.moments.rms();
    if (rms > 0) sum_peaks_ += static_cast<double>(token.max_abs()) / rms;
    least_ = std::min(least_, token.least);
    largest_ = std::max(largest_, token.largest);
    if (token.max_abs() >= threshold_) ++affected_;
  }
}

void InputOutliers::add_columns(ExecContext& context, const float* x, std::int64_t begin, std::int64_t end,
                                std::int64_t matrix) {
  float* largest = column_max_.data() + matrix * cols_;
  std::int64_t* exceeding = exceeding_.data() + matrix * cols_;
  context.pool.parallel_for(cols_, 16, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* row = x + t * cols_;
      for (std::int64_t c = from; c < to; ++c) {
        const float magnitude = std::fabs(row[c]);
        largest[c] = std::max(largest[c], magnitude);
        exceeding[c] += magnitude >= threshold_ ? 1 : 0;
      }
    }
  });
}

bool InputOutliers::is_feature(std::size_t column) const {
  const auto tokens = static_cast<double>(tokens_[column / static_cast<std::size_t>(cols_)]);
  return exceeding_[column] > 0 && static_cast<double>(exceeding_[column]) >= kFeatureShare * tokens;
}

std::vector<std::int64_t> InputOutliers::features() const {
  std::vector<std::int64_t> out;
  for (std::size_t column = 0; column < exceeding_.size(); ++column) {
    if (is_feature(column)) out.push_back(static_cast<std::int64_t>(column));
  }
  return out;
}

OutlierFigures InputOutliers::figures() const {
  if (not_finite_ > 0) {
    fail(ErrorCode::kFormat, "{} of {} inputs are NaN or infinite; are the model's weights?", not_finite_,
         moments_.count());
  }
  OutlierFigures out;
  out.columns = static_cast<std::int64_t>(column_max_.size());
  for (const std::int64_t tokens : tokens_) out.tokens += tokens;
  if (out.tokens == 0) return out;
  const auto n = static_cast<double>(out.tokens);
  out.least = static_cast<double>(least_);
  out.largest = static_cast<double>(largest_);
  out.mean_abs = sum_abs_ / static_cast<double>(moments_.count());
  out.rms = moments_.rms();
  out.max_abs = std::max(-out.least, out.largest);
  out.peak = out.max_abs / out.rms;
  out.token_peak = sum_peaks_ / n;
  out.kurtosis = moments_.kurtosis();
  std::vector<double> seen;
  for (std::size_t column = 0; column < column_max_.size(); ++column) {
    if (tokens_[column / static_cast<std::size_t>(cols_)] > 0) seen.push_back(static_cast<double>(column_max_[column]));
  }
  std::ranges::sort(seen);
  out.channel_peak = seen.back() / quantile(seen, 0.5);
  out.features = static_cast<std::int64_t>(features().size());
  out.ever = std::ranges::count_if(exceeding_, [](std::int64_t tokens) { return tokens > 0; });
  out.affected_tokens = static_cast<double>(affected_) / n;
  return out;
}

}  // namespace nibble::eval
