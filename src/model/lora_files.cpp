#include <algorithm>
#include <set>

#include "base/error.h"
#include "container/lora/adapter.h"
#include "model/lora.h"
#include "model/source.h"

namespace nibble::model {

namespace {

using container::Kind;
namespace files = container::lora;

std::string name_of(const WeightSlot& slot, Kind dialect) {
  return dialect == Kind::kGguf ? slot.gguf_name : slot.hf_name;
}

// Text models of larger ones stand under a part more, and models saved without their head lack the first.
bool is_named(const WeightSlot& slot, std::string_view name, Kind dialect) {
  const std::string own = name_of(slot, dialect);
  if (slot.bias || own.empty()) return false;
  if (name == own || dialect == Kind::kGguf) return name == own;
  const std::size_t dot = own.find('.');
  const std::string first = own.substr(0, dot + 1), rest = own.substr(dot + 1);
  return name == rest || name == "language_model." + own || name == first + "language_model." + rest ||
         name == "language_model." + rest;
}

const WeightSlot& slot_named(const ModelSpec& spec, const std::string& name, Kind dialect) {
  const auto found =
      std::ranges::find_if(spec.weights, [&](const WeightSlot& slot) { return is_named(slot, name, dialect); });
  const bool expert = name.find(".experts.") != name.npos;
  if (!expert && found == spec.weights.end())
    fail(ErrorCode::kFormat, "'{}' is no weight of this model ({})", name, spec.arch);
  if (expert || !takes_lora(*found)) {
    fail(ErrorCode::kUnsupported, "'{}': no adapters of experts, vectors and weights that share a tensor are taken",
         name);
  }
  return *found;
}

const RowOrder& rows_of(const WeightSlot& slot, Kind dialect) {
  return dialect == Kind::kGguf ? slot.gguf_rows : slot.hf_rows;
}

// Row r is row map[r] of `rows`, (.., width); all as they are where the map is empty.
std::vector<float> reordered(const std::vector<float>& rows, std::int64_t width, const std::vector<std::int32_t>& map) {
  if (map.empty()) return rows;
  std::vector<float> out;
  out.reserve(rows.size());
  for (const std::int32_t row : map)
    out.insert(out.end(), rows.begin() + row * width, rows.begin() + (row + 1) * width);
  return out;
}

LoraPair bind(const ModelSpec& spec, const files::Pair& pair, Kind dialect) {
  const WeightSlot& slot = slot_named(spec, pair.weight, dialect);
  if (pair.in() != slot.shape.cols() || pair.out() != slot.shape.rows()) {
    fail(ErrorCode::kFormat, "the pair of '{}' is for ({}, {}), the weight is {}", pair.weight, pair.out(), pair.in(),
         slot.shape.to_string());
  }
  if (pair.embedding != (slot.role == Role::kTokenEmbedding))
    fail(ErrorCode::kFormat, "the pair of '{}' is {} of a table", pair.weight, pair.embedding ? "one" : "none");
  return {slot.role,  slot.layer, pair.rank,
          pair.scale, pair.a,     reordered(pair.b, pair.rank, stored_rows(rows_of(slot, dialect), slot.shape.rows()))};
}

// A table saved along is the base's own unless tokens were added to it.
void check_base(const ModelSpec& spec, const std::string& name, const Shape& shape) {
  const WeightSlot& slot = slot_named(spec, name, Kind::kHuggingFace);
  if (shape == slot.shape) return;
  fail(ErrorCode::kUnsupported, "the base's '{}' was saved along, of shape {}; this model's is {}", name,
       shape.to_string(), slot.shape.to_string());
}

// The order of the model's weights.
void sort_pairs(const ModelSpec& spec, std::vector<LoraPair>& pairs) {
  std::ranges::stable_sort(pairs, {}, [&](const LoraPair& pair) { return spec.find(pair.role, pair.layer); });
}

const WeightSlot& slot_of(const ModelSpec& spec, const LoraPair& pair) {
  const WeightSlot* slot = spec.find(pair.role, pair.layer);
  if (slot == nullptr || !takes_lora(*slot)) {
    fail(ErrorCode::kInvalidArgument, "{} of block {} is no weight of this model that takes an adapter",
         role_name(pair.role), pair.layer);
  }
  const auto rank = static_cast<std::size_t>(pair.rank);
  const bool fits = pair.rank > 0 && pair.a.size() == rank * static_cast<std::size_t>(slot->shape.cols()) &&
                    pair.b.size() == rank * static_cast<std::size_t>(slot->shape.rows());
  if (!fits)
    fail(ErrorCode::kInvalidArgument, "the pair of '{}' does not fit its shape {}", slot->hf_name,
         slot->shape.to_string());
  return *slot;
}

std::string module_of(const WeightSlot& slot) {
  constexpr std::string_view kEnd = ".weight";
  const std::string& name = slot.hf_name;
  return name.ends_with(kEnd) ? name.substr(0, name.size() - kEnd.size()) : name;
}

std::string last_part(const std::string& module) { return module.substr(module.rfind('.') + 1); }

// Modules by the last part of their names where all that have it are meant, else by whole names.
std::vector<std::string> targets_of(const ModelSpec& spec, const LoraAdapter& adapter) {
  std::set<std::string> meant, others, targets;
  for (const LoraPair& pair : adapter.pairs) meant.insert(module_of(slot_of(spec, pair)));
  for (const WeightSlot& slot : spec.weights) {
    if (!slot.bias && !meant.contains(module_of(slot))) others.insert(last_part(module_of(slot)));
  }
  for (const std::string& module : meant)
    targets.insert(others.contains(last_part(module)) ? module : last_part(module));
  return {targets.begin(), targets.end()};
}

files::Adapter unbound(const LoraAdapter& adapter, const ModelSpec& spec, Kind dialect) {
  files::Adapter out;
  out.dialect = dialect;
  out.name = adapter.name;
  out.arch = spec.arch;
  for (const LoraPair& pair : adapter.pairs) {
    const WeightSlot& slot = slot_of(spec, pair);
    const auto map = canonical_rows(rows_of(slot, dialect), slot.shape.rows());
    out.pairs.push_back({name_of(slot, dialect), slot.role == Role::kTokenEmbedding, pair.rank, pair.scale, pair.a,
                         reordered(pair.b, pair.rank, map)});
    out.fan_in_fan_out = out.fan_in_fan_out || slot.hf_transposed;
  }
  if (dialect == Kind::kHuggingFace) out.target_modules = targets_of(spec, adapter);
  return out;
}

}  // namespace

LoraAdapter load_lora(const std::filesystem::path& path, const ModelSource& base) {
  const files::Adapter file = files::read(path);
  const ModelSpec spec = lora_spec(base);
  return with_context(path.string(), [&] {
    if (!file.arch.empty() && file.arch != spec.arch)
      fail(ErrorCode::kFormat, "an adapter of architecture '{}', the model is '{}'", file.arch, spec.arch);
    for (const auto& [name, shape] : file.base_weights) check_base(spec, name, shape);
    LoraAdapter adapter;
    adapter.name = file.name;
    for (const files::Pair& pair : file.pairs) adapter.pairs.push_back(bind(spec, pair, file.dialect));
    sort_pairs(spec, adapter.pairs);
    return adapter;
  });
}

void save_lora(const LoraAdapter& adapter, const ModelSource& base, const std::filesystem::path& output,
               const std::string& trained_on) {
  const bool gguf = output.extension() == ".gguf";
  files::Adapter file = unbound(adapter, lora_spec(base), gguf ? Kind::kGguf : Kind::kHuggingFace);
  file.base = trained_on;
  gguf ? files::write_gguf(file, output) : files::write_peft(file, output);
}

}  // namespace nibble::model
