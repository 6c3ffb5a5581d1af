// How the packed values of one tensor are chosen. A method works on one tensor at a time, row by row, without I/O or a
// model.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/cpu.h"
#include "base/exec_context.h"
#include "encoding/encoding.h"

namespace nibble::method {

// The f32 weights of one tensor, read in any order from any thread.
class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t cols() const = 0;
  virtual void read(std::int64_t row_begin, std::int64_t row_end, float* out) const = 0;  // (row_end - row_begin, cols)
};

// What calibration knows about the inputs of the tensor; empty spans when it knows nothing.
struct Statistics {
  std::span<const float> importance = {};  // mean square of each input: (cols), or (experts, cols) for stacked experts
  std::span<const float> gram = {};        // sum or mean of x xᵀ over the inputs x: (cols, cols), symmetric
  std::span<const float> held_out = {};    // the same over inputs that `gram` has not seen: tells how far to fit
  // Inputs x of the unquantized model against the x̂ of `gram`, behind layers that are quantized: mean of x x̂ᵀ, (cols,
  // cols); and of held-out ones.
  std::span<const float> cross = {};
  std::span<const float> held_out_cross = {};
};

enum class Rounding : std::uint8_t { kNearest, kStochastic, kFloor, kCeil };
// How a scale follows from the weights. kOutput: least error of what a group adds to the layer's output, which asks for
// the gram (method/output_range.h); where a scale belongs to a whole tensor, and on block types and codebooks, as kMse.
enum class RangeRule : std::uint8_t { kMinMax, kMse, kOutput };

struct Options {
  Rounding rounding = Rounding::kNearest;
  RangeRule range = RangeRule::kMinMax;
  int least_zero = 0;        // asymmetric integers: the least zero point that the file can say
  double damping = 0.01;     // second-order methods: of the mean of the gram's diagonal, added to it
  int effort = 4;            // second-order methods: passes over what the first sweep gave; more lose less
  double correction = 0.25;  // share of the way to the weights that suit the quantized layers before (method/target.h)
  double pull_back = 0;      // gptq on the affine family: towards the weights as they were, before each is rounded
  bool act_order = false;    // columns in order of falling importance; their groups stay as they are
  std::uint64_t seed = 0;    // of stochastic rounding; the result depends on (seed, row, column) only
  Isa isa = Isa::kScalar;    // fastest instruction set to use; never changes the result
};

struct Job {
  std::string_view tensor;  // name, for messages
  const encoding::EncodingInfo* target = nullptr;
  Shape shape;
  Statistics statistics;
  Options options;
};

// Where rows go: encoding::rows_at() of the first of them.
using RowsOut = encoding::RowParts;

// One tensor being quantized.
class Quantizer {
 public:
  virtual ~Quantizer() = default;
  // Whatever must be known of the whole tensor before its rows (a per-tensor range, a Cholesky factor).
  virtual void prepare(ExecContext& /*context*/, const RowSource& /*weights*/) {}
  // Quantizes rows [row_begin, row_begin + n_rows), given as f32. Called from several threads at once, on disjoint
  // rows. row_begin is a multiple of encoding::row_step(), and so is n_rows unless it ends the tensor: where blocks go
  // over the ends of rows, no two calls share one. Parts of the whole tensor are written with row 0.
  virtual void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                             const RowsOut& out) const = 0;
};

struct Method {
  std::string_view name;             // "rtn", "search"
  std::string_view summary;          // one line for --list-methods
  std::string_view source;           // paper or origin
  std::string_view statistics = {};  // what it asks of calibration, in words
  std::string_view cost = {};        // of time, in words
  bool (*supports)(const encoding::EncodingInfo& target);
  std::unique_ptr<Quantizer> (*make)(const Job& job);
  bool needs_gram = false;  // of the inputs: from a calibration text
};
inline bool asks_for_gram(const Method& method, const Options& options) {
  return method.needs_gram || options.range == RangeRule::kOutput;
}

std::span<const Method* const> all_entries();
const Method& get(std::string_view name);  // throws Error{kInvalidArgument}
const Method& default_for(
    const encoding::EncodingInfo& target);  // search for block types, kmeans for its types, else rtn

}  // namespace nibble::method
