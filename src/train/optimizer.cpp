#include "train/optimizer.h"

#include <cmath>
#include <cstring>
#include <optional>

#include "base/checked.h"
#include "base/near_names.h"
#include "base/spill_buffer.h"
#include "train/pieces.h"
#include "train/quantile_tables.h"
#include "train/training_state.h"

namespace nibble::train {

namespace {

constexpr std::int64_t kLeast8Bit = 4096;  // numbers of a parameter; bitsandbytes' min_8bit_size
constexpr std::string_view kKindPart = "optimizer.kind", kStepsPart = "optimizer.steps";

// An array of state: `bytes` for every `numbers` of the parameter.
struct StateArray {
  std::string_view name;
  std::int64_t numbers, bytes;
  std::uint64_t size(std::int64_t n) const { return static_cast<std::uint64_t>((n + numbers - 1) / numbers * bytes); }
};

struct Rule {
  std::span<const StateArray> arrays;  // at most kStateArrays
  UpdateLoop ParameterLoops::*update;
};

constexpr StateArray kAdamwState[] = {{"m", 1, 4}, {"v", 1, 4}};
constexpr StateArray kAdamw8BitState[] = {
    {"m.codes", 1, 1}, {"m.scales", kStateBlock, 4}, {"v.codes", 1, 1}, {"v.scales", kStateBlock, 4}};
constexpr StateArray kLionState[] = {{"m", 1, 4}};
constexpr Rule kAdamw = {kAdamwState, &ParameterLoops::adamw};
constexpr Rule kAdamw8Bit = {kAdamw8BitState, &ParameterLoops::adamw8bit};
constexpr Rule kLion = {kLionState, &ParameterLoops::lion};
constexpr Rule kSignSgd = {{}, &ParameterLoops::signsgd};
constexpr Rule kSgd = {{}, &ParameterLoops::sgd};

struct Kind {
  std::string_view name;
  const Rule& small;  // below kLeast8Bit numbers
  const Rule& large;
  const Rule& rule(std::int64_t n) const { return n < kLeast8Bit ? small : large; }
};

constexpr Kind kKinds[] = {{"adamw", kAdamw, kAdamw},
                           {"adamw8bit", kAdamw, kAdamw8Bit},
                           {"lion", kLion, kLion},
                           {"signsgd", kSignSgd, kSignSgd},
                           {"sgd", kSgd, kSgd}};

const Kind& find_kind(std::string_view name) {
  for (const Kind& kind : kKinds) {
    if (kind.name == name) return kind;
  }
  const std::vector<std::string_view> names = optimizer_names();
  fail(ErrorCode::kInvalidArgument, "no optimizer is called '{}'; there are: {}", name, near_names(name, names));
}

std::uint64_t aligned(std::uint64_t n_bytes) {
  return checked_align(n_bytes, std::uint64_t{AlignedBuffer::kAlignment});
}

std::uint64_t state_bytes_of(const Rule& rule, std::int64_t n) {
  std::uint64_t bytes = 0;
  for (const StateArray& array : rule.arrays) bytes = checked_add(bytes, aligned(array.size(n)));
  return bytes;
}

void check_spec(const OptimizerSpec& spec) {
  const auto in = [](double x, double low, double high) { return x >= low && x < high; };  // false for NaN
  const double inf = HUGE_VAL;
  if (!in(spec.lr, 0, inf)) fail(ErrorCode::kInvalidArgument, "a learning rate of {}", spec.lr);
  if (!in(spec.beta1, 0, 1)) fail(ErrorCode::kInvalidArgument, "beta1 {}: 0 up to below 1 is possible", spec.beta1);
  if (!in(spec.beta2, 0, 1)) fail(ErrorCode::kInvalidArgument, "beta2 {}: 0 up to below 1 is possible", spec.beta2);
  if (!in(spec.eps, 0, inf)) fail(ErrorCode::kInvalidArgument, "eps {}", spec.eps);
  if (!in(spec.weight_decay, 0, inf)) fail(ErrorCode::kInvalidArgument, "a weight decay of {}", spec.weight_decay);
}

class RuleOptimizer final : public Optimizer {
 public:
  RuleOptimizer(const OptimizerSpec& spec, std::uint64_t memory_limit)
      : spec_(spec), kind_(find_kind(spec.kind)), memory_limit_(memory_limit), loops_(choose_loops(best_isa())) {
    check_spec(spec);
  }
  void step(ExecContext& context, std::span<Parameter* const> parameters, double lr) override;
  std::int64_t steps() const override { return steps_; }
  std::uint64_t state_bytes() const override { return state_bytes_; }
  bool state_on_disk() const override { return state_.spilled(); }
  void save(StateWriter& writer) const override;
  void load(const StateReader& reader, std::span<Parameter* const> parameters) override;

 private:
  struct Slot {  // of one parameter
    std::string name;
    std::int64_t n = 0;
    const Rule* rule = nullptr;
    std::vector<std::byte*> arrays;
  };
  void bind(std::span<Parameter* const> parameters);
  void check_same(std::span<Parameter* const> parameters) const;
  StepScalars scalars(const Parameter& parameter, double lr) const;

