// A layer to quantize, for tests: weights and the gram of inputs that depend on each other.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/cpu.h"
#include "base/progress.h"
#include "base/rng.h"
#include "encoding/affine.h"
#include "linalg/gram.h"
#include "method/quantizer.h"
#include "tensor/tensor.h"

namespace nibble::method {

struct Problem {
  std::int64_t rows = 0, cols = 0;
  std::vector<float> weights, gram;
};

// Sum of x xᵀ over inputs that depend on each other, some of them much larger than others, as activations are.
inline const std::vector<float>& gram_of_inputs(std::int64_t cols, std::uint64_t seed) {
  static std::map<std::pair<std::int64_t, std::uint64_t>, std::vector<float>> made;
  std::vector<float>& gram = made[{cols, seed}];
  if (!gram.empty()) return gram;
  const std::int64_t n = 4 * cols;
  std::vector<float> x(static_cast<std::size_t>(n * cols));
  for (std::int64_t t = 0; t < n; ++t) {
    float carried = 0;
    for (std::int64_t c = 0; c < cols; ++c) {
      carried = 0.8f * carried + random_normal(seed, 1, static_cast<std::uint64_t>(t * cols + c));
      x[static_cast<std::size_t>(t * cols + c)] = carried * (c % 37 == 5 ? 8.0f : 1.0f);
    }
  }
  ThreadPool pool(1);
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
  gram.resize(static_cast<std::size_t>(cols * cols));
  linalg::add_gram(context, n, cols, x.data(), gram.data());
  linalg::fill_upper(context, cols, gram.data());
  return gram;
}

inline Problem make_problem(std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  Problem p = {rows, cols, {}, gram_of_inputs(cols, seed)};
  for (std::int64_t i = 0; i < rows * cols; ++i)
    p.weights.push_back(0.05f * random_normal(seed, 0, static_cast<std::uint64_t>(i)));
  return p;
}

class ViewRows final : public RowSource {
 public:
  explicit ViewRows(const Problem& p) : p_(p) {}
  std::int64_t rows() const override { return p_.rows; }
  std::int64_t cols() const override { return p_.cols; }
  void read(std::int64_t begin, std::int64_t end, float* out) const override {
    std::copy(p_.weights.begin() + begin * p_.cols, p_.weights.begin() + end * p_.cols, out);
  }

 private:
  const Problem& p_;
};

inline Job job_of(const Problem& p, std::string_view encoding, bool act_order = false) {
  Job job;
  job.tensor = "w";
  job.target = &encoding::get(encoding);
  job.shape = {p.rows, p.cols};
  job.statistics.gram = p.gram;
  job.options.act_order = act_order;
  job.options.isa = best_isa();
  return job;
}

// Quantizes in calls of `step` rows, or as many more as the encoding asks for.
inline Tensor encode(const Problem& p, const Job& job, Quantizer& quantizer, std::int64_t step, int threads = 1) {
  ThreadPool pool(threads);
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
  quantizer.prepare(context, ViewRows(p));
  Tensor tensor = encoding::allocate(*job.target, job.shape);
  const std::int64_t least = encoding::row_step(*job.target, job.shape);
  const std::int64_t rows = (step + least - 1) / least * least;
  pool.parallel_dynamic((p.rows + rows - 1) / rows, [&](std::int64_t i) {
    const std::int64_t row = i * rows;
    quantizer.quantize_rows(p.weights.data() + row * p.cols, row, std::min(rows, p.rows - row),
                            encoding::rows_at(tensor, row));
  });
  return tensor;
}

inline std::vector<float> decode(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.view().shape.elements()));
  encoding::validate(tensor.view());
  encoding::decode_rows(tensor.view(), 0, tensor.view().rows(), values.data());
  return values;
}

// What the packed rows decode to.
inline std::vector<float> run(const Problem& p, const Job& job, std::unique_ptr<Quantizer> quantizer,
                              std::int64_t step) {
  return decode(encode(p, job, *quantizer, step));
}

// Sum over rows of (w - v) H (w - v)ᵀ.
inline double layer_error(const Problem& p, const std::vector<float>& values) {
  double sum = 0;
  std::vector<double> d(static_cast<std::size_t>(p.cols));
  for (std::int64_t r = 0; r < p.rows; ++r) {
    for (std::int64_t c = 0; c < p.cols; ++c) {
      const auto at = static_cast<std::size_t>(r * p.cols + c);
      d[static_cast<std::size_t>(c)] = static_cast<double>(p.weights[at]) - static_cast<double>(values[at]);
    }
    for (std::int64_t i = 0; i < p.cols; ++i) {
      for (std::int64_t j = 0; j < p.cols; ++j) {
        sum += d[static_cast<std::size_t>(i)] * d[static_cast<std::size_t>(j)] *
               static_cast<double>(p.gram[static_cast<std::size_t>(i * p.cols + j)]);
      }
    }
  }
  return sum;
}

}  // namespace nibble::method
