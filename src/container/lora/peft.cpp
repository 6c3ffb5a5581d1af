#include <algorithm>
#include <cmath>

#include "base/atomic_file.h"
#include "base/atomic_folder.h"
#include "base/error.h"
#include "container/lora/halves.h"
#include "container/safetensors/reader.h"
#include "token/name_pattern.h"

namespace nibble::container::lora {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kConfig = "adapter_config.json", kWeights = "adapter_model.safetensors";
constexpr std::string_view kPrefix = "base_model.model.";
constexpr HalfName kHalves[] = {{".lora_A.weight", false},
                                {".lora_B.weight", true},
                                {".lora_embedding_A", false, true},
                                {".lora_embedding_B", true, true}};

constexpr std::string_view kBaseLayer = ".base_layer.weight";

// What else PEFT's folders may hold, and why it is not read.
struct Unread {
  std::string_view part, why;
};
constexpr Unread kUnreadTensors[] = {
    {"lora_magnitude_vector", "the magnitudes of DoRA"},
    {"modules_to_save", "a module that was trained whole"},
    {".bias", "a trained bias"},
    {"trainable_tokens", "tokens that were trained by themselves"},
};

// Options that are read, and those that say how an adapter was trained but not what it is. Any other must be empty.
constexpr std::string_view kRead[] = {
    "peft_type",         "r",    "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
    "init_lora_weights", "bias", "task_type"};
constexpr std::string_view kHarmless[] = {
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",    "base_model_name_or_path",
    "revision",       "inference_mode",  "lora_dropout",        "fan_in_fan_out",    "peft_version",
    "auto_mapping",   "loftq_config",    "eva_config",          "megatron_core",     "megatron_config",
    "runtime_config", "corda_config",    "lora_ga_config",      "qalora_group_size", "ephemeral_gpu_offload"};
// Ways to begin that leave the base's weights as they are.
constexpr std::string_view kPlainBeginnings[] = {"gaussian", "eva", "orthogonal"};

bool is_empty(const json::Value& value) {
  return value.is_null() || (value.is_bool() && !value.as_bool()) || (value.is_array() && value.as_array().empty()) ||
         (value.is_object() && value.as_object().empty()) || (value.is_string() && value.as_string().empty());
}

bool contains(std::span<const std::string_view> names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

void check_config(const json::Value& config) {
  const std::string type = config.get("peft_type", "");
  if (type != "LORA") fail(ErrorCode::kUnsupported, "peft_type '{}'; only 'LORA' is read", type);
  const std::string task = config.get("task_type", "CAUSAL_LM");
  if (task != "CAUSAL_LM") fail(ErrorCode::kUnsupported, "task_type '{}'; only 'CAUSAL_LM' is read", task);
  const std::string bias = config.get("bias", "none");
  if (bias != "none") fail(ErrorCode::kUnsupported, "bias '{}': trained biases are not read", bias);
  if (const json::Value* beginning = config.find("init_lora_weights"); beginning != nullptr && beginning->is_string()) {
    if (!contains(kPlainBeginnings, beginning->as_string()))
      fail(ErrorCode::kUnsupported,
           "init_lora_weights '{}' changes the weights of the base; convert it to a plain adapter with PEFT",
           beginning->as_string());
  }
  for (const auto& [key, value] : config.as_object()) {
    if (contains(kRead, key) || contains(kHarmless, key) || is_empty(value)) continue;
    fail(ErrorCode::kUnsupported, "option '{}' ({}) is not read", key, json::dump(value, 0));
  }
}

// A number for each module whose name a pattern meets, as PEFT matches them.
class Patterns {
 public:
  Patterns(const json::Value& config, std::string_view key, double fallback) : fallback_(fallback) {
    const json::Value* patterns = config.find(key);
    if (patterns == nullptr || patterns->is_null()) return;
    for (const auto& [pattern, value] : patterns->as_object())
      patterns_.emplace_back(token::NamePattern(format_text("^(.*\\.)?({})$", pattern)), value.as_number());
  }
  double of(std::string_view module) const {
    for (const auto& [pattern, value] : patterns_) {
      if (pattern.found_in(module)) return value;
    }
    return fallback_;
  }

 private:
  std::vector<std::pair<token::NamePattern, double>> patterns_;
  double fallback_;
};

// Refuses what is not read; notes weights of the base.
void look_through(const CheckpointReader& reader, Adapter& adapter) {
  for (const TensorEntry& entry : reader.tensors()) {
    for (const Unread& unread : kUnreadTensors) {
      if (entry.name.find(unread.part) != entry.name.npos)
        fail(ErrorCode::kUnsupported, "tensor '{}': {} is not read", entry.name, unread.why);
    }
    if (!entry.name.starts_with(kPrefix))
      fail(ErrorCode::kUnsupported, "tensor '{}' does not begin with '{}'", entry.name, kPrefix);
    if (entry.name.ends_with(kBaseLayer)) {
      const std::string_view module = std::string_view(entry.name).substr(kPrefix.size());
      const std::string_view name = module.substr(0, module.size() - kBaseLayer.size());
      adapter.base_weights.emplace_back(format_text("{}.weight", name), entry.view.shape);
    }
  }
}

Pair read_pair(const std::string& module, const Halves& halves) {
  Pair pair;
  pair.weight = module + ".weight";
  pair.embedding = halves.embedding;
  const Shape &a = halves.a->view.shape, &b = halves.b->view.shape;
  std::vector<float> a_values = read_matrix(*halves.a), b_values = read_matrix(*halves.b);
  pair.rank = a[0];
  if (b[1] != pair.rank) {
    fail(ErrorCode::kFormat, "tensor '{}' has shape {}, '{}' shape {}: their ranks differ", halves.a->name,
         a.to_string(), halves.b->name, b.to_string());
  }
  // Of a table: (rank, vocabulary) and (embedding, rank), W being the transposed of their product.
  pair.a = pair.embedding ? transposed(b_values, b[0], b[1]) : std::move(a_values);
  pair.b = pair.embedding ? transposed(a_values, a[0], a[1]) : std::move(b_values);
  return pair;
}

Adapter read_folder(const fs::path& folder, const json::Value& config, const CheckpointReader& reader) {
  Adapter adapter;
  adapter.name = fs::weakly_canonical(folder).filename().string();
  adapter.base = config.get("base_model_name_or_path", "");
  look_through(reader, adapter);
  const Patterns ranks(config, "rank_pattern", config.get("r", 8.0));
  const Patterns alphas(config, "alpha_pattern", config.get("lora_alpha", 8.0));
  const bool by_root = config.get("use_rslora", false);
  for (const auto& [key, halves] : find_halves(reader, kHalves, kBaseLayer)) {
    const std::string module = key.substr(kPrefix.size());
    Pair pair = read_pair(module, halves);
    const double rank = ranks.of(module);
    if (rank != static_cast<double>(pair.rank))
      fail(ErrorCode::kFormat, "tensor '{}' has rank {}, {} says {}", halves.a->name, pair.rank, kConfig, rank);
    pair.scale = alphas.of(module) / (by_root ? std::sqrt(rank) : rank);
    if (!std::isfinite(pair.scale)) fail(ErrorCode::kFormat, "module '{}' has no finite alpha", module);
    adapter.pairs.push_back(std::move(pair));
  }
  return adapter;
}

std::string_view module_of(const Pair& pair) {
  std::string_view name = pair.weight;
  if (name.ends_with(".weight")) name.remove_suffix(7);
  return name;
}

// Names in rank_pattern are expressions.
std::string as_pattern(std::string_view module) {
  std::string pattern;
  for (const char c : module) pattern += c == '.' ? std::string("\\.") : std::string(1, c);
  return pattern;
}

json::Value number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

json::Value config_of(const Adapter& adapter) {
  const auto alpha = [](const Pair& pair) { return pair.scale * static_cast<double>(pair.rank); };
  const Pair& first = adapter.pairs[0];
  json::Value config, ranks{json::Object{}}, alphas{json::Object{}};
  for (const Pair& pair : adapter.pairs) {
    if (pair.rank != first.rank) ranks.set(as_pattern(module_of(pair)), pair.rank);
    if (alpha(pair) != alpha(first)) alphas.set(as_pattern(module_of(pair)), number(alpha(pair)));
  }
  json::Array targets;
  for (const std::string& target : adapter.target_modules) targets.emplace_back(target);
  config.set("peft_type", "LORA");
  config.set("task_type", "CAUSAL_LM");
  config.set("base_model_name_or_path", adapter.base);
  config.set("inference_mode", true);
  config.set("r", first.rank);
  config.set("lora_alpha", number(alpha(first)));
  config.set("lora_dropout", 0.0);
  config.set("target_modules", std::move(targets));
  config.set("rank_pattern", std::move(ranks));
  config.set("alpha_pattern", std::move(alphas));
  config.set("fan_in_fan_out", adapter.fan_in_fan_out);
  config.set("bias", "none");
  config.set("use_rslora", false);
  config.set("use_dora", false);
  config.set("init_lora_weights", true);
  config.set("modules_to_save", json::Value());
  return config;
}

}  // namespace

Adapter read_peft(const fs::path& folder) {
  const json::Value config = json::parse_file(folder / kConfig);
  with_context((folder / kConfig).string(), [&] { check_config(config); });
  const fs::path weights = folder / kWeights;
  if (!fs::exists(weights) && fs::exists(folder / "adapter_model.bin"))
    fail(ErrorCode::kUnsupported, "'{}' holds adapter_model.bin, a pickle; save it as {}", folder.string(), kWeights);
  const auto reader = safetensors::open(weights);
  return with_context(weights.string(), [&] { return read_folder(folder, config, *reader); });
}

Adapter read(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return read_peft(path);
  return path.filename() == kWeights ? read_peft(path.parent_path()) : read_gguf(path);
}

void write_peft(const Adapter& adapter, const fs::path& folder) {
  if (adapter.pairs.empty()) fail(ErrorCode::kInvalidArgument, "an adapter without pairs");
  AtomicFolder whole(folder);
  write_file_atomically(whole.staging() / kConfig, json::dump(config_of(adapter)) + "\n");
  std::vector<OutputTensor> tensors;
  for (const Pair& pair : adapter.pairs) {
    const std::string module = std::string(kPrefix) + std::string(module_of(pair));
    if (pair.embedding) {
      tensors.push_back(
          {module + ".lora_embedding_A", pair.rank, pair.out(), transposed(pair.b, pair.out(), pair.rank)});
      tensors.push_back({module + ".lora_embedding_B", pair.in(), pair.rank, transposed(pair.a, pair.rank, pair.in())});
    } else {
      tensors.push_back({module + ".lora_A.weight", pair.rank, pair.in(), pair.a});
      tensors.push_back({module + ".lora_B.weight", pair.out(), pair.rank, pair.b});
    }
  }
  Metadata metadata;
  metadata.set("format", std::string("pt"));
  write_all(*create_safetensors(whole.staging() / kWeights, metadata, planned(tensors)), tensors);
  whole.commit();
}

}  // namespace nibble::container::lora
