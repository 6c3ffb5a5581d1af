#include <algorithm>
#include <cmath>
#include <vector>

#include "linalg/gemm.h"
#include "train/nodes.h"

namespace nibble::train {

namespace {

using linalg::Lies;
using linalg::multiply;

constexpr std::int64_t kQueryRows = 64;  // of one tile of scores

// One sequence and head: where its rows lie.
template <typename Real>
struct Head {
  const Real *q, *k, *v;
  std::int64_t q_stride, k_stride, v_stride, out_stride;
};

// Queries [begin, end) of a sequence see the keys [first_key, end).
struct Tile {
  std::int64_t begin, end, first_key;
  std::int64_t rows() const { return end - begin; }
  std::int64_t keys() const { return end - first_key; }
};

std::int64_t first_key(const AttentionShape& shape, std::int64_t query) {
  if (shape.window == 0) return 0;
  if (shape.chunked) return query / shape.window * shape.window;
  return std::max<std::int64_t>(0, query - shape.window + 1);
}

Tile tile_at(const AttentionShape& shape, std::int64_t index) {
  const std::int64_t begin = index * kQueryRows;
  return {begin, std::min(begin + kQueryRows, shape.length), first_key(shape, begin)};
}

// The scores of a tile, capped, (rows, keys); what a query does not see is not filled in.
template <typename Real>
void score(const Tape<Real>& tape, const AttentionShape& shape, const Head<Real>& head, std::int64_t index,
           const Tile& tile, Real* scores) {
  multiply(Lies::kAsIs, Lies::kTransposed, tile.rows(), tile.keys(), shape.dim, static_cast<Real>(shape.scale),
           head.q + tile.begin * head.q_stride, head.q_stride, head.k + tile.first_key * head.k_stride, head.k_stride,
           Real{0}, scores, tile.keys());
  if (shape.softcap > 0)
    tape.ops().softcap(scores, static_cast<Real>(shape.softcap), tile.rows() * tile.keys(), scores);
  if (shape.slopes.empty()) return;
  const auto slope = static_cast<Real>(shape.slopes[static_cast<std::size_t>(index)]);
  for (std::int64_t r = 0; r < tile.rows(); ++r) {
    for (std::int64_t c = 0; c < tile.keys(); ++c)
      scores[r * tile.keys() + c] -= slope * static_cast<Real>(tile.begin + r - tile.first_key - c);
  }
}

// row(scores of what the query sees, how many, query) for each query of a tile; 0 elsewhere.
template <typename Real, typename Body>
void for_seen(const AttentionShape& shape, const Tile& tile, Real* scores, Body&& row) {
  for (std::int64_t r = 0; r < tile.rows(); ++r) {
    Real* from = scores + r * tile.keys();
    const std::int64_t begin = first_key(shape, tile.begin + r) - tile.first_key;
    const std::int64_t end = tile.begin + r + 1 - tile.first_key;
    std::fill(from, from + begin, Real{0});
    row(from + begin, end - begin, tile.begin + r);
    std::fill(from + end, from + tile.keys(), Real{0});
  }
}

}  // namespace

template <typename Real>
class AttentionNode {
 public:
  AttentionNode(Tape<Real>& tape, Var q, Var k, Var v, Var sinks, const AttentionShape& shape)
      : tape_(tape),
        shape_(shape),
        q_(q),
        k_(k),
        v_(v),
        sinks_(sinks),
        slopes_(shape.slopes.begin(), shape.slopes.end()) {
    shape_.slopes = slopes_;
    n_sequences_ = tape.rows(q) / shape.length;
    group_ = shape.heads / shape.kv_heads;
    n_tiles_ = (shape.length + kQueryRows - 1) / kQueryRows;
    log_sums_ = tape.make(shape.heads, tape.rows(q), {});
    out_ = tape.make(tape.rows(q), shape.heads * shape.value_dim, {q, k, v, sinks});
  }
  Var out() const { return out_; }

  void forward() {
    const std::int64_t tasks = n_sequences_ * shape_.heads;
    tape_.context().pool.parallel_dynamic(tasks * n_tiles_, [&](std::int64_t task) {
      // The last tiles see the most keys.
      forward_tile(task % tasks / shape_.heads, task % shape_.heads, n_tiles_ - 1 - task / tasks);
    });
  }

