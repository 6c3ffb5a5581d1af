#include "linalg/hadamard.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "linalg/gemm.h"

namespace nibble::linalg {

namespace {

constexpr std::int64_t kMostPaley = 1024;  // a larger base costs more than it gives
constexpr std::int64_t kTile = 2048;       // columns of a product with the base

bool is_prime(std::int64_t n) {
  if (n < 2) return false;
  for (std::int64_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

// Of each number modulo p: 0 of 0, +1 of a square, else -1.
std::vector<int> quadratic_character(std::int64_t p) {
  std::vector<int> character(static_cast<std::size_t>(p), -1);
  for (std::int64_t i = 0; i < p; ++i) character[static_cast<std::size_t>(i * i % p)] = 1;
  character[0] = 0;
  return character;
}

// The conference matrix C (p + 1, p + 1): a border of ones around the Jacobsthal matrix Q[i][j] = character(i - j),
// zeros on the diagonal, the border's column of sign `column`. C Cᵀ = p I.
std::vector<int> conference(std::int64_t p, int column) {
  const std::vector<int> character = quadratic_character(p);
  const std::int64_t n = p + 1;
  std::vector<int> c(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 1; i < n; ++i) {
    c[static_cast<std::size_t>(i)] = 1;
    c[static_cast<std::size_t>(i * n)] = column;
    for (std::int64_t j = 1; j < n; ++j)
      c[static_cast<std::size_t>(i * n + j)] = character[static_cast<std::size_t>((i - j + p) % p)];
  }
  return c;
}

void make_first_column_positive(std::int64_t n, std::vector<float>& h) {
  for (std::int64_t row = 0; row < n; ++row) {
    float* values = h.data() + row * n;
    if (values[0] > 0) continue;
    for (std::int64_t col = 0; col < n; ++col) values[col] = -values[col];
  }
}

// The steps between numbers less than 8 apart, of 8 numbers.
void mix_eight(float* x) {
  float y[8];
  for (int i = 0; i < 4; ++i) {
    y[2 * i] = x[2 * i] + x[2 * i + 1];
    y[2 * i + 1] = x[2 * i] - x[2 * i + 1];
  }
  for (int i = 0; i < 8; i += 4) {
    const float a = y[i] + y[i + 2], b = y[i + 1] + y[i + 3], c = y[i] - y[i + 2], d = y[i + 1] - y[i + 3];
    y[i] = a, y[i + 1] = b, y[i + 2] = c, y[i + 3] = d;
  }
  for (int i = 0; i < 4; ++i) {
    x[i] = y[i] + y[i + 4];
    x[i + 4] = y[i] - y[i + 4];
  }
}

// x (n, width), n a power of two, times the matrix of (-1)^popcount(i & j) / sqrt(n).
void sylvester(std::int64_t n, float* x, std::int64_t width) {
  std::int64_t half = 1;
  if (width == 1 && n >= 8) {  // steps too short for vectors
    for (std::int64_t at = 0; at < n; at += 8) mix_eight(x + at);
    half = 8;
  }
  for (; half < n; half *= 2) {
    const std::int64_t run = half * width;
    for (std::int64_t at = 0; at < n * width; at += 2 * run) {
      float* __restrict low = x + at;
      float* __restrict high = x + at + run;
      for (std::int64_t i = 0; i < run; ++i) {
        const float a = low[i], b = high[i];
        low[i] = a + b;
        high[i] = a - b;
      }
    }
  }
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(n)));
  for (std::int64_t i = 0; i < n * width; ++i) x[i] *= scale;
}

}  // namespace

std::vector<float> paley_hadamard(std::int64_t n) {
  if (n < 4 || n % 4 != 0) return {};
  std::vector<float> h(static_cast<std::size_t>(n * n));
  const auto put = [&](std::int64_t row, std::int64_t col, int value) {
    h[static_cast<std::size_t>(row * n + col)] = static_cast<float>(value);
  };
  if (is_prime(n - 1)) {  // I + C, C skew
    const std::vector<int> c = conference(n - 1, -1);
    for (std::int64_t i = 0; i < n * n; ++i)
      h[static_cast<std::size_t>(i)] = static_cast<float>(c[static_cast<std::size_t>(i)]);
    for (std::int64_t i = 0; i < n; ++i) put(i, i, 1);
  } else if (const std::int64_t half = n / 2; half % 4 == 2 && is_prime(half - 1)) {
    // C symmetric: its 0 becomes (1 -1; -1 -1), its +-1 become +-(1 1; 1 -1).
    const std::vector<int> c = conference(half - 1, 1);
    for (std::int64_t i = 0; i < half; ++i) {
      for (std::int64_t j = 0; j < half; ++j) {
        const int value = c[static_cast<std::size_t>(i * half + j)];
        put(2 * i, 2 * j, value != 0 ? value : 1);
        put(2 * i, 2 * j + 1, value != 0 ? value : -1);
        put(2 * i + 1, 2 * j, value != 0 ? value : -1);
        put(2 * i + 1, 2 * j + 1, value != 0 ? -value : -1);
      }
    }
  } else {
    return {};
  }
  make_first_column_positive(n, h);
  return h;
}

// Gram-Schmidt, twice over (Giraud et al. 2005), of a constant vector and normal ones: with signs as they come that is
// the uniform measure (Mezzadri, arXiv math-ph/0609050).
std::vector<float> random_orthogonal(std::int64_t n, std::uint64_t seed) {
  const auto size = static_cast<std::size_t>(n);
  std::vector<double> vectors(size * size);  // row i: column i of Q
  for (std::size_t i = 0; i < size; ++i) {
    double* v = vectors.data() + i * size;
    for (std::size_t c = 0; c < size; ++c) v[c] = i == 0 ? 1.0 : static_cast<double>(random_normal(seed, i, c));
    for (int pass = 0; pass < 2; ++pass) {
      for (std::size_t j = 0; j < i; ++j) {
        const double* u = vectors.data() + j * size;
        double product = 0;
        for (std::size_t c = 0; c < size; ++c) product += u[c] * v[c];
        for (std::size_t c = 0; c < size; ++c) v[c] -= product * u[c];
      }
    }
    double square = 0;
    for (std::size_t c = 0; c < size; ++c) square += v[c] * v[c];
    for (std::size_t c = 0; c < size; ++c) v[c] /= std::sqrt(square);
  }
  std::vector<float> q(size * size);
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t c = 0; c < size; ++c) q[c * size + i] = static_cast<float>(vectors[i * size + c]);
  }
  return q;
}

