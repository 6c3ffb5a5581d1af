#include "pipeline/corridor.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "base/atomic_file.h"
#include "base/atomic_folder.h"
#include "base/error.h"
#include "calib/imatrix.h"
#include "calib/observers.h"
#include "encoding/activation.h"
#include "pipeline/adapters.h"
#include "pipeline/cache_scheme.h"
#include "pipeline/calibrated.h"
#include "pipeline/hf_folder.h"
#include "pipeline/importance.h"
#include "pipeline/output_form.h"
#include "pipeline/transforms.h"
#include "tune/tuning_method.h"

namespace nibble::pipeline {

namespace {

namespace fs = std::filesystem;

template <typename T>
T parse_choice(std::string_view option, const std::string& text,
               std::span<const std::pair<std::string_view, T>> choices) {
  std::string known;
  for (const auto& [name, value] : choices) {
    if (name == text) return value;
    known += format_text("{}{}", known.empty() ? "" : ", ", name);
  }
  fail(ErrorCode::kInvalidArgument, "unknown {} '{}'; one of: {}", option, text, known);
}

bool learns(const QuantizeRequest& request) { return !request.calib.empty() || !request.calib_stats.empty(); }

// A recipe made for an importance matrix gives poor text without one; who names a method that looks at none means it.
void check_imatrix(const Recipe& recipe, const QuantizeRequest& request) {
  if (!recipe.needs_imatrix || !request.imatrix.empty() || learns(request) || request.method == "rtn") return;
  fail(ErrorCode::kInvalidArgument,
       "'{}' needs an importance matrix: make one with 'nibble imatrix {} --text TEXT -o FILE' and give it with "
       "--imatrix FILE, give a text with --calib TEXT, or round plainly with --method rtn",
       recipe.name, request.input);
}

TensorReport report_tensor(const TensorPlan& plan) {
  TensorReport report;
  report.name = plan.tensor.name;
  report.hf_name = plan.tensor.hf_name;
  const auto dims = plan.tensor.shape.dims();
  report.shape.assign(dims.begin(), dims.end());
  report.source_type = plan.source->name;
  report.type = plan.target->name;
  report.method = plan.method != nullptr                       ? std::string(plan.method->name)
                  : plan.source == plan.target                 ? "copy"
                  : plan.repacking != encoding::Repacking::kNo ? "repack"
                                                               : "cast";
  report.note = plan.note;
  report.bytes = plan.bytes;
  return report;
}

void add_outcomes(QuantizeReport& report, const std::vector<TensorOutcome>& outcomes) {
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    TensorReport& tensor = report.tensors[i];
    tensor.relative_mse = outcomes[i].errors.relative_mse();
    tensor.snr_db = outcomes[i].errors.snr_db();
    tensor.cosine = outcomes[i].errors.cosine();
    tensor.seconds = outcomes[i].cpu_s;
  }
}

std::vector<container::PlannedTensor> planned_tensors(const QuantPlan& plan) {
  std::vector<container::PlannedTensor> tensors;
  for (const TensorPlan& tensor : plan.tensors)
    tensors.push_back({tensor.tensor.name, tensor.target, tensor.tensor.shape, tensor.inputs});
  return tensors;
}

}  // namespace

// awq's second half is a search of ranges.
std::string range_of(const QuantizeRequest& request) {
  if (!request.range.empty()) return request.range;
  return std::ranges::find(request.transforms, "awq") != request.transforms.end() && request.method == "rtn" ? "output"
                                                                                                             : "minmax";
}

method::Options method_options(const QuantizeRequest& request) {
  static constexpr std::array<std::pair<std::string_view, method::Rounding>, 4> kRoundings = {{
      {"nearest", method::Rounding::kNearest},
      {"stochastic", method::Rounding::kStochastic},
      {"floor", method::Rounding::kFloor},
      {"ceil", method::Rounding::kCeil},
  }};
  static constexpr std::array<std::pair<std::string_view, method::RangeRule>, 3> kRanges = {{
      {"minmax", method::RangeRule::kMinMax},
      {"mse", method::RangeRule::kMse},
      {"output", method::RangeRule::kOutput},
  }};
  method::Options options;
  options.rounding = parse_choice<method::Rounding>("rounding", request.rounding, kRoundings);
  options.range = parse_choice<method::RangeRule>("range", range_of(request), kRanges);
  options.seed = request.seed;
  if (request.effort >= 0) options.effort = request.effort;
  options.correction = request.correction;
  options.pull_back = request.pull_back;
  options.act_order = request.act_order;
  options.damping = request.damping;
  options.isa = best_isa();
  return options;
}

