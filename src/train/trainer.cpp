#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/format.h"
#include "train/clip.h"
#include "train/loss_curve.h"
#include "train/training_state.h"

namespace nibble::train {

namespace fs = std::filesystem;

namespace {

TokenBatch view_of(const Batch& batch) { return {{batch.n_sequences, batch.length}, batch.tokens, batch.learned}; }

class Run {
 public:
  Run(ExecContext& context, TrainedModel& model, std::span<const Example> examples, const BatchOptions& batches,
      std::span<const Example> held_out, const TrainerOptions& options)
      : context_(context),
        model_(model),
        parameters_(model.parameters()),
        stream_(examples, batches),
        held_out_(held_out),
        sequences_(batches.n_sequences),
        options_(options),
        optimizer_(make_optimizer(options.optimizer, options.state_memory_limit)),
        schedule_(make_schedule(options.schedule, options.steps, options.warmup_steps, options.final_fraction)) {
    if (parameters_.empty()) fail(ErrorCode::kInvalidArgument, "nothing is trained");
  }

  TrainedRun run() {
    const auto start = std::chrono::steady_clock::now();
    if (options_.resume) resume();
    begun_at_ = step_;
    if (!options_.folder.empty()) curve_.emplace(curve_path(options_.folder), step_);
    try {
      take_steps();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kCancelled) save();
      throw;
    }
    result_.steps = step_;
    result_.tokens = tokens_;
    result_.optimizer_bytes = optimizer_->state_bytes();
    result_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    save();
    return result_;
  }

 private:
  void take_steps() {
    ProgressTask progress(context_.progress, "training", static_cast<std::uint64_t>(options_.steps - begun_at_),
                          "steps");
    if (step_ == 0 && options_.evaluate_every > 0 && !held_out_.empty()) result_.held_out_before = look();
    while (step_ < options_.steps) {
      context_.check_cancelled();
      take_step();
      progress.add(1);
      if (options_.save_every > 0 && step_ % options_.save_every == 0 && step_ < options_.steps) save();
    }
    if (!held_out_.empty()) result_.held_out_after = look();
  }

  void take_step() {
    const auto start = std::chrono::steady_clock::now();
    for (Parameter* parameter : parameters_) parameter->zero_gradient();
    std::vector<Batch> batches;
    std::int64_t n_tokens = 0, predictions = 0;
    const StreamPosition before = stream_.position();
    for (std::int64_t i = 0; i < options_.accumulate; ++i) {
      batches.push_back(stream_.next());
      n_tokens += batches.back().n_tokens;
      predictions += batches.back().n_learned;
    }
    LossSums sums;
    std::uint64_t pass = static_cast<std::uint64_t>(step_ * options_.accumulate);
    try {
      for (const Batch& batch : batches) {
        const LossSums part =
            model_.add_gradients(view_of(batch), static_cast<double>(std::max<std::int64_t>(1, predictions)), pass++);
        sums.loss += part.loss;
      }
    } catch (const Error&) {
      stream_.seek(before);  // as if the step had not begun
      throw;
    }
    const double loss = sums.loss / static_cast<double>(std::max<std::int64_t>(1, predictions));
    const Clipped clipped = clip_gradients(context_, parameters_, options_.clip);
    if (!std::isfinite(loss) || !clipped.finite()) {
      stream_.seek(before);
      stop_at_nonsense(loss, clipped.norm);
    }
    const double lr = options_.optimizer.lr * schedule_.factor(step_);
    optimizer_->step(context_, parameters_, lr);
    model_.after_step();
    ++step_;
    tokens_ += n_tokens;
    if (step_ == begun_at_ + 1) result_.first_loss = loss;
    result_.last_loss = loss;
    LossRow row;
    row.step = step_;
    row.tokens = tokens_;
    row.lr = lr;
    row.loss = loss;
    row.gradient_norm = clipped.norm;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    row.tokens_per_s = static_cast<double>(n_tokens) / std::max(1e-9, seconds);
    if (options_.evaluate_every > 0 && step_ % options_.evaluate_every == 0 && !held_out_.empty()) judge(row);
    if (curve_) curve_->append(row);
  }

  void judge(LossRow& row) {
    try {
      row.held_out_loss = look();
    } catch (const Error&) {  // the step is taken all the same
      if (curve_) curve_->append(row);
      throw;
    }
    context_.progress.note(format_text("step {}: loss {:.4f}, held out {:.4f}, {:.0f} tokens/s", step_, row.loss,
                                       *row.held_out_loss, row.tokens_per_s));
  }

