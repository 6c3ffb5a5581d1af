#include "tune/block_tuner.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "train/decoder_graph.h"
#include "train/schedule.h"
#include "tune/rounded_weights.h"

namespace nibble::tune {

using train::Parameter;
using train::Sequences;
using train::Tape;
using train::Var;

namespace {

constexpr int kLooks = 10;  // at the held-out error, over all iterations

class Tuner {
 public:
  Tuner(ExecContext& context, const model::ModelSource& source, int layer, const BlockStates& states,
        const BlockTuning& options)
      : context_(context),
        layer_(layer),
        states_(states),
        options_(options),
        graph_(source.spec()),
        plain_(source, layer),
        weights_(plain_),
        tape_(context, options.isa, options.precision),
        hidden_(source.spec().hidden) {
    if (states_.n_held_out == 0) {  // of few sequences none is held out
      states_.n_held_out = states_.n_train;
      states_.held_out_inputs = states_.inputs;
      states_.held_out_targets = states_.targets;
    }
  }

  void train_rounded(std::vector<BlockTensor> tensors) {
    plain_.freeze_all();
    for (BlockTensor& tensor : tensors) {
      const std::string& name = plain_.spec().weights[tensor.slot].hf_name;
      std::vector<float> from = std::move(tensor.original);
      if (options_.keep_codes) from = RoundedTensor(name, tensor.start, {}, {}).into_cells(std::move(from));
      auto rounded = std::make_unique<RoundedTensor>(name, tensor.start, std::move(from), options_.trained);
      slots_.push_back(tensor.slot);
      add_parameters(weights_.round(tensor.slot, std::move(rounded), tensor.start.inputs));
    }
  }
  void train_plain(const std::vector<std::size_t>& slots) {
    slots_ = slots;
    for (std::size_t slot = 0; slot < plain_.size(); ++slot) {
      if (!plain_.has(slot)) continue;
      if (std::ranges::find(slots, slot) == slots.end()) {
        plain_.freeze(slot);
        continue;
      }
      Parameter& parameter = plain_.at(slot);
      double sum = 0;
      for (std::int64_t i = 0; i < parameter.size(); ++i)
        sum += std::pow(static_cast<double>(parameter.values()[i]), 2);
      parameter.lr_scale = options_.lr_plain * std::sqrt(sum / static_cast<double>(parameter.size()));
      parameters_.push_back(&parameter);
    }
  }

  // With the optimizer of that name.
  TunedBlock run(const std::string& optimizer_name, int iterations) {
    const auto start = std::chrono::steady_clock::now();
    TunedBlock result;
    result.before = result.after = relative_error();
    train::OptimizerSpec spec;
    spec.kind = optimizer_name;
    spec.lr = 1;
    spec.weight_decay = options_.weight_decay;
    const auto optimizer = train::make_optimizer(spec);
    const auto schedule = train::make_schedule(options_.schedule, iterations, 0, options_.final_fraction);
    const int look_every = std::max(1, iterations / kLooks);
    for (int i = 0; i < iterations; ++i) {
      context_.check_cancelled();
      take_gradient(i);
      optimizer->step(context_, parameters_, schedule.factor(i));
      weights_.hold();
      if ((i + 1) % look_every != 0 && i + 1 != iterations) continue;
      const double error = relative_error();
      if (!(error < result.after)) continue;
      result.after = error;
      result.best_iteration = i + 1;
      result.tensors = packed();
      if (options_.search_again) result.unrounded = unrounded();
    }
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
  }
  double relative_error() { return held_out_error() / square(states_.held_out_targets, states_.n_held_out); }

 private:
  void add_parameters(RoundedTensor& tensor) {
    const double step = tensor.mean_step(), weight_unit = options_.absolute ? 1 : step;
    const double scale_unit = options_.absolute && step > 0 ? 1 / step : 1;
    const std::pair<Parameter*, double> all[] = {{tensor.weights(), options_.lr_weights * weight_unit},
                                                 {tensor.scales(), options_.lr_scales * scale_unit},
                                                 {tensor.zeros(), options_.lr_zeros},
                                                 {tensor.offsets(), options_.lr_offsets * tensor.offset_step()}};
    for (const auto& [parameter, lr] : all) {
      if (parameter == nullptr) continue;
      parameter->lr_scale = lr;
      parameters_.push_back(parameter);
    }
  }

