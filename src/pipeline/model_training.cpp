#include "pipeline/model_training.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/format.h"
#include "linalg/gemm.h"
#include "nibble/memory_plan.h"
#include "pipeline/blockwise.h"
#include "pipeline/slot_solver.h"
#include "train/lora_weights.h"
#include "train/whole_model.h"
#include "tune/rounded_weights.h"
#include "tune/tuning_method.h"

namespace nibble::pipeline {

namespace {

using model::ModelSource;
using train::ModelParameters;
using train::Parameter;
using transform::SlotTarget;

constexpr int kLooks = 10;                 // at what is held out, where the request does not say
constexpr std::int64_t kMostHeldOut = 64;  // sequences that are looked at
constexpr double kLrPlain = 2e-4, kLrQat = 1e-4, kLrScales = 1e-3, kLrLora = 1e-3;
constexpr double kScaleShare = 0.1;   // of the learning rate of weights, that their scales move with
constexpr double kMatrixShare = 0.1;  // of that of scales as multiples, that plain matrices move with

std::int64_t steps_of(const TrainingJob& job) {
  if (job.request.steps > 0) return job.request.steps;
  const std::int64_t per_step = job.request.sequences * job.request.accumulate;
  return std::max<std::int64_t>(1, (std::ssize(job.data.examples) + per_step - 1) / per_step);
}

std::span<const train::Example> looked_at(const TrainingData& data) {
  return std::span(data.held_out).first(std::min<std::size_t>(data.held_out.size(), kMostHeldOut));
}

// "auto" is as near f32 as makes no difference, of adapters the 16 bits that QLoRA computes in.
linalg::Precision precision_of(const TrainRequest& request) {
  const Isa isa = best_isa();
  const bool narrow = request.precision == "auto" && !request.lora.empty() && linalg::has_bf16_products(isa);
  return linalg::parse_precision(narrow ? "bf16" : request.precision, isa);
}

void note_parameters(const TrainingJob& job, const std::vector<Parameter*>& parameters, TrainReport& report) {
  for (const Parameter* parameter : parameters) report.parameters += parameter->size();
  report.precision = linalg::precision_name(precision_of(job.request));
}

void exchange_trained(ModelSource& source, const ModelParameters<float>& weights,
                      const std::vector<std::size_t>& slots) {
  for (const std::size_t slot : slots)
    source.exchange(slot, train::as_f32(weights.at(slot), source.spec().weights[slot].shape));
}

// Slots whose parameters are trained.
std::vector<std::size_t> trained_slots(ModelParameters<float>& weights) {
  std::vector<std::size_t> slots;
  for (std::size_t slot = 0; slot < weights.size(); ++slot) {
    if (weights.has(slot) && weights.at(slot).gradient.size() > 0) slots.push_back(slot);
  }
  return slots;
}

// Weights that are trained as they will be rounded.
class RoundedModel : public train::WholeModel {
 public:
  RoundedModel(ExecContext& context, const model::ModelSpec& spec, tune::RoundedWeights& weights,
               std::vector<Parameter*> parameters, train::GraphWeights<float>* teacher,
               const train::WholeModelOptions& options)
      : WholeModel(context, spec, weights, std::move(parameters), teacher, options), rounded_(weights) {}
  void after_step() override { rounded_.hold(); }

