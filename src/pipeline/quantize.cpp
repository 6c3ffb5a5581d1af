// The corridor: open, describe, plan, reserve, transfer, commit, verify.
#include "nibble/quantize.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <numeric>
#include <optional>

#include "base/atomic_file.h"
#include "base/atomic_folder.h"
#include "base/error.h"
#include "calib/imatrix.h"
#include "pipeline/calibrated.h"
#include "pipeline/conversion.h"
#include "pipeline/hf_folder.h"
#include "pipeline/importance.h"
#include "pipeline/output_form.h"
#include "pipeline/transfer.h"

namespace nibble {

namespace {

using namespace pipeline;
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

method::Options method_options(const QuantizeRequest& request) {
  static constexpr std::array<std::pair<std::string_view, method::Rounding>, 4> kRoundings = {{
      {"nearest", method::Rounding::kNearest},
      {"stochastic", method::Rounding::kStochastic},
      {"floor", method::Rounding::kFloor},
      {"ceil", method::Rounding::kCeil},
  }};
  static constexpr std::array<std::pair<std::string_view, method::RangeRule>, 2> kRanges = {{
      {"minmax", method::RangeRule::kMinMax},
      {"mse", method::RangeRule::kMse},
  }};
  method::Options options;
  options.rounding = parse_choice<method::Rounding>("rounding", request.rounding, kRoundings);
  options.range = parse_choice<method::RangeRule>("range", request.range, kRanges);
  options.seed = request.seed;
  if (request.effort >= 0) options.effort = request.effort;
  options.correction = request.correction;
  options.pull_back = request.pull_back;
  options.act_order = request.act_order;
  options.damping = request.damping;
  options.isa = best_isa();
  return options;
}

// The output must not be one of the files that are read.
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

// A recipe made for an importance matrix gives poor text without one; who names a method that looks at none means it.
void check_imatrix(const Recipe& recipe, const QuantizeRequest& request) {
  if (!recipe.needs_imatrix || !request.imatrix.empty() || !request.calib.empty() || request.method == "rtn") return;
  fail(ErrorCode::kInvalidArgument,
       "'{}' needs an importance matrix: make one with 'nibble imatrix {} --text TEXT -o FILE' and give it with "
       "--imatrix FILE, give a text with --calib TEXT, or round plainly with --method rtn",
       recipe.name, request.input);
}

// Weights that were quantized before and are again: their first error stays.
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
    tensors.push_back({tensor.tensor.name, tensor.target, tensor.tensor.shape});
  return tensors;
}

struct Corridor {
  Conversion conversion;
  QuantPlan plan;
  TransferOptions options;
  std::optional<calib::TokenChunks> calibration;
  BlockwiseOptions blockwise;
  QuantizeReport report;