  // Of some sequences, drawn anew for every iteration.
  void take_gradient(int iteration) {
    const std::int64_t n = std::min(options_.batch_sequences, states_.n_train), run = states_.length * hidden_;
    std::vector<float> inputs(static_cast<std::size_t>(n * run)), targets(inputs.size());
    for (std::int64_t i = 0; i < n; ++i) {
      const std::uint64_t draw =
          random_bits(options_.seed, static_cast<std::uint64_t>(iteration), static_cast<std::uint64_t>(i));
      const auto at = static_cast<std::int64_t>(draw % static_cast<std::uint64_t>(states_.n_train));
      std::copy_n(states_.inputs + at * run, run, inputs.begin() + i * run);
      std::copy_n(states_.targets + at * run, run, targets.begin() + i * run);
    }
    for (Parameter* parameter : parameters_) parameter->zero_gradient();
    const Sequences sequences = {n, states_.length};
    const Var x = tape_.constant(sequences.rows(), hidden_, inputs.data());
    const Var y = graph_.block(tape_, weights_, layer_, x, sequences);
    tape_.backward(train::squared_error(tape_, y, targets.data(), 1 / static_cast<double>(n * run), options_.left_out));
    tape_.clear();
  }

  double square(const float* states, std::int64_t n) const {
    double sum = 0;
    for (std::int64_t i = 0; i < n * states_.length * hidden_; ++i)
      sum += static_cast<double>(states[i]) * static_cast<double>(states[i]);
    return sum;
  }

  double held_out_error() {
    double sum = 0;
    const std::int64_t run = states_.length * hidden_;
    for (std::int64_t begin = 0; begin < states_.n_held_out; begin += options_.batch_sequences) {
      const Sequences sequences = {std::min(options_.batch_sequences, states_.n_held_out - begin), states_.length};
      const std::unique_ptr<Tape<float>> tape = tape_.nested();
      const Var x = tape->constant(sequences.rows(), hidden_, states_.held_out_inputs + begin * run);
      const Var y = graph_.block(*tape, weights_, layer_, x, sequences);
      sum +=
          static_cast<double>(*tape->value(train::squared_error(*tape, y, states_.held_out_targets + begin * run, 1)));
    }
    return sum;
  }

  std::vector<Tensor> packed() const {
    std::vector<Tensor> out;
    for (const std::size_t slot : slots_) {
      const auto rounded = weights_.rounded().find(slot);
      out.push_back(rounded != weights_.rounded().end()
                        ? rounded->second.tensor->pack()
                        : train::as_f32(plain_.at(slot), plain_.spec().weights[slot].shape));
    }
    return out;
  }
  std::vector<Tensor> unrounded() const {
    std::vector<Tensor> out;
    for (const std::size_t slot : slots_) {
      const RoundedTensor& tensor = *weights_.rounded().at(slot).tensor;
      out.push_back(tensor.has_blocks() ? tensor.unrounded() : Tensor());
    }
    return out;
  }

  ExecContext& context_;
  int layer_;
  BlockStates states_;
  BlockTuning options_;
  train::DecoderGraph<float> graph_;
  train::ModelParameters<float> plain_;
  RoundedWeights weights_;
  Tape<float> tape_;
  std::int64_t hidden_;
  std::vector<std::size_t> slots_;
  std::vector<Parameter*> parameters_;
};

}  // namespace

TunedBlock tune_block(ExecContext& context, const model::ModelSource& source, int layer, const BlockStates& states,
                      std::vector<BlockTensor> tensors, const BlockTuning& options) {
  Tuner tuner(context, source, layer, states, options);
  tuner.train_rounded(std::move(tensors));
  return tuner.run(options.optimizer, options.iterations);
}

TunedBlock absorb_error(ExecContext& context, const model::ModelSource& source, int layer, const BlockStates& states,
                        const std::vector<std::size_t>& slots, const BlockTuning& options) {
  Tuner tuner(context, source, layer, states, options);
  tuner.train_plain(slots);
  return tuner.run("adamw", options.absorb_iterations);
}

double block_error(ExecContext& context, const model::ModelSource& source, int layer, const BlockStates& states,
                   const BlockTuning& options) {
  return Tuner(context, source, layer, states, options).relative_error();
}

}  // namespace nibble::tune
