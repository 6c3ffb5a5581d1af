// The operations of a decoder as nodes of a tape. Values are (tokens, features) row-major; sequences lie one behind the
// other.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "linalg/hadamard.h"
#include "token/tokenizer.h"
#include "train/tape.h"

namespace nibble::train {

// y (n, out) = x (n, in) wᵀ, w: (out, in).
template <typename Real>
Var matmul(Tape<Real>& tape, Var x, Var w);
// Every row of x plus the row `bias` (1, cols).
template <typename Real>
Var add_bias(Tape<Real>& tape, Var x, Var bias);
template <typename Real>
Var add(Tape<Real>& tape, Var a, Var b);
// a * x + b * y of values of one shape.
template <typename Real>
Var combine(Tape<Real>& tape, double a, Var x, double b, Var y);
template <typename Real>
Var scale(Tape<Real>& tape, Var x, double factor);
// Row i times factors[i]; factors: (rows), not differentiated.
template <typename Real>
Var scale_rows(Tape<Real>& tape, Var x, std::vector<Real> factors);
// Row i times column 0 of `factors` (rows, 1).
template <typename Real>
Var multiply_rows(Tape<Real>& tape, Var x, Var factors);
// Columns [begin, begin + n) of x.
template <typename Real>
Var columns(Tape<Real>& tape, Var x, std::int64_t begin, std::int64_t n);
// The parts, one beside the other.
template <typename Real>
Var beside(Tape<Real>& tape, std::span<const Var> parts);
// Rows [begin, begin + n) of x.
template <typename Real>
Var row_range(Tape<Real>& tape, Var x, std::int64_t begin, std::int64_t n);
// Rows rows[i] of x; a row may come several times.
template <typename Real>
Var gather_rows(Tape<Real>& tape, Var x, std::vector<std::int64_t> rows);
// A value of n_rows rows, row rows[i] of which is the sum of those rows i of x.
template <typename Real>
Var scatter_rows(Tape<Real>& tape, Var x, std::vector<std::int64_t> rows, std::int64_t n_rows);
// The parts, one below the other.
template <typename Real>
Var stack(Tape<Real>& tape, std::span<const Var> parts);
// The same numbers as (rows, cols).
template <typename Real>
Var reshape(Tape<Real>& tape, Var x, std::int64_t rows, std::int64_t cols);
// Rows of the table (vocab, width) that the tokens name.
template <typename Real>
Var embedding(Tape<Real>& tape, Var table, std::vector<token::TokenId> tokens);
// Each number is 0 with the share `rate`, else divided by 1 - rate; by (seed, stream) and its place.
template <typename Real>
Var dropout(Tape<Real>& tape, Var x, double rate, std::uint64_t seed, std::uint64_t stream);
// Runs of mixer.size() numbers of each row, multiplied by the mixer's matrix.
template <typename Real>
Var mix(Tape<Real>& tape, Var x, const linalg::Mixer& mixer);

// Norms of runs of `width` numbers of each row; weight and bias (1, width), or (1, cols): each run's own. An invalid
// weight is all ones. plus_one: norms scale by 1 + weight.
struct NormShape {
  std::int64_t width = 0;
  double eps = 1e-5;
  bool plus_one = false;
};
template <typename Real>
Var rms_norm(Tape<Real>& tape, Var x, Var weight, const NormShape& shape);
template <typename Real>
Var layer_norm(Tape<Real>& tape, Var x, Var weight, Var bias, const NormShape& shape);

template <typename Real>
Var activate(Tape<Real>& tape, Var x, ops::Activation activation);
// activation(gate) * up
template <typename Real>
Var gate(Tape<Real>& tape, Var gate, Var up, ops::Activation activation);
template <typename Real>
Var softcap(Tape<Real>& tape, Var x, double cap);
template <typename Real>
Var sigmoid(Tape<Real>& tape, Var x);

// Angles of the rotary positions 0 .. length - 1: cos and sin, (length, pairs).
template <typename Real>
struct RopeTable {
  std::int64_t length = 0, pairs = 0;
  std::vector<Real> cos, sin;
};
// Of each run of head_dim numbers the pairs (i, i + table.pairs) rotated by the angle of the row's position, which is
// the row modulo table.length. The table must outlive the tape's use of it.
template <typename Real>
Var rope(Tape<Real>& tape, Var x, std::int64_t head_dim, const RopeTable<Real>& table);

// Causal attention. q: (n, heads * dim), k: (n, kv_heads * dim), v: (n, kv_heads * value_dim); the result is (n, heads
// * value_dim).
struct AttentionShape {
  std::int64_t length = 0;  // of each sequence
  std::int64_t heads = 0, kv_heads = 0, dim = 0, value_dim = 0;
  double scale = 1;
  std::int64_t window = 0;  // tokens seen, the token itself included; 0: all
  bool chunked = false;     // the window is a fixed stretch
  double softcap = 0;
  std::span<const float> slopes = {};  // ALiBi: of each head; empty: none
};
// sinks (1, heads), or none. Scores are computed again on the way back instead of being kept.
template <typename Real>
Var attention(Tape<Real>& tape, Var q, Var k, Var v, Var sinks, const AttentionShape& shape);

// Losses: sums of what each row costs times weights[i], (1, 1). The logits' memory is used up.
// -log softmax(logits)[label]
template <typename Real>
Var cross_entropy(Tape<Real>& tape, Var logits, std::vector<token::TokenId> labels, std::vector<Real> weights);
// sum p (log p - log softmax(logits)) with p = softmax(teacher), (rows, cols), which is used up, too.
template <typename Real>
Var kl_divergence(Tape<Real>& tape, Var logits, Real* teacher, std::vector<Real> weights);
// The sum of squares of x - target times weight; a share of them, the largest, can be left out.
template <typename Real>
Var squared_error(Tape<Real>& tape, Var x, const Real* target, double weight, double left_out = 0);
// a + b of losses
template <typename Real>
Var add_losses(Tape<Real>& tape, Var a, Var b);

// body(x) computed on a tape of its own whose values are dropped, and computed again on the way back: memory for time.
template <typename Real>
Var checkpoint(Tape<Real>& tape, Var x, std::function<Var(Tape<Real>&, Var)> body);
// The sum of losses body(rows [begin, begin + n) of x, begin) over all rows, `most_rows` at a time, each gone back
// through at once: only the gradient is kept. It must be the root of the way back.
template <typename Real>
Var loss_in_parts(Tape<Real>& tape, Var x, std::int64_t most_rows,
                  const std::function<Var(Tape<Real>&, Var, std::int64_t begin)>& body);

}  // namespace nibble::train