namespace {

constexpr int kTuningEffort = 10;  // from here on solvers are followed by the tuning of the block

}  // namespace

const tune::TuningMethod* chosen_tuning(const QuantizeRequest& request) {
  if (const tune::TuningMethod* method = tune::find_tuning_method(request.method)) return method;
  return request.effort >= kTuningEffort ? tune::find_tuning_method("autoround") : nullptr;
}

const method::Method* chosen_method(const QuantizeRequest& request) {
  choose_transforms(request.transforms, !request.calib.empty());  // throws
  if (request.method.empty()) return learns(request) ? &method::get("gptq") : nullptr;
  const tune::TuningMethod* tuning = tune::find_tuning_method(request.method);
  const method::Method& method = method::get(tuning != nullptr ? tuning->start : request.method);
  if (method::asks_for_gram(method, method_options(request)) && !learns(request))
    fail(ErrorCode::kInvalidArgument, "method '{}' learns from a text: give one with --calib TEXT", request.method);
  return &method;
}

Rewrite chosen_rewrite(const QuantizeRequest& request) {
  const Transforms transforms = choose_transforms(request.transforms, !request.calib.empty());
  const Rewrite merge = merging(request.adapters);
  if (transforms.of_model.empty()) return merge;
  if (!request.imatrix.empty() || !request.calib_stats.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "what was learned from a text is of the model as it was, not of one that transform '{}' rewrites: write that "
         "with --type f32, and quantize it in a second step",
         transforms.of_model[0].transform->name);
  }
  return [merge, transforms, seed = request.seed](std::shared_ptr<const model::ModelSource> source) {
    return transforms.rewrite(merge ? merge(std::move(source)) : std::move(source), seed);
  };
}

void check_output(const fs::path& output, const Conversion& conversion) {
  if (output.empty()) fail(ErrorCode::kInvalidArgument, "no output was named");
  std::error_code error;
  for (const fs::path& file : conversion.reader().files()) {
    if (fs::exists(output, error) && fs::equivalent(file, output, error)) {
      fail(ErrorCode::kInvalidArgument, "'{}' is the input; it cannot be the output too", output.string());
    }
  }
}

std::vector<PlanInput> plan_inputs(const Conversion& conversion) {
  std::vector<PlanInput> inputs;
  for (const SourceTensor& tensor : conversion.tensors)
    inputs.push_back({tensor.tensor, &tensor.source_type(), tensor.kept_as, tensor.stored_views()});
  return inputs;
}

void note_requantized(const QuantPlan& plan, std::vector<std::string>& notes) {
  std::size_t count = 0;
  std::string_view type;
  for (const TensorPlan& tensor : plan.tensors) {
    if (tensor.source->family == encoding::Family::kPlain || tensor.source == tensor.target) continue;
    if (tensor.method == nullptr) continue;  // cast or moved
    if (count++ == 0) type = tensor.source->name;
  }
  if (count > 0) {
    notes.push_back(
        format_text("{} tensors of the input are quantized already ({}); quantizing again adds to the error they have",
                    count, type));
  }
}

QuantizeReport report_plan(const Conversion& conversion, const QuantPlan& plan) {
  QuantizeReport report;
  report.input = conversion.reader().path().string();
  report.recipe = plan.recipe;
  report.architecture = conversion.facts.arch;
  report.parameters = plan.parameters();
  report.input_bytes = conversion.reader().file_bytes();
  report.tensor_bytes = plan.bytes();
  report.bits_per_weight = plan.bits_per_weight();
  report.fallbacks = plan.fallbacks();
  report.notes = conversion.notes;
  for (const TensorPlan& tensor : plan.tensors) report.tensors.push_back(report_tensor(tensor));
  return report;
}

void Corridor::set_quantization_keys() {
  conversion.metadata.set("general.file_type", plan.file_type);
  conversion.metadata.set("general.quantization_version", kQuantizationVersion);
}