  void backward() {
    tape_.gradient(out_);
    for (const Var v : {q_, k_, v_}) {
      if (tape_.has_gradient(v)) tape_.gradient(v);
    }
    std::vector<Real> sink_parts(static_cast<std::size_t>(n_sequences_ * shape_.heads));
    tape_.context().pool.parallel_dynamic(n_sequences_ * shape_.kv_heads, [&](std::int64_t task) {
      const std::int64_t sequence = task / shape_.kv_heads, kv_head = task % shape_.kv_heads;
      for (std::int64_t h = kv_head * group_; h < (kv_head + 1) * group_; ++h) {
        Real& sink = sink_parts[static_cast<std::size_t>(sequence * shape_.heads + h)];
        for (std::int64_t tile = 0; tile < n_tiles_; ++tile) backward_tile(sequence, h, tile, sink);
      }
    });
    if (!tape_.has_gradient(sinks_)) return;
    Real* dsinks = tape_.gradient(sinks_);
    for (std::size_t i = 0; i < sink_parts.size(); ++i)
      dsinks[static_cast<std::int64_t>(i) % shape_.heads] += sink_parts[i];
  }

 private:
  Head<Real> head(std::int64_t sequence, std::int64_t h) const {
    Head<Real> at{};
    at.q_stride = shape_.heads * shape_.dim;
    at.k_stride = shape_.kv_heads * shape_.dim;
    at.v_stride = shape_.kv_heads * shape_.value_dim;
    at.out_stride = shape_.heads * shape_.value_dim;
    const std::int64_t row = sequence * shape_.length;
    at.q = tape_.value(q_) + row * at.q_stride + h * shape_.dim;
    at.k = tape_.value(k_) + row * at.k_stride + h / group_ * shape_.dim;
    at.v = tape_.value(v_) + row * at.v_stride + h / group_ * shape_.value_dim;
    return at;
  }
  Real* scratch(std::size_t numbers) {
    static thread_local std::vector<Real> memory;
    if (memory.size() < numbers) memory.resize(numbers);
    return memory.data();
  }

  void forward_tile(std::int64_t sequence, std::int64_t h, std::int64_t index) {
    const Tile tile = tile_at(shape_, index);
    const Head<Real> at = head(sequence, h);
    Real* scores = scratch(static_cast<std::size_t>(tile.rows() * tile.keys()));
    score(tape_, shape_, at, h, tile, scores);
    const Real* sink = sinks_ ? tape_.value(sinks_) + h : nullptr;
    const std::int64_t first_row = sequence * shape_.length;
    Real* log_sums = tape_.mutable_value(log_sums_) + h * tape_.rows(q_) + first_row;
    for_seen(shape_, tile, scores, [&](Real* seen, std::int64_t n, std::int64_t query) {
      log_sums[query] = tape_.ops().softmax(seen, n, sink);
    });
    multiply(Lies::kAsIs, Lies::kAsIs, tile.rows(), shape_.value_dim, tile.keys(), Real{1}, scores, tile.keys(),
             at.v + tile.first_key * at.v_stride, at.v_stride, Real{0},
             tape_.mutable_value(out_) + (first_row + tile.begin) * at.out_stride + h * shape_.value_dim,
             at.out_stride);
  }

