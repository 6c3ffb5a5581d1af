#include "nibble/memory_plan.h"

#include <algorithm>
#include <charconv>
#include <memory>

#include "base/cpu.h"
#include "base/error.h"
#include "base/gpu_memory.h"
#include "json/json.h"
#include "model/arch.h"
#include "model/source.h"
#include "pipeline/choices.h"
#include "pipeline/dense_shape.h"
#include "pipeline/memory_estimate.h"

namespace nibble {

namespace {

using pipeline::Goal;
using pipeline::KnownModel;
using pipeline::MemoryRow;

constexpr std::int64_t kUsualContext = 8192;
constexpr double kReserve = 0.06;  // of the memory is left to everything else

struct MemorySize {
  std::uint64_t bytes = 0;
  std::string origin;  // "RAM", "VRAM (nvidia)", "VRAM (2 x amdgpu)"; empty: given
};

struct Setting {
  KnownModel model;
  Goal goal = Goal::kRun;
  pipeline::Workload workload;
  std::vector<MemorySize> memory;
  std::string name;
};

double parse_scaled(std::string_view text, std::string_view what,
                    const std::vector<std::pair<std::string_view, double>>& units) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit(end, text.data() + text.size());
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  const auto found = std::find_if(units.begin(), units.end(), [&](const auto& u) { return u.first == unit; });
  if (error != std::errc() || found == units.end() || !(value > 0) || value * found->second > 1e18) {
    fail(ErrorCode::kInvalidArgument, "'{}' is no {}", text, what);
  }
  return value * found->second;
}

Goal parse_goal(std::string_view name) {
  if (name == "run") return Goal::kRun;
  if (name == "finetune") return Goal::kFinetune;
  if (name == "int8") return Goal::kInt8;
  fail(ErrorCode::kInvalidArgument, "unknown goal '{}': run, finetune or int8", name);
}

// The first row, from the largest, that fits; null when none does. `stock`: among the recipes only.
const MemoryRow* largest_fitting(const std::vector<MemoryRow>& rows, double usable, bool stock) {
  const auto found = std::find_if(rows.begin(), rows.end(),
                                  [&](const MemoryRow& row) { return (row.stock || !stock) && row.total() <= usable; });
  return found != rows.end() ? &*found : nullptr;
}

const MemoryRow& row_named(const std::vector<MemoryRow>& rows, std::string_view name) {
  return *std::find_if(rows.begin(), rows.end(), [&](const MemoryRow& row) { return row.format == name; });
}

std::string gigabytes(double n_bytes) { return format_bytes(static_cast<std::uint64_t>(std::max(n_bytes, 0.0))); }

// Guideline: cheap inference is weight-only 4 bit; more bits where memory is left, fewer where it must.
std::string advise_run(const std::vector<MemoryRow>& rows, std::string_view cache, double usable) {
  const MemoryRow& four_bit = row_named(rows, "q4_k_m");
  const MemoryRow* largest = largest_fitting(rows, usable, true);
  if (largest == nullptr) {
    const MemoryRow& smallest = rows.back();
    return format_text("nothing fits: the smallest, {}, takes {}{}", smallest.format, gigabytes(smallest.total()),
                       smallest.kv_cache > smallest.weights / 2
                           ? "; shorten the context or take a smaller KV cache (int8, int4-h)"
                           : "");
  }
  if (four_bit.total() > usable) {
    return format_text("{}: the largest that fits; q4_k_m would take {}. Expect a clear loss of quality below 4 bits",
                       largest->format, gigabytes(four_bit.total()));
  }
  if (largest->format == "q4_k_m")
    return format_text("q4_k_m with a KV cache in {}: 4-bit weights are the cheapest inference at little loss", cache);
  return format_text("q4_k_m with a KV cache in {} for the cheapest inference ({}); there is room up to {} ({})", cache,
                     gigabytes(four_bit.total()), largest->format, gigabytes(largest->total()));
}

// Guideline: fine-tuning in little memory is NF4 with LoRA adapters.
std::string advise_finetune(const std::vector<MemoryRow>& rows, double usable) {
  const MemoryRow* largest = largest_fitting(rows, usable, false);
  if (largest == nullptr) {
    return format_text("nothing fits: nf4 + LoRA takes {}; shorten the context or the batch",
                       gigabytes(row_named(rows, "nf4 + LoRA").total()));
  }
  if (largest->format == "nf4 + LoRA")
    return "nf4 + LoRA (QLoRA): the only way to train in this memory, and close to 16-bit LoRA in quality";
  if (largest->format.find("LoRA") != std::string::npos) {
    return format_text("{} fits; nf4 + LoRA leaves {} for longer sequences", largest->format,
                       gigabytes(usable - row_named(rows, "nf4 + LoRA").total()));
  }
  return format_text("full fine-tuning with {} fits; LoRA takes a fraction of it", largest->format);
}

// Guideline: integer hardware wants SmoothQuant with int8 weights and activations.
std::string advise_int8(const std::vector<MemoryRow>& rows, double usable) {
  const MemoryRow& int8 = row_named(rows, "int8");
  if (int8.total() <= usable) {
    return "SmoothQuant with int8 weights per channel and int8 activations per token: integer products throughout";
  }
  return format_text("int8 weights and activations take {} and do not fit; weight-only q4_k_m takes {}",
                     gigabytes(int8.total()), gigabytes(row_named(rows, "q4_k_m").total()));
}

std::string advise(const Setting& setting, const std::vector<MemoryRow>& rows, double usable) {
  switch (setting.goal) {
    case Goal::kFinetune:
      return advise_finetune(rows, usable);
    case Goal::kInt8:
      return advise_int8(rows, usable);
    case Goal::kRun:
      break;
  }
  return advise_run(rows, model::kv_type_name(setting.workload.kv), usable);
}

double usable_bytes(const MemorySize& memory) { return static_cast<double>(memory.bytes) * (1 - kReserve); }

std::string column_title(const MemorySize& memory) { return "in " + format_bytes(memory.bytes); }

// What was given; what was not is detected, unless sizes to hold the model against were given as such.
std::vector<MemorySize> memory_sizes(const MemoryPlanRequest& request) {
  std::vector<MemorySize> sizes;
  for (const std::uint64_t bytes : request.memory) sizes.push_back({bytes, ""});
  if (request.memory.empty()) sizes.push_back({physical_memory_bytes(), "RAM"});
  for (const std::uint64_t bytes : request.vram) sizes.push_back({bytes, "VRAM"});
  if (!request.memory.empty() || !request.vram.empty()) return sizes;
  for (const GpuMemory& gpus : gpu_memory()) {
    const std::string devices = gpus.devices > 1 ? format_text("{} x ", gpus.devices) : "";
    sizes.push_back({gpus.bytes, format_text("VRAM ({}{})", devices, gpus.driver)});
  }
  return sizes;
}

std::string shape_text(const Setting& setting) {
  const model::ModelSpec& spec = *setting.model.spec;
  const std::string per_token = gigabytes(pipeline::kv_bytes_per_token(spec, setting.workload.kv));
  std::string text = format_text(", {}{} layers of width {}, context {}", setting.model.assumed ? "about " : "",
                                 spec.n_layers(), spec.hidden, setting.workload.context);
  if (setting.workload.batch > 1) text += format_text(", {} sequences", setting.workload.batch);
  text += format_text(", KV cache {}{} a token", setting.model.assumed ? "about " : "", per_token);
  if (setting.model.assumed) {
    text +=
        "\nKV cache and activations are estimates, those of a dense model of this size; a mixture of experts needs "
        "less";
  }
  return text;
}

std::string to_text(const Setting& setting, const std::vector<MemoryRow>& rows) {
  std::string text = format_text("{}: {} parameters", setting.name,
                                 format_count(static_cast<std::uint64_t>(setting.model.parameters)));
  text += shape_text(setting);
  const bool training = setting.goal == Goal::kFinetune;
  text += format_text("\n\n{:<17} {:>6} {:>9} {:>9} {:>11} {:>9}", "format", "bits", "weights",
                      training ? "training" : "KV cache", "activations", "total");
  for (const MemorySize& memory : setting.memory) text += "  " + column_title(memory);
  text += "\n";
  for (const MemoryRow& row : rows) {
    text += format_text("{:<17} {:>6.2f} {:>9} {:>9} {:>11} {:>9}", row.format, row.bits_per_weight,
                        gigabytes(row.weights), gigabytes(training ? row.training : row.kv_cache),
                        gigabytes(row.activations), gigabytes(row.total()));
    for (const MemorySize& memory : setting.memory) {
      text += format_text("  {:>{}}", row.total() <= usable_bytes(memory) ? "fits" : "-", column_title(memory).size());
    }
    text += row.note.empty() ? "\n" : "  " + row.note + "\n";
  }
  text += "\n";
  for (const MemorySize& memory : setting.memory) {
    text +=
        format_text("with {}{}: {}.\n", format_bytes(memory.bytes), memory.origin.empty() ? "" : " of " + memory.origin,
                    advise(setting, rows, usable_bytes(memory)));
  }
  return text;
}

json::Value to_json(const Setting& setting, const std::vector<MemoryRow>& rows) {
  json::Value object;
  object.set("model", setting.name);
  object.set("parameters", static_cast<std::int64_t>(setting.model.parameters));
  object.set("context", setting.workload.context);
  object.set("batch", setting.workload.batch);
  object.set("estimated", setting.model.assumed);
  object.set("layers", setting.model.spec->n_layers());
  object.set("hidden", setting.model.spec->hidden);
  object.set("kv_bytes_per_token", pipeline::kv_bytes_per_token(*setting.model.spec, setting.workload.kv));
  json::Array formats;
  for (const MemoryRow& row : rows) {
    json::Value item;
    item.set("format", row.format);
    item.set("bits_per_weight", row.bits_per_weight);
    for (const auto& [key, value] : {std::pair<const char*, double>{"weight_bytes", row.weights},
                                     {"kv_cache_bytes", row.kv_cache},
                                     {"activation_bytes", row.activations},
                                     {"training_bytes", row.training},
                                     {"total_bytes", row.total()}}) {
      item.set(key, static_cast<std::int64_t>(value));
    }
    json::Array fits;
    for (const MemorySize& memory : setting.memory) fits.push_back(row.total() <= usable_bytes(memory));
    item.set("fits", std::move(fits));
    formats.push_back(std::move(item));
  }
  object.set("formats", std::move(formats));
  json::Array advice;
  for (const MemorySize& memory : setting.memory) {
    json::Value item;
    item.set("memory_bytes", memory.bytes);
    item.set("origin", memory.origin.empty() ? std::string("given") : memory.origin);
    item.set("advice", advise(setting, rows, usable_bytes(memory)));
    advice.push_back(std::move(item));
  }
  object.set("memory", std::move(advice));
  return object;
}

// The description of a model from its files or from a config.json that stands alone.
model::ModelSpec describe(const std::filesystem::path& path) {
  if (path.extension() != ".json") return model::ModelSource::open(path)->spec();
  const json::Value config = json::parse_file(path);
  return with_context(path.string(), [&] {
    const json::Value text = model::text_config(config);
    model::ModelSpec spec = model::arch_by_model_type(text.get("model_type", "")).from_hf(text);
    model::validate(spec);
    return spec;
  });
}

}  // namespace