  [[noreturn]] void stop_at_nonsense(double loss, double norm) {
    save();
    const std::string kept = options_.folder.empty() ? std::string()
                                                     : format_text("; the state before it is kept in '{}'",
                                                                   state_path(options_.folder).string());
    fail(ErrorCode::kInvalidArgument,
         "step {}: the loss is {} and the norm of the gradient {}; a smaller learning rate than {} may help{}",
         step_ + 1, loss, norm, options_.optimizer.lr, kept);
  }

  double look() { return mean_loss(context_, model_, held_out_, sequences_); }

  json::Object settings() const {
    json::Value all(options_.settings);
    const OptimizerSpec& optimizer = options_.optimizer;
    const std::pair<const char*, double> numbers[] = {{"steps", static_cast<double>(options_.steps)},
                                                      {"accumulate", static_cast<double>(options_.accumulate)},
                                                      {"lr", optimizer.lr},
                                                      {"beta1", optimizer.beta1},
                                                      {"beta2", optimizer.beta2},
                                                      {"weight_decay", optimizer.weight_decay},
                                                      {"warmup_steps", static_cast<double>(options_.warmup_steps)},
                                                      {"final_fraction", options_.final_fraction},
                                                      {"clip", options_.clip}};
    for (const auto& [name, value] : numbers) all.set(name, value);
    all.set("optimizer", optimizer.kind);
    all.set("schedule", options_.schedule);
    return all.as_object();
  }

  void save() {
    if (options_.folder.empty()) return;
    StateWriter writer;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const Parameter& parameter = *parameters_[i];
      writer.add(format_text("parameter.{}.{}", i, parameter.name),
                 std::span<const float>(parameter.values(), static_cast<std::size_t>(parameter.size())));
    }
    optimizer_->save(writer);
    CancelToken never;  // a run that is stopped still saves
    ExecContext on{context_.pool, never, context_.progress};
    writer.write(on, state_path(options_.folder), {step_, stream_.position(), tokens_, options_.seed, settings()});
  }

  void resume() {
    const StateReader reader(context_, state_path(options_.folder));
    reader.check_settings(settings());
    if (reader.run().seed != options_.seed)
      fail(ErrorCode::kInvalidArgument, "'{}' is of a run with seed {}, not {}", reader.path().string(),
           reader.run().seed, options_.seed);
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      Parameter& parameter = *parameters_[i];
      reader.read(format_text("parameter.{}.{}", i, parameter.name),
                  std::span<float>(parameter.values(), static_cast<std::size_t>(parameter.size())));
    }
    step_ = reader.run().step;
    if (step_ > 0) optimizer_->load(reader, parameters_);  // before the first step there is nothing
    stream_.seek(reader.run().position);
    tokens_ = reader.run().tokens;
    result_.resumed = true;
  }

  ExecContext& context_;
  TrainedModel& model_;
  std::vector<Parameter*> parameters_;
  BatchStream stream_;
  std::span<const Example> held_out_;
  std::int64_t sequences_;
  const TrainerOptions& options_;
  std::unique_ptr<Optimizer> optimizer_;
  Schedule schedule_;
  std::optional<LossCurve> curve_;
  std::int64_t step_ = 0, tokens_ = 0;
  std::int64_t begun_at_ = 0;  // steps taken before this run went on
  TrainedRun result_;
};

}  // namespace

fs::path state_path(const fs::path& folder) { return folder / "state.safetensors"; }
fs::path curve_path(const fs::path& folder) { return folder / "loss.csv"; }

double mean_loss(ExecContext& context, TrainedModel& model, std::span<const Example> examples,
                 std::int64_t n_sequences) {
  BatchOptions in_order;
  in_order.n_sequences = n_sequences;
  in_order.shuffle = false;
  BatchStream stream(examples, in_order);
  double sum = 0;
  std::int64_t predictions = 0;
  for (std::int64_t i = 0; i < stream.batches_per_epoch(); ++i) {
    context.check_cancelled();
    const Batch batch = stream.next();
    sum += model.loss(view_of(batch)).loss;
    predictions += batch.n_learned;
  }
  return sum / static_cast<double>(std::max<std::int64_t>(1, predictions));
}

TrainedRun train(ExecContext& context, TrainedModel& model, std::span<const Example> examples,
                 const BatchOptions& batches, std::span<const Example> held_out, const TrainerOptions& options) {
  if (!options.folder.empty()) fs::create_directories(options.folder);
  return Run(context, model, examples, batches, held_out, options).run();
}

}  // namespace nibble::train