 private:
  tune::RoundedWeights& rounded_;
};

train::WholeModelOptions model_options(const TrainRequest& request, double teacher_share) {
  train::WholeModelOptions options;
  options.checkpoint = request.checkpoint;
  options.teacher_share = teacher_share;
  options.isa = best_isa();
  options.precision = precision_of(request);
  return options;
}

const tune::TuningMethod* block_tuning(const TrainRequest& request) {
  if (request.efficientqat.empty()) return nullptr;
  if (request.preset == "paper") return tune::find_tuning_method("block-ap-paper");
  if (request.preset == "auto") return tune::find_tuning_method("block-ap");
  fail(ErrorCode::kInvalidArgument, "unknown preset '{}'; one of: auto, paper", request.preset);
}

// Every weight with a target in its type: those of blocks and the head by what flows into them, others alone.
void quantize_first(ExecContext& context, const std::shared_ptr<ModelSource>& source, std::vector<SlotTarget> targets,
                    const TrainingJob& job, TrainReport& report) {
  const tune::TuningMethod* tuning = block_tuning(job.request);
  BlockwiseOptions options;
  options.method.isa = best_isa();
  options.method.seed = job.request.seed;
  options.observer = &calib::get_observer("mse");
  options.cross = true;
  if (tuning != nullptr) options.tuning = tune::tuning_here(*tuning, job.request.seed);
  for (SlotTarget& target : targets) {
    if (target.target == nullptr) continue;
    const method::Method& method = method::get(tuning != nullptr ? tuning->start : "gptq");
    target.method = method.supports(*target.target) ? &method : &method::default_for(*target.target);
  }
  PhaseSeconds spent;
  const std::vector<SlotOutcome> outcomes = quantize_blockwise(
      context, source, chunks_of(job.data, job.request.block_tokens), targets, options, [](int) {}, spent);
  const SlotSolver solver{context, *source, options.method};
  for (std::size_t slot = 0; slot < targets.size(); ++slot) {
    if (targets[slot].target == nullptr || source->weight(slot).view.encoding == targets[slot].target) continue;
    SlotTarget alone = targets[slot];
    alone.method = &method::default_for(*alone.target);
    source->exchange(slot, solver.solve_alone(slot, alone));
  }
  report.written.phases = spent;
  if (tuning == nullptr) return;
  for (std::size_t slot = 0; slot < outcomes.size(); ++slot) {
    // The note of a block stands at each of its weights.
    const model::WeightSlot& weight = source->spec().weights[slot];
    if (weight.role == model::Role::kFfnDown && !outcomes[slot].note.empty())
      report.notes.push_back(format_text("block {}: {}", weight.layer, outcomes[slot].note));
  }
}

}  // namespace

train::TrainerOptions trainer_options(const TrainingJob& job, double lr) {
  const TrainRequest& request = job.request;
  train::TrainerOptions options;
  options.steps = steps_of(job);
  options.accumulate = request.accumulate;
  options.optimizer.kind = request.optimizer;
  options.optimizer.lr = request.lr >= 0 ? request.lr : lr;
  options.optimizer.beta2 = request.beta2;
  options.optimizer.weight_decay = request.weight_decay;
  options.schedule = request.schedule;
  options.warmup_steps = request.warmup >= 0 ? request.warmup : options.steps / 20;
  options.clip = request.clip;
  options.seed = request.seed;
  options.evaluate_every =
      request.evaluate_every > 0 ? request.evaluate_every : std::max<std::int64_t>(1, options.steps / kLooks);
  options.save_every = request.save_every;
  if (!request.optimizer_memory.empty()) options.state_memory_limit = parse_memory(request.optimizer_memory);
  options.folder = job.folder;
  options.resume = request.resume;
  json::Value settings;
  settings.set("input", request.input);
  settings.set("qat", request.qat);
  settings.set("efficientqat", request.efficientqat);
  settings.set("lora", request.lora);
  settings.set("preset", request.preset);
  settings.set("distill", request.distill);
  settings.set("block_tokens", static_cast<double>(request.block_tokens));
  settings.set("examples", static_cast<double>(job.data.examples.size()));
  settings.set("context", static_cast<double>(job.data.context));
  settings.set("sequences", static_cast<double>(request.sequences));
  settings.set("precision", std::string(linalg::precision_name(precision_of(request))));
  options.settings = settings.as_object();
  return options;
}

train::BatchOptions batch_options(const TrainRequest& request) {
  train::BatchOptions options;
  options.n_sequences = request.sequences;
  options.seed = request.seed;
  return options;
}

train::TrainedRun train_plainly(ExecContext& context, const std::shared_ptr<ModelSource>& source,
                                const TrainingJob& job, TrainReport& report) {
  std::unique_ptr<ModelParameters<float>> teacher;
  const double share = std::max(0.0, job.request.distill);
  if (share > 0) {
    teacher = std::make_unique<ModelParameters<float>>(*source);
    teacher->freeze_all();
  }
  auto weights = job.request.from_scratch ? std::make_unique<ModelParameters<float>>(source->spec(), job.request.seed)
                                          : std::make_unique<ModelParameters<float>>(*source);
  train::WholeModel model(context, source->spec(), *weights, weights->trained(), teacher.get(),
                          model_options(job.request, share));
  note_parameters(job, model.parameters(), report);
  const train::TrainerOptions options = trainer_options(job, kLrPlain);
  report.lr = options.optimizer.lr;
  const train::TrainedRun run =
      train::train(context, model, job.data.examples, batch_options(job.request), looked_at(job.data), options);
  exchange_trained(*source, *weights, trained_slots(*weights));
  return run;
}

train::TrainedRun train_quantized(ExecContext& context, const std::shared_ptr<ModelSource>& source,
                                  const std::vector<SlotTarget>& targets, const TrainingJob& job, TrainReport& report) {
  const bool scales_alone = !job.request.efficientqat.empty();
  const bool as_published = scales_alone && job.request.preset == "paper";
  const std::shared_ptr<const ModelSource> original = source->exchangeable();
  quantize_first(context, source, targets, job, report);

  const double share = job.request.distill >= 0 ? job.request.distill : 1;
  std::unique_ptr<ModelParameters<float>> teacher;
  if (share > 0) {
    teacher = std::make_unique<ModelParameters<float>>(*original);
    teacher->freeze_all();
  }
  ModelParameters<float> plain(*source);
  tune::RoundedWeights weights(plain);
  std::vector<Parameter*> parameters;
  const train::TrainerOptions options = trainer_options(job, scales_alone ? kLrScales : kLrQat);
  const tune::Trained trained = {.weights = !scales_alone, .scales = true};
  for (std::size_t slot = 0; slot < targets.size(); ++slot) {
    // What stays in 16 bits goes along with the scales, as the paper does not have it: norms, biases, embedding, head.
    const model::WeightSlot& weight = source->spec().weights[slot];
    const bool matrix = model::is_matrix(weight.role) && !weight.bias;
    if (scales_alone && matrix) plain.at(slot).lr_scale = kMatrixShare;
    if (as_published || targets[slot].target != nullptr) plain.freeze(slot);
    if (targets[slot].target == nullptr || !tune::RoundedTensor::supports(*targets[slot].target)) continue;
    const TensorView& start = source->weight(slot).view;
    const std::string& name = source->spec().weights[slot].hf_name;
    std::vector<float> from;
    if (!scales_alone) from = tune::RoundedTensor(name, start, {}, {}).into_cells(numbers_of(*original, slot));
    tune::RoundedTensor& tensor =
        weights.round(slot, std::make_unique<tune::RoundedTensor>(name, start, std::move(from), trained), start.inputs);
    if (Parameter* parameter = tensor.weights()) parameters.push_back(parameter);
    Parameter* scales = tensor.scales();
    const double step = tensor.mean_step();
    if (!scales_alone && step > 0) scales->lr_scale = kScaleShare / step;
    parameters.push_back(scales);
  }
  const std::vector<std::size_t> plain_slots = trained_slots(plain);
  for (const std::size_t slot : plain_slots) parameters.push_back(&plain.at(slot));
  RoundedModel model(context, source->spec(), weights, parameters, teacher.get(), model_options(job.request, share));
  note_parameters(job, parameters, report);
  report.lr = options.optimizer.lr;
  const train::TrainedRun run =
      train::train(context, model, job.data.examples, batch_options(job.request), looked_at(job.data), options);
  exchange_trained(*source, plain, plain_slots);
  for (const auto& [slot, rounded] : weights.rounded()) source->exchange(slot, rounded.tensor->pack());
  return run;
}

namespace {

// Of a model whose weights in f32 take more than this, each is decoded when it is used.
constexpr std::uint64_t kDecodedBytes = std::uint64_t{2} << 30;

class LoraModel : public train::WholeModel {
 public:
  LoraModel(ExecContext& context, const model::ModelSpec& spec, train::LoraWeights& weights,
            const train::WholeModelOptions& options)
      : WholeModel(context, spec, weights, weights.parameters(), nullptr, options), lora_(weights) {}
  train::LossSums add_gradients(const train::TokenBatch& batch, double divisor, std::uint64_t pass) override {
    lora_.begin_pass(pass);
    const train::LossSums sums = WholeModel::add_gradients(batch, divisor, pass);
    lora_.end_pass();
    return sums;
  }