  OptimizerSpec spec_;
  const Kind& kind_;
  std::uint64_t memory_limit_;
  const ParameterLoops& loops_;
  std::int64_t steps_ = 0;
  bool bound_ = false;
  std::vector<Slot> slots_;
  std::uint64_t state_bytes_ = 0;
  SpillBuffer state_;
};

void RuleOptimizer::bind(std::span<Parameter* const> parameters) {
  slots_.clear();
  state_bytes_ = 0;
  for (const Parameter* parameter : parameters) {
    const Rule& rule = kind_.rule(parameter->size());
    slots_.push_back({parameter->name, parameter->size(), &rule, {}});
    state_bytes_ = checked_add(state_bytes_, state_bytes_of(rule, parameter->size()));
  }
  state_ = SpillBuffer(state_bytes_, memory_limit_);
  auto* next = reinterpret_cast<std::byte*>(state_.floats());
  for (Slot& slot : slots_) {
    for (const StateArray& array : slot.rule->arrays) {
      slot.arrays.push_back(next);
      next += aligned(array.size(slot.n));
    }
  }
  bound_ = true;
}

void RuleOptimizer::check_same(std::span<Parameter* const> parameters) const {
  if (parameters.size() != slots_.size()) {
    fail(ErrorCode::kInvalidArgument, "the optimizer has states of {} parameters and is given {}", slots_.size(),
         parameters.size());
  }
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.name == parameters[i]->name && slot.n == parameters[i]->size()) continue;
    fail(ErrorCode::kInvalidArgument, "the optimizer has the state of '{}' ({} numbers) and is given '{}' ({})",
         slot.name, slot.n, parameters[i]->name, parameters[i]->size());
  }
}

// As torch has them: made in double, rounded to f32 where they meet the tensors.
StepScalars RuleOptimizer::scalars(const Parameter& parameter, double lr) const {
  const double own_lr = lr * parameter.lr_scale;
  const auto t = static_cast<double>(steps_);
  const double correction1 = 1 - std::pow(spec_.beta1, t), correction2 = 1 - std::pow(spec_.beta2, t);
  StepScalars s{};
  s.decay = parameter.decays ? static_cast<float>(1 - own_lr * spec_.weight_decay) : 1.0f;
  s.lr = static_cast<float>(own_lr);
  s.beta1 = static_cast<float>(spec_.beta1);
  s.beta2 = static_cast<float>(spec_.beta2);
  s.rest1 = static_cast<float>(1 - spec_.beta1);
  s.rest2 = static_cast<float>(1 - spec_.beta2);
  s.root_correction2 = static_cast<float>(std::sqrt(correction2));
  s.eps = static_cast<float>(spec_.eps);
  s.step_size = static_cast<float>(own_lr / correction1);
  s.signed_map = &signed_quantiles();
  s.unsigned_map = &unsigned_quantiles();
  return s;
}

void RuleOptimizer::step(ExecContext& context, std::span<Parameter* const> parameters, double lr) {
  if (!bound_) bind(parameters);
  check_same(parameters);
  ++steps_;
  std::vector<StepScalars> each;
  for (const Parameter* parameter : parameters) each.push_back(scalars(*parameter, lr));
  const auto work = [&](std::size_t i, std::int64_t, std::int64_t begin, std::int64_t end) {
    const Slot& slot = slots_[i];
    Slice slice{parameters[i]->values() + begin, parameters[i]->gradients() + begin, {}, end - begin};
    for (std::size_t k = 0; k < slot.arrays.size(); ++k) {
      slice.state[k] = slot.arrays[k] + slot.rule->arrays[k].size(begin);
    }
    (loops_.*slot.rule->update)(slice, each[i]);
  };
  for_each_piece(context.pool, parameters, work);
}

void RuleOptimizer::save(StateWriter& writer) const {
  writer.add_text(kKindPart, kind_.name);
  writer.add_text(kStepsPart, format_text("{}", steps_));
  for (const Slot& slot : slots_) {
    for (std::size_t k = 0; k < slot.arrays.size(); ++k) {
      const StateArray& array = slot.rule->arrays[k];
      writer.add(format_text("optimizer.{}.{}", slot.name, array.name), {slot.arrays[k], array.size(slot.n)});
    }
  }
}

void RuleOptimizer::load(const StateReader& reader, std::span<Parameter* const> parameters) {
  const std::string kind = reader.text(kKindPart);
  if (kind != kind_.name) {
    fail(ErrorCode::kFormat, "'{}' holds the state of optimizer {}, not of {}", reader.path().string(), kind,
         kind_.name);
  }
  const std::int64_t steps = reader.count(kStepsPart);
  bind(parameters);
  for (const Slot& slot : slots_) {
    for (std::size_t k = 0; k < slot.arrays.size(); ++k) {
      const StateArray& array = slot.rule->arrays[k];
      reader.read(format_text("optimizer.{}.{}", slot.name, array.name), {slot.arrays[k], array.size(slot.n)});
    }
  }
  steps_ = steps;
}

}  // namespace

std::vector<std::string_view> optimizer_names() {
  std::vector<std::string_view> names;
  for (const Kind& kind : kKinds) names.push_back(kind.name);
  return names;
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerSpec& spec, std::uint64_t memory_limit) {
  return std::make_unique<RuleOptimizer>(spec, memory_limit);
}

std::uint64_t optimizer_state_bytes(const OptimizerSpec& spec, std::span<const std::int64_t> sizes) {
  const Kind& kind = find_kind(spec.kind);
  std::uint64_t bytes = 0;
  for (const std::int64_t n : sizes) bytes = checked_add(bytes, state_bytes_of(kind.rule(n), n));
  return bytes;
}

}  // namespace nibble::train