std::uint64_t Corridor::gguf_bytes() {
  set_quantization_keys();
  return container::gguf_bytes(conversion.metadata, planned_tensors(plan));
}

std::vector<TensorOutcome> Corridor::transfer_all(ExecContext& context, container::CheckpointWriter& writer) {
  if (calibration) {
    auto outcomes =
        transfer_calibrated(context, conversion, plan, options, blockwise, *calibration, writer, report.phases);
    for (std::size_t i = 0; i < plan.tensors.size(); ++i) report.tensors[i].note = plan.tensors[i].note;
    return outcomes;
  }
  if (rewrite_weights) {
    const auto source = conversion.model->exchangeable();
    rewrite_weights(context, source);
    conversion.model = source;
    for (SourceTensor& tensor : conversion.tensors) {
      if (tensor.slot != SourceTensor::kNoSlot && tensor.shares.empty()) conversion.take_again(tensor);
    }
  }
  std::vector<TensorOutcome> outcomes(plan.tensors.size());
  std::vector<std::size_t> all(plan.tensors.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  transfer(context, conversion, plan, options, all, writer, outcomes);
  return outcomes;
}

void Corridor::write_gguf(ExecContext& context, const fs::path& output) {
  refuse_online_rotation(conversion, nullptr);
  set_quantization_keys();
  const auto writer = container::create_gguf(output, conversion.metadata, planned_tensors(plan));
  const std::vector<TensorOutcome> outcomes = transfer_all(context, *writer);
  context.check_cancelled();
  report.file_bytes = writer->file_bytes();
  writer->commit();
  verify_output(*container::open(output), plan, outcomes);
  add_outcomes(report, outcomes);
}

void Corridor::write_hf(ExecContext& context, const fs::path& output, std::uint64_t shard_size,
                        const container::hf::Format* format) {
  refuse_online_rotation(conversion, format);
  AtomicFolder folder(output);
  const encoding::EncodingInfo& plain = *conversion.tensors.front().kept_as;
  json::Value config;
  if (format != nullptr) {
    container::hf::QuantizedWeights weights = quantized_weights(conversion, plan);
    weights.cache = blockwise.cache;
    config = format->config(weights);
  }
  write_hf_files(*conversion.model, plain, config, folder.staging());
  if (format != nullptr && !format->copy_of_config.empty())
    write_file_atomically(folder.staging() / format->copy_of_config, json::dump(config) + "\n");
  std::vector<container::PlannedTensor> tensors = planned_tensors(plan);
  if (blockwise.cache != nullptr)
    std::ranges::move(plan_cache_scales(conversion.model->spec(), plain), std::back_inserter(tensors));
  const auto writer =
      format != nullptr
          ? container::hf::create_quantized(folder.staging(), conversion.metadata, tensors, *format, shard_size)
          : container::create_hf_weights(folder.staging(), conversion.metadata, tensors, shard_size);
  const std::vector<TensorOutcome> outcomes = transfer_all(context, *writer);
  if (blockwise.cache != nullptr) write_cache_scales(conversion.model->spec(), plain, plan.tensors.size(), *writer);
  context.check_cancelled();
  report.file_bytes = writer->file_bytes();
  writer->commit();
  verify_output(*container::open(folder.staging()), plan, outcomes, tensors.size() - plan.tensors.size());
  folder.commit();
  add_outcomes(report, outcomes);
}

void set_calibration(const QuantizeRequest& request, Corridor& corridor) {
  for (std::size_t i = 0; i < corridor.plan.tensors.size(); ++i) {
    const TensorPlan& tensor = corridor.plan.tensors[i];
    const model::StoredRows& stored = corridor.conversion.tensors[i].stored;
    const bool has_scale = stored.view.inputs.activation == tensor.inputs && tensor.source == tensor.target;
    if (tensor.inputs != nullptr && tensor.inputs->is_static() && request.calib.empty() && !has_scale)
      fail(ErrorCode::kInvalidArgument,
           "type '{}' fixes the scales of inputs, which are learned from a text: give one "
           "with --calib TEXT",
           corridor.plan.recipe);
    if (tensor.target->family == encoding::Family::kAffine && tensor.target->affine.kept > 0 && request.calib.empty())
      fail(ErrorCode::kInvalidArgument,
           "type '{}' keeps columns, which are found in a text: give one with --calib TEXT", corridor.plan.recipe);
  }
  if (!learns(request)) return;
  if (request.calib.empty() && chosen_tuning(request) != nullptr)
    fail(ErrorCode::kInvalidArgument, "blocks are tuned on a text: give one with --calib TEXT");
  if (!request.calib.empty() && !request.calib_stats.empty())
    fail(ErrorCode::kInvalidArgument, "give a calibration text or statistics, not both");
  settle_methods(corridor.conversion, corridor.plan);
  corridor.blockwise.method = corridor.options.method;
  const auto observer = [&](std::string_view usual) {
    return &calib::get_observer(request.observer.empty() ? usual : request.observer);
  };
  corridor.blockwise.observer = observer("mse");
  corridor.blockwise.cache_observer = observer("minmax");
  corridor.blockwise.cache = chosen_cache(request);
  std::string dataset;
  std::int64_t tokens = 0;
  if (!request.calib_stats.empty()) {
    const auto statistics = std::make_shared<const calib::StatisticsFile>(request.calib_stats);
    calib::check_source(*statistics, *corridor.conversion.model);
    for (const calib::StatisticsText& text : statistics->header().texts)
      dataset += (dataset.empty() ? "" : ", ") + text.name;
    tokens = statistics->header().tokens();
    corridor.conversion.notes.push_back(
        format_text("statistics of {} tokens ({}) from {}; nothing is corrected for layers quantized before", tokens,
                    dataset, request.calib_stats));
    corridor.blockwise.statistics = statistics;
    corridor.calibration.emplace();
  } else {
    corridor.calibration =
        calibration_chunks(*corridor.conversion.model, {request.calib, request.calib_tokens, request.calib_context});
    corridor.blockwise.cross = request.correction > 0;
    corridor.blockwise.transforms = choose_transforms(request.transforms, true).of_blocks;
    if (const tune::TuningMethod* tuning = chosen_tuning(request))
      corridor.blockwise.tuning = tune::tuning_here(*tuning, request.seed);
    const calib::TokenChunks& chunks = *corridor.calibration;
    dataset = fs::path(request.calib).filename().string();
    tokens = chunks.n_chunks * chunks.context;
    corridor.conversion.notes.push_back(
        format_text("calibrated on {} sequences of {} tokens", chunks.n_chunks, chunks.context));
  }
  if (!corridor.conversion.to_gguf) return;
  container::Metadata& metadata = corridor.conversion.metadata;
  metadata.set("quantize.calibration.dataset", dataset);
  metadata.set("quantize.calibration.tokens", static_cast<std::uint32_t>(std::min<std::int64_t>(tokens, UINT32_MAX)));
}

Corridor prepare_gguf(const QuantizeRequest& request, const Recipe& recipe) {
  if (!request.imatrix.empty() && learns(request))
    fail(ErrorCode::kInvalidArgument, "give an importance matrix or a calibration text, not both");
  check_imatrix(recipe, request);
  PlanOptions options;
  options.method = chosen_method(request);
  for (const std::string& text : request.overrides) options.overrides.push_back(parse_override(text));
  options.pure = request.pure;

  Corridor corridor;
  corridor.options.method = method_options(request);
  corridor.conversion = describe_for_gguf(request.input, chosen_rewrite(request));
  if (!request.dry_run || !request.output.empty()) check_output(request.output, corridor.conversion);
  corridor.conversion.facts.has_imatrix = !request.imatrix.empty() || learns(request);
  corridor.plan = make_plan(recipe, corridor.conversion.facts, plan_inputs(corridor.conversion), options);
  note_requantized(corridor.plan, corridor.conversion.notes);
  if (!request.imatrix.empty()) {
    const calib::Imatrix imatrix = calib::load_imatrix(request.imatrix);
    corridor.options.importance = importance_of(imatrix, corridor.plan, corridor.conversion.notes);
    set_imatrix_keys(imatrix, request.imatrix, corridor.conversion.metadata);
  }
  set_calibration(request, corridor);
  corridor.report = report_plan(corridor.conversion, corridor.plan);
  return corridor;
}

}  // namespace nibble::pipeline