 private:
  train::LoraWeights& lora_;
};

}  // namespace

train::TrainedRun train_lora(ExecContext& context, const std::shared_ptr<const ModelSource>& source,
                             const TrainingJob& job, TrainReport& report) {
  model::refuse_rotated(source->spec());
  const train::LoraSettings settings = train::parse_lora(job.request.lora);
  const bool stored = source->spec().parameters() * sizeof(float) > kDecodedBytes;
  std::unique_ptr<train::GraphWeights<float>> base;
  if (stored) {
    base = std::make_unique<train::StoredWeights>(source);
  } else {
    auto decoded = std::make_unique<ModelParameters<float>>(*source);
    decoded->freeze_all();
    base = std::move(decoded);
  }
  train::LoraWeights weights(*base, source, settings, job.request.seed);
  train::WholeModelOptions model = model_options(job.request, 0);
  model.checkpoint = model.checkpoint || stored;  // decoded weights of one block at a time
  LoraModel trained(context, source->spec(), weights, model);
  note_parameters(job, trained.parameters(), report);
  const train::TrainerOptions options = trainer_options(job, kLrLora);
  report.lr = options.optimizer.lr;
  const train::TrainedRun run =
      train::train(context, trained, job.data.examples, batch_options(job.request), looked_at(job.data), options);
  model::LoraAdapter adapter = weights.adapter();
  adapter.name = std::filesystem::path(job.request.output).stem().string();
  model::save_lora(adapter, *source, job.request.output, job.request.input);
  return run;
}

}  // namespace nibble::pipeline