  // With P the shares and dP = dO Vᵀ: dS = P * (dP - mean), where a row's mean is dO · O; arXiv 2205.14135, B.4.
  void backward_tile(std::int64_t sequence, std::int64_t h, std::int64_t index, Real& sink_gradient) {
    const Tile tile = tile_at(shape_, index);
    const Head<Real> at = head(sequence, h);
    const std::int64_t n = tile.rows() * tile.keys(), first_row = sequence * shape_.length;
    Real* shares = scratch(static_cast<std::size_t>(3 * n));
    Real *dscores = shares + n, *capped = shares + 2 * n;
    score(tape_, shape_, at, h, tile, shares);
    if (shape_.softcap > 0) {
      std::copy_n(shares, n, capped);
      if (!shape_.slopes.empty()) score_without_slopes(at, h, tile, capped);
    }
    const Real* log_sums = tape_.value(log_sums_) + h * tape_.rows(q_) + first_row;
    for_seen(shape_, tile, shares, [&](Real* seen, std::int64_t count, std::int64_t query) {
      tape_.ops().exp_minus(seen, log_sums[query], count);
    });
    const std::int64_t out_at = (first_row + tile.begin) * at.out_stride + h * shape_.value_dim;
    const Real* dout = tape_.gradient(out_) + out_at;
    multiply(Lies::kAsIs, Lies::kTransposed, tile.rows(), tile.keys(), shape_.value_dim, Real{1}, dout, at.out_stride,
             at.v + tile.first_key * at.v_stride, at.v_stride, Real{0}, dscores, tile.keys());
    const Real* out = tape_.value(out_) + out_at;
    for (std::int64_t r = 0; r < tile.rows(); ++r) {
      const Real mean = tape_.ops().dot(dout + r * at.out_stride, out + r * at.out_stride, shape_.value_dim);
      tape_.ops().softmax_backward(shares + r * tile.keys(), mean, tile.keys(), dscores + r * tile.keys());
      if (sinks_) sink_gradient -= mean * std::exp(tape_.value(sinks_)[h] - log_sums[tile.begin + r]);
    }
    if (shape_.softcap > 0)
      tape_.ops().softcap_backward(capped, static_cast<Real>(shape_.softcap), dscores, n, true, dscores);
    add_to_inputs(at, sequence, h, tile, shares, dscores, dout);
  }

  void score_without_slopes(const Head<Real>& at, std::int64_t h, const Tile& tile, Real* scores) const {
    AttentionShape plain = shape_;
    plain.slopes = {};
    score(tape_, plain, at, h, tile, scores);
  }

  void add_to_inputs(const Head<Real>& at, std::int64_t sequence, std::int64_t h, const Tile& tile, const Real* shares,
                     const Real* dscores, const Real* dout) {
    const std::int64_t first_row = sequence * shape_.length, kv_head = h / group_;
    const auto factor = static_cast<Real>(shape_.scale);
    if (tape_.has_gradient(v_)) {
      Real* dv = tape_.gradient(v_) + (first_row + tile.first_key) * at.v_stride + kv_head * shape_.value_dim;
      multiply(Lies::kTransposed, Lies::kAsIs, tile.keys(), shape_.value_dim, tile.rows(), Real{1}, shares, tile.keys(),
               dout, at.out_stride, Real{1}, dv, at.v_stride);
    }
    if (tape_.has_gradient(k_)) {
      Real* dk = tape_.gradient(k_) + (first_row + tile.first_key) * at.k_stride + kv_head * shape_.dim;
      multiply(Lies::kTransposed, Lies::kAsIs, tile.keys(), shape_.dim, tile.rows(), factor, dscores, tile.keys(),
               at.q + tile.begin * at.q_stride, at.q_stride, Real{1}, dk, at.k_stride);
    }
    if (tape_.has_gradient(q_)) {
      Real* dq = tape_.gradient(q_) + (first_row + tile.begin) * at.q_stride + h * shape_.dim;
      multiply(Lies::kAsIs, Lies::kAsIs, tile.rows(), shape_.dim, tile.keys(), factor, dscores, tile.keys(),
               at.k + tile.first_key * at.k_stride, at.k_stride, Real{1}, dq, at.q_stride);
    }
  }

  Tape<Real>& tape_;
  AttentionShape shape_;
  Var q_, k_, v_, sinks_, out_, log_sums_;
  std::vector<float> slopes_;
  std::int64_t n_sequences_ = 0, group_ = 1, n_tiles_ = 0;
};

template <typename Real>
Var attention(Tape<Real>& tape, Var q, Var k, Var v, Var sinks, const AttentionShape& shape) {
  auto node = std::make_shared<AttentionNode<Real>>(tape, q, k, v, sinks, shape);
  node->forward();
  tape.on_backward(node->out(), [node] { node->backward(); });
  return node->out();
}

template Var attention(Tape<float>&, Var, Var, Var, Var, const AttentionShape&);
template Var attention(Tape<double>&, Var, Var, Var, Var, const AttentionShape&);

}  // namespace nibble::train
