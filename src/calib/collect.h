// Collects an importance matrix: runs a model over a text and sums the squares of what flows into each linear.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "base/exec_context.h"
#include "calib/imatrix.h"
#include "calib/token_chunks.h"
#include "model/model.h"

namespace nibble::calib {

// Sums x² per input column, in f64 and in token order, so that the result does not depend on threads or batches.
class SquareSums final : public model::ForwardObserver {
 public:
  explicit SquareSums(const model::ModelSpec& spec) : spec_(spec) {}
  void linear_input(ExecContext& context, int layer, std::span<const model::Role> roles, const float* x, std::int64_t n,
                    std::int64_t cols) override;
  void stack_inputs(ExecContext& context, int layer, std::span<const model::Role> roles, const float* x,
                    std::span<const std::int64_t> begins, std::int64_t cols) override;
  // One entry per linear of every block, per stack of experts, and one for the head, by GGUF's names; a tied head goes
  // by the embedding's.
  // Throws Error{kFormat} naming the weight whose inputs were not finite.
  Imatrix to_imatrix() const;

 private:
  struct Input {
    std::vector<model::Role> roles;  // of the linears that share it
    ImatrixEntry entry;
  };
  const model::ModelSpec& spec_;
  std::map<std::pair<int, model::Role>, Input> inputs_;  // by layer and first role
};

// Runs all tokens of all chunks. Besides the model it holds the activations, keys and values of one batch.
Imatrix collect_imatrix(ExecContext& context, const model::Model& model, const TokenChunks& chunks,
                        std::int64_t batch_tokens = 2048);

// What collect_imatrix() would give, with zeros for sums.
Imatrix planned_imatrix(const model::ModelSpec& spec, const TokenChunks& chunks);

}  // namespace nibble::calib