  std::vector<TensorOutcome> transfer_all(ExecContext& context, container::CheckpointWriter& writer) {
    if (calibration) {
      auto outcomes = transfer_calibrated(context, conversion, plan, options, blockwise, *calibration, writer);
      for (std::size_t i = 0; i < plan.tensors.size(); ++i) report.tensors[i].note = plan.tensors[i].note;
      return outcomes;
    }
    std::vector<TensorOutcome> outcomes(plan.tensors.size());
    std::vector<std::size_t> all(plan.tensors.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    transfer(context, conversion, plan, options, all, writer, outcomes);
    return outcomes;
  }

  // From the plan to the file under `output`.
  void write_gguf(ExecContext& context, const fs::path& output) {
    conversion.metadata.set("general.file_type", plan.file_type);
    conversion.metadata.set("general.quantization_version", kQuantizationVersion);
    const auto writer = container::create_gguf(output, conversion.metadata, planned_tensors(plan));
    const std::vector<TensorOutcome> outcomes = transfer_all(context, *writer);
    context.check_cancelled();
    report.file_bytes = writer->file_bytes();
    writer->commit();
    verify_output(*container::open(output), plan, outcomes);
    add_outcomes(report, outcomes);
  }

  // `format`: of the weights that are quantized; null: none is.
  void write_hf(ExecContext& context, const fs::path& output, std::uint64_t shard_size,
                const container::hf::Format* format = nullptr) {
    AtomicFolder folder(output);
    const json::Value config = format != nullptr ? format->config(quantized_weights(conversion, plan)) : json::Value();
    write_hf_files(*conversion.model, *conversion.tensors.front().kept_as, config, folder.staging());
    if (format != nullptr && !format->copy_of_config.empty())
      write_file_atomically(folder.staging() / format->copy_of_config, json::dump(config) + "\n");
    const auto writer = format != nullptr ? container::hf::create_quantized(folder.staging(), conversion.metadata,
                                                                            planned_tensors(plan), *format, shard_size)
                                          : container::create_hf_weights(folder.staging(), conversion.metadata,
                                                                         planned_tensors(plan), shard_size);
    const std::vector<TensorOutcome> outcomes = transfer_all(context, *writer);
    context.check_cancelled();
    report.file_bytes = writer->file_bytes();
    writer->commit();
    verify_output(*container::open(folder.staging()), plan, outcomes);
    folder.commit();
    add_outcomes(report, outcomes);
  }
};

// A calibration text gives the statistics that an importance matrix would, and finer ones.
void set_calibration(const QuantizeRequest& request, Corridor& corridor) {
  settle_methods(corridor.conversion, corridor.plan);
  corridor.calibration =
      calibration_chunks(*corridor.conversion.model, {request.calib, request.calib_tokens, request.calib_context});
  corridor.blockwise.method = corridor.options.method;
  corridor.blockwise.cross = request.correction > 0;
  for (const std::string& name : request.transforms) corridor.blockwise.transforms.push_back(&transform::get(name));
  const calib::TokenChunks& chunks = *corridor.calibration;
  corridor.conversion.notes.push_back(
      format_text("calibrated on {} sequences of {} tokens", chunks.n_chunks, chunks.context));
  if (!corridor.conversion.to_gguf) return;
  container::Metadata& metadata = corridor.conversion.metadata;
  metadata.set("quantize.calibration.dataset", fs::path(request.calib).filename().string());
  metadata.set("quantize.calibration.tokens", static_cast<std::uint32_t>(chunks.n_chunks * chunks.context));
}

// Runs `write` unless only the plan was asked for, and fills in what both commands report.
template <typename Write>
QuantizeReport carry_out(Corridor& corridor, const std::string& output, bool dry_run, const RunContext& run,
                         Write&& write) {
  const auto start = std::chrono::steady_clock::now();
  QuantizeReport& report = corridor.report;
  report.output = output;
  report.dry_run = dry_run;
  if (!dry_run) {
    OwnedExecContext context(run);
    report.threads = context->pool.size();
    for (const std::string& note : report.notes) context->progress.note("note: " + note);
    write(*context);
    report.bits_per_weight = 8.0 * static_cast<double>(report.file_bytes) /
                             static_cast<double>(std::max<std::uint64_t>(1, report.parameters));
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(report);
}

// Every tensor as `type`: what a Hugging Face folder holds.
QuantPlan plain_plan(const Conversion& conversion, const encoding::EncodingInfo& type) {
  QuantPlan plan;
  plan.recipe = type.name;
  for (const SourceTensor& tensor : conversion.tensors) {
    TensorPlan& item = plan.tensors.emplace_back();
    item.tensor = tensor.tensor;
    item.source = &tensor.source_type();
    item.target = &type;
    item.bytes = encoding::tensor_bytes(type, tensor.tensor.shape);
  }
  return plan;
}

const encoding::EncodingInfo& plain_type(const std::string& name) {
  const encoding::EncodingInfo& type = encoding::get(name);
  const bool plain = type.name == "f32" || type.name == "f16" || type.name == "bf16";
  if (!plain)
    fail(ErrorCode::kInvalidArgument, "convert makes f32, f16 and bf16; 'nibble quantize' makes '{}'", type.name);
  return type;
}

// Null: the default of each type.
const method::Method* chosen_method(const QuantizeRequest& request) {
  if (!request.transforms.empty() && request.calib.empty())
    fail(ErrorCode::kInvalidArgument, "transform '{}' learns from a text: give one with --calib TEXT",
         request.transforms[0]);
  if (request.method.empty()) return request.calib.empty() ? nullptr : &method::get("gptq");
  const method::Method& method = method::get(request.method);
  if (method.needs_gram && request.calib.empty())
    fail(ErrorCode::kInvalidArgument, "method '{}' learns from a text: give one with --calib TEXT", request.method);
  return &method;
}

// Into a folder of quantized weights.
QuantizeReport quantize_to_folder(const QuantizeRequest& request, const OutputForm& form, const RunContext& run) {
  if (!request.imatrix.empty() || !request.overrides.empty() || request.pure)
    fail(ErrorCode::kInvalidArgument, "--imatrix, --override and --pure are for GGUF files, not for '{}'",
         form.format->name);
  PlanOptions options;
  options.method = chosen_method(request);
  Corridor corridor;
  corridor.options.method = method_options(request);
  corridor.options.method.least_zero = form.format->least_zero;
  corridor.conversion = describe_for_hf(request.input, nullptr);
  check_output(request.output, corridor.conversion);
  corridor.plan = make_folder_plan(corridor.conversion, form, options);
  note_requantized(corridor.plan, corridor.conversion.notes);
  if (!request.calib.empty()) set_calibration(request, corridor);
  corridor.report = report_plan(corridor.conversion, corridor.plan);
  return carry_out(corridor, request.output, request.dry_run, run, [&](ExecContext& context) {
    corridor.write_hf(context, request.output, container::kShardBytes, form.format);
  });
}

QuantizeReport quantize_to_gguf(const QuantizeRequest& request, const RunContext& run) {
  const Recipe recipe = load_recipe(request.type);
  if (!request.imatrix.empty() && !request.calib.empty())
    fail(ErrorCode::kInvalidArgument, "give an importance matrix or a calibration text, not both");
  check_imatrix(recipe, request);
  PlanOptions options;
  options.method = chosen_method(request);
  for (const std::string& text : request.overrides) options.overrides.push_back(parse_override(text));
  options.pure = request.pure;

  Corridor corridor;
  corridor.options.method = method_options(request);
  corridor.conversion = describe_for_gguf(request.input);
  if (!request.dry_run || !request.output.empty()) check_output(request.output, corridor.conversion);
  corridor.conversion.facts.has_imatrix = !request.imatrix.empty() || !request.calib.empty();
  corridor.plan = make_plan(recipe, corridor.conversion.facts, plan_inputs(corridor.conversion), options);
  note_requantized(corridor.plan, corridor.conversion.notes);
  if (!request.imatrix.empty()) {
    const calib::Imatrix imatrix = calib::load_imatrix(request.imatrix);
    corridor.options.importance = importance_of(imatrix, corridor.plan, corridor.conversion.notes);
    set_imatrix_keys(imatrix, request.imatrix, corridor.conversion.metadata);
  }
  if (!request.calib.empty()) set_calibration(request, corridor);
  corridor.report = report_plan(corridor.conversion, corridor.plan);
  return carry_out(corridor, request.output, request.dry_run, run,
                   [&](ExecContext& context) { corridor.write_gguf(context, request.output); });
}

}  // namespace

QuantizeReport quantize_model(const QuantizeRequest& request, const RunContext& run) {
  const OutputForm form = choose_form(request.type, request.format, request.output);
  return form.format != nullptr ? quantize_to_folder(request, form, run) : quantize_to_gguf(request, run);
}

QuantizeReport convert_model(const ConvertRequest& request, const RunContext& run) {
  const encoding::EncodingInfo& type = plain_type(request.type);
  const fs::path output = request.output;
  const std::uint64_t shard_size = shard_bytes(request.shard_bytes, output);
  const bool to_gguf = output.extension() == ".gguf";
  Corridor corridor;
  corridor.conversion = to_gguf ? describe_for_gguf(request.input) : describe_for_hf(request.input, &type);
  check_output(output, corridor.conversion);
  corridor.plan =
      to_gguf ? make_plan(load_recipe(type.name), corridor.conversion.facts, plan_inputs(corridor.conversion), {})
              : plain_plan(corridor.conversion, type);
  corridor.report = report_plan(corridor.conversion, corridor.plan);
  return carry_out(corridor, request.output, request.dry_run, run, [&](ExecContext& context) {
    to_gguf ? corridor.write_gguf(context, output) : corridor.write_hf(context, output, shard_size);
  });
}

std::vector<NamedText> list_recipes() {
  std::vector<NamedText> list;
  for (const std::string& name : recipe_names()) list.push_back({name, load_recipe(name).about});
  return list;
}

std::vector<NamedText> list_formats() {
  std::vector<NamedText> list = {{"gguf", "a file of recipes and block types"}};
  for (const container::hf::Format* format : container::hf::all_formats())
    list.push_back({std::string(format->name), "a folder of " + container::hf::types_text(*format)});
  return list;
}

std::vector<MethodText> describe_methods() {
  // One type of each kind tells what a method's results go into.
  static constexpr std::string_view kProbes[] = {"int4-tensor",      "int4-g128-f16", "int4-g128-asym-f16",
                                                 "int8-channel-f16", "nf4",           "kmeans4-channel"};
  std::vector<MethodText> list;
  for (const method::Method* method : method::all_entries()) {
    MethodText& text = list.emplace_back();
    text.name = method->name;
    text.summary = method->summary;
    text.source = method->source;
    text.statistics = method->statistics;
    text.cost = method->cost;
    if (method->supports(encoding::get("q4_k"))) text.formats.emplace_back("gguf");
    for (const container::hf::Format* format : container::hf::all_formats()) {
      const bool some = std::ranges::any_of(kProbes, [&](std::string_view name) {
        const encoding::EncodingInfo& type = encoding::get(name);
        return method->supports(type) && container::hf::holds(*format, type);
      });
      if (some) text.formats.emplace_back(format->name);
    }
  }
  return list;
}

std::vector<NamedText> list_methods() {
  std::vector<NamedText> list;
  for (const method::Method* method : method::all_entries())
    list.push_back({std::string(method->name), std::string(method->summary)});
  return list;
}

}  // namespace nibble
