// Optimizers: how gradients move parameters.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/exec_context.h"
#include "train/parameter.h"

namespace nibble::train {

class StateReader;
class StateWriter;

struct OptimizerSpec {
  std::string kind = "adamw";  // of optimizer_names()
  double lr = 1e-3;            // before the schedule and Parameter::lr_scale
  double beta1 = 0.9;          // adamw, adamw8bit, lion
  double beta2 = 0.999;        // likewise; usual for lion: 0.99
  double eps = 1e-8;           // adamw, adamw8bit
  double weight_decay = 0;     // decoupled: of all kinds, p is first multiplied with 1 - lr * weight_decay
};

// Moves parameters by their gradients. The numbers depend neither on the number of threads nor on the instruction set.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One step with the gradients as they stand, which stay; `lr` is that of this step, multiplied with each parameter's
  // lr_scale. Every step wants the same parameters, in the same order: throws Error{kInvalidArgument} for others.
  virtual void step(ExecContext& context, std::span<Parameter* const> parameters, double lr) = 0;
  virtual std::int64_t steps() const = 0;         // taken so far
  virtual std::uint64_t state_bytes() const = 0;  // kept between steps
  virtual bool state_on_disk() const = 0;         // above the limit given to make_optimizer()
  // What the next step needs besides the parameters, as parts named "optimizer.*"; exact. What save() hands over is
  // read when the writer writes. load() throws Error{kFormat} for states of other parameters or of another kind.
  virtual void save(StateWriter& writer) const = 0;
  virtual void load(const StateReader& reader, std::span<Parameter* const> parameters) = 0;
};

// "adamw": torch.optim.AdamW. "adamw8bit": the same with averages in the block-wise 8 bits of bitsandbytes, rounded to
// the nearest level; parameters below 4096 numbers keep f32. "lion"; "signsgd": p -= lr * sign(g); "sgd".
std::vector<std::string_view> optimizer_names();
// Throws Error{kInvalidArgument} for an unknown kind and for numbers that no optimizer can work with. States of more
// than `memory_limit` bytes lie in a file that is paged in and out.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerSpec& spec, std::uint64_t memory_limit = ~std::uint64_t{0});
// What the states of parameters of those sizes will take.
std::uint64_t optimizer_state_bytes(const OptimizerSpec& spec, std::span<const std::int64_t> sizes);

}  // namespace nibble::train
