#include "calib/input_moments.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "linalg/gram.h"

namespace nibble::calib {

namespace {

AlignedBuffer zeros(std::int64_t n_floats) {
  AlignedBuffer buffer(static_cast<std::size_t>(n_floats) * sizeof(float));
  if (n_floats > 0) std::memset(buffer.data(), 0, buffer.size());
  return buffer;
}

}  // namespace

InputMoments::InputMoments(std::int64_t n_matrices, std::int64_t cols, const Wanted& wanted)
    : cols_(cols), wanted_(wanted), counts_(static_cast<std::size_t>(n_matrices)) {
  if (wanted.gram) gram_ = zeros(n_matrices * cols * cols);
  if (wanted.cross) cross_ = zeros(n_matrices * cols * cols);
  if (!wanted.ranges) return;
  const auto n = static_cast<std::size_t>(n_matrices * cols);
  sum_square_.resize(n);
  sum_abs_.resize(n);
  max_abs_.resize(n);
}

std::span<const float> InputMoments::square(const AlignedBuffer& all, std::int64_t matrix) const {
  const auto n = static_cast<std::size_t>(cols_ * cols_);
  return all.size() == 0 ? std::span<const float>()
                         : std::span(all.as<float>() + static_cast<std::size_t>(matrix) * n, n);
}

std::span<const float> InputMoments::line(const std::vector<float>& all, std::int64_t matrix) const {
  const auto n = static_cast<std::size_t>(cols_);
  return all.empty() ? std::span<const float>() : std::span(all).subspan(static_cast<std::size_t>(matrix) * n, n);
}

void InputMoments::add(ExecContext& context, const float* x, std::span<const std::int64_t> begins,
                       const float* original) {
  for (std::int64_t m = 0; m < n_matrices(); ++m) {
    const std::int64_t begin = begins[static_cast<std::size_t>(m)], end = begins[static_cast<std::size_t>(m) + 1];
    if (begin == end) continue;
    counts_[static_cast<std::size_t>(m)] += end - begin;
    const std::int64_t at = m * cols_ * cols_;
    const float* rows = x + begin * cols_;
    if (wanted_.gram) linalg::add_gram(context, end - begin, cols_, rows, gram_.as<float>() + at);
    if (wanted_.cross)
      linalg::add_cross(context, end - begin, cols_, cols_, original + begin * cols_, rows, cross_.as<float>() + at);
    if (wanted_.ranges) add_ranges(context, x, begin, end, m);
  }
}

void InputMoments::add_ranges(ExecContext& context, const float* x, std::int64_t begin, std::int64_t end,
                              std::int64_t matrix) {
  double* squares = sum_square_.data() + matrix * cols_;
  double* magnitudes = sum_abs_.data() + matrix * cols_;
  float* largest = max_abs_.data() + matrix * cols_;
  context.pool.parallel_for(cols_, 16, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* row = x + t * cols_;
      for (std::int64_t c = from; c < to; ++c) {
        const float magnitude = std::fabs(row[c]);
        squares[c] += static_cast<double>(magnitude) * static_cast<double>(magnitude);
        magnitudes[c] += static_cast<double>(magnitude);
        largest[c] = std::max(largest[c], magnitude);
      }
    }
  });
}

void InputMoments::finish(ExecContext& context) {
  for (std::int64_t m = 0; m < n_matrices(); ++m) {
    const double share = 1.0 / static_cast<double>(std::max<std::int64_t>(1, count(m)));
    for (AlignedBuffer* all : {&gram_, &cross_}) {
      if (all->size() == 0) continue;
      float* values = all->as<float>() + m * cols_ * cols_;
      if (all == &gram_) linalg::fill_upper(context, cols_, values);
      std::int64_t bad = 0;
      context.pool.parallel_for(cols_, 1, [&](std::int64_t begin, std::int64_t end) {
        bool finite = true;
        for (std::int64_t i = begin * cols_; i < end * cols_; ++i) {
          values[i] *= static_cast<float>(share);
          finite = finite && std::isfinite(values[i]);
        }
        if (!finite) __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
      });
      if (bad != 0)
        fail(ErrorCode::kFormat, "the inputs are NaN, infinite or too large to square; are the model's weights?");
    }
  }
  mean_square_.resize(sum_square_.size());
  mean_abs_.resize(sum_abs_.size());
  for (std::size_t i = 0; i < sum_square_.size(); ++i) {
    const auto n = static_cast<double>(std::max<std::int64_t>(1, counts_[i / static_cast<std::size_t>(cols_)]));
    mean_square_[i] = static_cast<float>(sum_square_[i] / n);
    mean_abs_[i] = static_cast<float>(sum_abs_[i] / n);
    if (!std::isfinite(mean_square_[i]) || !std::isfinite(mean_abs_[i]))
      fail(ErrorCode::kFormat, "the inputs are NaN or infinite; are the model's weights?");
  }
}

InputMoments InputMoments::of_means(std::int64_t cols, std::vector<std::int64_t> counts, Means means) {
  InputMoments moments;
  moments.cols_ = cols;
  moments.wanted_ = {means.gram.size() > 0, false, !means.mean_square.empty()};
  moments.counts_ = std::move(counts);
  moments.gram_ = std::move(means.gram);
  moments.mean_square_ = std::move(means.mean_square);
  moments.mean_abs_ = std::move(means.mean_abs);
  moments.max_abs_ = std::move(means.max_abs);
  return moments;
}

void InputMoments::merge(ExecContext& context, const InputMoments& other) {
  for (std::int64_t m = 0; m < n_matrices(); ++m) {
    const auto sum = static_cast<double>(count(m) + other.count(m));
    const double own = sum > 0 ? static_cast<double>(count(m)) / sum : 0, theirs = sum > 0 ? 1 - own : 0;
    const auto average = [&](std::span<const float> with, float* values) {
      for (std::size_t i = 0; i < with.size(); ++i)
        values[i] = static_cast<float>(own * static_cast<double>(values[i]) + theirs * static_cast<double>(with[i]));
    };
    const auto line_of = [&](std::vector<float>& all) { return all.data() + m * cols_; };
    if (gram_.size() > 0) {
      const std::span<const float> with = other.gram(m);
      context.pool.parallel_for(cols_, 1, [&](std::int64_t begin, std::int64_t end) {
        const auto first = static_cast<std::size_t>(begin * cols_), n = static_cast<std::size_t>((end - begin) * cols_);
        average(with.subspan(first, n), gram_.as<float>() + m * cols_ * cols_ + first);
      });
    }
    if (!mean_square_.empty()) average(other.mean_square(m), line_of(mean_square_));
    if (!mean_abs_.empty()) average(other.mean_abs(m), line_of(mean_abs_));
    if (!max_abs_.empty()) {
      float* largest = line_of(max_abs_);
      const std::span<const float> with = other.max_abs(m);
      for (std::size_t i = 0; i < with.size(); ++i) largest[i] = std::max(largest[i], with[i]);
    }
    counts_[static_cast<std::size_t>(m)] += other.count(m);
  }
}

}  // namespace nibble::calib
