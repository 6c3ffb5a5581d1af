// A model ready to compute: weights packed for this machine, kernels chosen once. Immutable; any number of sessions
// share it.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "base/cpu.h"
#include "base/exec_context.h"
#include "model/kv_cache.h"
#include "model/lora.h"
#include "model/model_spec.h"
#include "model/source.h"

namespace nibble::model {

enum class MathPath : std::uint8_t {
  kFast,   // packed weights, integer kernels, activations rounded as the kernels ask
  kExact,  // every weight decoded to f32, all math in f32: what evaluation takes as truth
};

// What the model was made for, or else what loses nothing that counts.
inline KvType default_kv_type(const ModelSpec& spec, MathPath path) {
  return spec.kv_type.value_or(path == MathPath::kExact ? KvType::kF32 : KvType::kF16);
}

struct LoadOptions {
  MathPath path = MathPath::kFast;
  Isa isa = Isa::kScalar;                   // pass best_isa()
  std::span<const LoraAdapter> adapters{};  // run beside the weights, all of them; read while loading
};

// Sees what flows through the decoder; used by calibration and by the error-over-depth report.
class ForwardObserver {
 public:
  virtual ~ForwardObserver() = default;
  // The input of the linears `roles` of block `layer` (-1: the head), before any rounding. x: (n, cols). The pool is
  // idle, so an observer may use context.pool.
  virtual void linear_input(ExecContext& /*context*/, int /*layer*/, std::span<const Role> /*roles*/,
                            const float* /*x*/, std::int64_t /*n*/, std::int64_t /*cols*/) {}
  // The same of a stack of matrices (experts, heads): rows [begins[m], begins[m + 1]) of x are the input of matrix m.
  virtual void stack_inputs(ExecContext& /*context*/, int /*layer*/, std::span<const Role> /*roles*/,
                            const float* /*x*/, std::span<const std::int64_t> /*begins*/, std::int64_t /*cols*/) {}
  // What block `layer` puts into the cache: keys behind their rotation, and values; (n, width) each.
  virtual void cache_input(ExecContext& /*context*/, int /*layer*/, const float* /*k*/, const float* /*v*/,
                           std::int64_t /*n*/, std::int64_t /*width*/) {}
  // The residual stream after block `layer`; (n, hidden). Layer -1: the embedding.
  virtual void block_output(ExecContext& /*context*/, int /*layer*/, const float* /*x*/, std::int64_t /*n*/,
                            std::int64_t /*hidden*/) {}
};

// Tokens to append to one sequence of the cache.
struct Segment {
  int sequence = 0;
  std::span<const token::TokenId> tokens;
  std::int64_t logits_from = 0;  // logits are wanted for tokens[logits_from ..]; tokens.size() for none
};

// Receives logits in token order, some tokens at a time: rows for tokens [first, first + n) of segment `segment`, (n,
// vocab). The pool is idle, so the sink may use it.
using LogitsSink = std::function<void(std::size_t segment, std::int64_t first, std::int64_t n, const float* logits)>;

class Model {
 public:
  // Shows progress in bytes read. The fast path copies (packs) all weights but an untied embedding, the exact path
  // none: what is not copied stays mapped, so the model keeps `source`. All weights are looked at: throws
  // Error{kFormat} naming model, tensor and row of one that is NaN or infinite.
  static std::shared_ptr<const Model> load(ExecContext& context, std::shared_ptr<const ModelSource> source,
                                           const LoadOptions& options);
  ~Model();

  const ModelSpec& spec() const;
  MathPath path() const;
  std::uint64_t weight_bytes() const;  // in memory, as packed
  // Appends all segments to their sequences (each sequence at most once per call) and runs them as one batch, cut into
  // parts of bounded size: observers and sinks are called once per part. Throws Error{kInvalidArgument}, with the cache
  // unchanged, when a token id, sequence or position is out of range; Error{kCancelled} with the cache as it was, too.
  // One call at a time per cache.
  void forward(ExecContext& context, KvCache& cache, std::span<const Segment> segments, const LogitsSink& sink,
               ForwardObserver* observer = nullptr) const;

 private:
  Model();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nibble::model