std::uint64_t parse_memory(std::string_view text) {
  static const std::vector<std::pair<std::string_view, double>> kUnits = {{"", 1},
                                                                          {"B", 1},
                                                                          {"K", 1e3},
                                                                          {"KB", 1e3},
                                                                          {"KIB", 1024.0},
                                                                          {"M", 1e6},
                                                                          {"MB", 1e6},
                                                                          {"MIB", 1048576.0},
                                                                          {"G", 1e9},
                                                                          {"GB", 1e9},
                                                                          {"GIB", 1073741824.0},
                                                                          {"T", 1e12},
                                                                          {"TB", 1e12},
                                                                          {"TIB", 1099511627776.0}};
  return static_cast<std::uint64_t>(parse_scaled(text, "size (24G, 16GiB)", kUnits));
}

double parse_parameters(std::string_view text) {
  static const std::vector<std::pair<std::string_view, double>> kUnits = {
      {"", 1}, {"K", 1e3}, {"M", 1e6}, {"B", 1e9}, {"T", 1e12}};
  return parse_scaled(text, "number of parameters (671B, 7.3M)", kUnits);
}

Report plan_memory(const MemoryPlanRequest& request) {
  if (request.model.empty() == (request.parameters <= 0)) {
    fail(ErrorCode::kInvalidArgument, "give a model, a config.json, or a number of parameters");
  }
  if (request.context < 0 || request.batch < 1) {
    fail(ErrorCode::kInvalidArgument, "a context of {} tokens, {} sequences", request.context, request.batch);
  }
  Setting setting;
  setting.goal = parse_goal(request.goal);
  setting.workload = {request.context, request.batch, pipeline::parse_kv_type(request.kv_cache)};
  setting.memory = memory_sizes(request);
  setting.name = request.model.empty() ? "a model" : request.model.string();
  const bool assumed = request.model.empty();
  const model::ModelSpec spec = assumed ? pipeline::dense_shape(request.parameters) : describe(request.model);
  setting.model = {&spec, assumed ? request.parameters : static_cast<double>(spec.parameters()), assumed};
  if (request.context == 0) setting.workload.context = assumed ? kUsualContext : std::min(spec.context, kUsualContext);
  const std::vector<MemoryRow> rows = memory_rows(setting.model, setting.goal, setting.workload);
  return {to_text(setting, rows), json::dump(to_json(setting, rows))};
}

}  // namespace nibble