Mixer::Mixer(std::int64_t n, std::uint64_t seed) {
  std::int64_t odd = n;
  while (odd % 2 == 0) odd /= 2;
  if (odd > kMostOdd)
    fail(ErrorCode::kUnsupported, "no orthogonal matrix of size {}: its odd part is beyond {}", n, kMostOdd);
  base_ = odd;
  hadamard_ = odd == 1;
  for (std::int64_t size = 4 * odd; !hadamard_ && size <= std::min(n, kMostPaley) && n % size == 0; size *= 2) {
    base_matrix_ = paley_hadamard(size);
    if (base_matrix_.empty()) continue;
    base_ = size;
    hadamard_ = true;
    for (float& value : base_matrix_) value /= std::sqrt(static_cast<float>(size));
  }
  powers_ = n / base_;
  if (base_ == 1) return;
  if (!hadamard_) base_matrix_ = random_orthogonal(base_, seed);
  base_transposed_.resize(base_matrix_.size());
  for (std::int64_t row = 0; row < base_; ++row) {
    for (std::int64_t col = 0; col < base_; ++col)
      base_transposed_[static_cast<std::size_t>(col * base_ + row)] =
          base_matrix_[static_cast<std::size_t>(row * base_ + col)];
  }
}

void Mixer::apply(const std::vector<float>& base, float* x, std::int64_t width) const {
  const std::int64_t run = powers_ * width;
  for (std::int64_t i = 0; i < base_; ++i) sylvester(powers_, x + i * run, width);
  if (base.empty()) return;
  std::vector<float> product(static_cast<std::size_t>(base_ * std::min(run, kTile)));
  for (std::int64_t at = 0; at < run; at += kTile) {
    const std::int64_t count = std::min(kTile, run - at);
    gemm(base_, count, base_, base.data(), base_, x + at, run, product.data(), count);
    for (std::int64_t i = 0; i < base_; ++i) std::copy_n(product.data() + i * count, count, x + i * run + at);
  }
}

}  // namespace nibble::linalg
