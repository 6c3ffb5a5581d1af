#include "train/lora_weights.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "train/fake_quantize.h"

namespace nibble::train {

using model::ModelSource;
using model::Role;
using model::WeightSlot;

namespace {

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(by, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

double number(const std::string& key, const std::string& value) {
  double out = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), out);
  if (error != std::errc() || end != value.data() + value.size())
    fail(ErrorCode::kInvalidArgument, "--lora: '{}' of {} is not a number", value, key);
  return out;
}

// "q_proj" of "model.layers.0.self_attn.q_proj.weight".
std::string module_of(const WeightSlot& slot) {
  std::string name = slot.hf_name;
  if (name.ends_with(".weight")) name.resize(name.size() - 7);
  return name.substr(name.rfind('.') + 1);
}

bool is_target(const WeightSlot& slot, const LoraSettings& settings) {
  if (!model::takes_lora(slot) || slot.role == Role::kTokenEmbedding) return false;
  for (const std::string& target : settings.targets) {
    if (target == module_of(slot) || (target == "all" && slot.layer >= 0)) return true;
  }
  return false;
}

std::string known_modules(const model::ModelSpec& spec) {
  std::vector<std::string> names;
  for (const WeightSlot& slot : spec.weights) {
    if (!model::takes_lora(slot) || slot.role == Role::kTokenEmbedding) continue;
    if (std::ranges::find(names, module_of(slot)) == names.end()) names.push_back(module_of(slot));
  }
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

LoraSettings parse_lora(const std::string& text) {
  LoraSettings settings;
  for (const std::string& part : split(text, ',')) {
    const std::size_t equals = part.find('=');
    const std::string key = part.substr(0, equals);
    const std::string value = equals == std::string::npos ? std::string() : part.substr(equals + 1);
    if (key == "r") {
      settings.rank = static_cast<std::int64_t>(number(key, value));
    } else if (key == "alpha") {
      settings.alpha = number(key, value);
    } else if (key == "dropout") {
      settings.dropout = number(key, value);
    } else if (key == "targets") {
      settings.targets = split(value, '+');
    } else if (key == "rslora" && value.empty()) {
      settings.rslora = true;
    } else {
      fail(ErrorCode::kInvalidArgument,
           "--lora: '{}' is none of r=N, alpha=X, targets=all or targets=q_proj+v_proj, dropout=X, rslora", part);
    }
  }
  if (settings.rank < 1 || !(settings.dropout >= 0 && settings.dropout < 1))
    fail(ErrorCode::kInvalidArgument, "--lora: a rank of {} with dropout {}", settings.rank, settings.dropout);
  return settings;
}

StoredWeights::StoredWeights(std::shared_ptr<const ModelSource> source) : source_(std::move(source)) {}

Var StoredWeights::rows_of(Tape<float>& tape, std::size_t slot, std::int64_t begin, std::int64_t n) {
  const std::int64_t cols = source_->spec().weights[slot].shape.cols();
  const Var out = tape.make(n, cols, {});
  float* to = tape.mutable_value(out);
  tape.context().pool.parallel_for(n, 16, [&](std::int64_t first, std::int64_t end) {
    source_->read_rows(slot, begin + first, begin + end, to + first * cols);
  });
  return out;
}

Var StoredWeights::linear(Tape<float>& tape, Role role, int layer, Var x, std::int64_t index) {
  const model::ModelSpec& spec = source_->spec();
  const std::size_t slot = slot_of(spec, role, layer), bias = slot_of(spec, role, layer, true);
  const std::int64_t rows = model::Strides::rows_of_matrix(spec.weights[slot].shape);
  const Var y = matmul(tape, x, rows_of(tape, slot, index * rows, rows));
  if (bias == ModelParameters<float>::kNone) return y;
  const Var all = tensor(tape, role, layer, true);  // of a stack a row each, or one behind the other
  return add_bias(tape, y, row_range(tape, reshape(tape, all, tape.size(all) / rows, rows), index, 1));
}

Var StoredWeights::tensor(Tape<float>& tape, Role role, int layer, bool bias) {
  const std::size_t slot = slot_of(source_->spec(), role, layer, bias);
  if (slot == ModelParameters<float>::kNone) return {};
  const Shape& shape = source_->spec().weights[slot].shape;
  return rows_of(tape, slot, 0, shape.rows());
}

LoraWeights::LoraWeights(GraphWeights<float>& base, std::shared_ptr<const ModelSource> source,
                         const LoraSettings& settings, std::uint64_t seed)
    : base_(base), source_(std::move(source)), settings_(settings), seed_(seed) {
  const model::ModelSpec& spec = source_->spec();
  for (std::size_t slot = 0; slot < spec.weights.size(); ++slot) {
    const WeightSlot& weight = spec.weights[slot];
    if (!is_target(weight, settings)) continue;
    Pair pair = {Parameter(weight.hf_name + ".lora_A", settings.rank, weight.shape.cols()),
                 Parameter(weight.hf_name + ".lora_B", weight.shape.rows(), settings.rank)};
    const float bound = 1 / std::sqrt(static_cast<float>(weight.shape.cols()));
    for (std::int64_t i = 0; i < pair.a.size(); ++i)
      pair.a.values()[i] = bound * (2 * random_uniform(seed, slot, static_cast<std::uint64_t>(i)) - 1);
    std::fill_n(pair.b.values(), pair.b.size(), 0.0f);
    pairs_.emplace(slot, std::move(pair));
  }
  for (const std::string& target : settings.targets) {
    const bool found = std::ranges::any_of(spec.weights, [&](const WeightSlot& slot) {
      LoraSettings one = settings;
      one.targets = {target};
      return is_target(slot, one);
    });
    if (!found)
      fail(ErrorCode::kInvalidArgument, "--lora: the model has no linear '{}'; it has {}", target, known_modules(spec));
  }
}

Var LoraWeights::linear(Tape<float>& tape, Role role, int layer, Var x, std::int64_t index) {
  const std::size_t slot = slot_of(source_->spec(), role, layer);
  const InputRounding& inputs = source_->weight(slot).view.inputs;
  const Var rounded = inputs.activation != nullptr ? round_inputs(tape, x, inputs) : x;
  const Var y = base_.linear(tape, role, layer, rounded, index);
  // The head of a tied model is the embedding, which takes none here.
  const auto found = pairs_.find(slot);
  if (found == pairs_.end()) return y;
  Pair& pair = found->second;
  const Var dropped = pass_ > 0 ? dropout(tape, x, settings_.dropout, seed_ + pass_, slot) : x;
  const Var low = matmul(tape, matmul(tape, dropped, tape.parameter(pair.a)), tape.parameter(pair.b));
  const auto rank = static_cast<double>(settings_.rank);
  return combine(tape, 1, y, settings_.alpha / (settings_.rslora ? std::sqrt(rank) : rank), low);
}

Var LoraWeights::tensor(Tape<float>& tape, Role role, int layer, bool bias) {
  return base_.tensor(tape, role, layer, bias);
}

std::vector<Parameter*> LoraWeights::parameters() {
  std::vector<Parameter*> out;
  for (auto& [slot, pair] : pairs_) {
    out.push_back(&pair.a);
    out.push_back(&pair.b);
  }
  return out;
}

model::LoraAdapter LoraWeights::adapter() const {
  model::LoraAdapter adapter;
  const auto rank = static_cast<double>(settings_.rank);
  for (const auto& [slot, pair] : pairs_) {
    const WeightSlot& weight = source_->spec().weights[slot];
    model::LoraPair& out = adapter.pairs.emplace_back();
    out.role = weight.role;
    out.layer = weight.layer;
    out.rank = settings_.rank;
    out.scale = settings_.alpha / (settings_.rslora ? std::sqrt(rank) : rank);
    out.a.assign(pair.a.values(), pair.a.values() + pair.a.size());
    out.b.assign(pair.b.values(), pair.b.values() + pair.b.size());
  }
  return adapter;
}

}  // namespace nibble::train
