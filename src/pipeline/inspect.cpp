#include "nibble/inspect.h"

#include <algorithm>

#include "base/error.h"
#include "container/checkpoint.h"
#include "encoding/activation.h"
#include "encoding/encoding.h"
#include "json/json.h"
#include "model/kv_cache.h"
#include "model/source.h"

namespace nibble {

namespace {

constexpr std::size_t kMaxItems = 4;   // of an array that are shown
constexpr std::size_t kMaxText = 200;  // bytes of a string that are shown

using container::MetaArray;
using container::Metadata;
using container::MetaValue;

// Bytes of `text` up to `limit`, cut between characters and not within one.
std::string shortened(const std::string& text, std::size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
  return text.substr(0, limit) + format_text("... ({} bytes)", text.size());
}

template <typename T>
std::string item_text(const T& item) {
  if constexpr (std::is_same_v<T, std::string>) {
    return json::dump(json::Value(shortened(item, 40)), 0);
  } else if constexpr (std::is_same_v<T, bool>) {
    return item ? "true" : "false";
  } else {
    return format_text("{}", item);
  }
}

std::string value_text(const MetaArray& array) {
  return std::visit(
      []<typename T>(const std::vector<T>& items) {
        std::string text = "[";
        for (std::size_t i = 0; i < std::min(items.size(), kMaxItems); ++i)
          text += (i > 0 ? ", " : "") + item_text(T(items[i]));
        if (items.size() > kMaxItems) text += format_text(", ... {} items", items.size());
        return text + "]";
      },
      array.items);
}

std::string value_text(const MetaValue& value) {
  return std::visit(
      []<typename T>(const T& item) -> std::string {
        if constexpr (std::is_same_v<T, MetaArray>) {
          return value_text(item);
        } else if constexpr (std::is_same_v<T, std::string>) {
          return shortened(item, kMaxText);
        } else {
          return item_text(item);
        }
      },
      value);
}

// The scalars of config.json and the first level below.
void add_config(const json::Value& config, const std::string& prefix,
                std::vector<std::pair<std::string, std::string>>& out) {
  if (!config.is_object()) return;
  for (const auto& [key, value] : config.as_object()) {
    if (value.is_object()) {
      add_config(value, prefix + key + ".", out);
    } else {
      out.emplace_back(prefix + key, value.is_string() ? shortened(value.as_string(), kMaxText)
                                                       : shortened(json::dump(value, 0), kMaxText));
    }
  }
}

void add_sizes(const model::ModelSpec& spec, std::vector<std::pair<std::string, std::string>>& out) {
  const auto add = [&](const char* name, auto value) { out.emplace_back(name, format_text("{}", value)); };
  add("layers", spec.n_layers());
  add("hidden", spec.hidden);
  if (!spec.blocks.empty()) {
    const model::BlockSpec& block = spec.blocks.front();
    add("heads", block.n_heads);
    add("kv_heads", block.n_kv_heads);
    add("head_dim", block.head_dim);
    add("ffn", block.ffn);
    if (block.window > 0) add("window", block.window);
  }
  add("vocabulary", spec.vocab);
  add("context", spec.context);
  out.emplace_back("head", spec.tied ? "tied to the embedding" : "own weights");
}

std::string_view tokenizer_kind(token::TokenizerKind kind) {
  switch (kind) {
    case token::TokenizerKind::kSpmBpe:
      return "SentencePiece BPE";
    case token::TokenizerKind::kSpmUnigram:
      return "SentencePiece unigram";
    case token::TokenizerKind::kByteBpe:
      return "byte-level BPE";
  }
  return "?";
}

void add_tokenizer(const token::Vocabulary& vocabulary, std::vector<std::pair<std::string, std::string>>& out) {
  out.emplace_back("kind", tokenizer_kind(vocabulary.kind));
  out.emplace_back("tokens", format_text("{}", vocabulary.tokens.size()));
  if (!vocabulary.pre.empty()) out.emplace_back("pre", vocabulary.pre);
  const std::pair<const char*, int> specials[] = {{"bos", vocabulary.bos},
                                                  {"eos", vocabulary.eos},
                                                  {"eot", vocabulary.eot},
                                                  {"unk", vocabulary.unk},
                                                  {"pad", vocabulary.pad}};
  for (const auto& [name, id] : specials) {
    if (id >= 0 && static_cast<std::size_t>(id) < vocabulary.tokens.size()) {
      out.emplace_back(name, format_text("{} {}", id, vocabulary.tokens[static_cast<std::size_t>(id)]));
    }
  }
  out.emplace_back("adds_bos", vocabulary.add_bos ? "yes" : "no");
  if (!vocabulary.chat_template.empty())
    out.emplace_back("chat_template", format_text("{} bytes", vocabulary.chat_template.size()));
}

json::Value object_of(const std::vector<std::pair<std::string, std::string>>& entries) {
  json::Object object;
  for (const auto& [key, value] : entries) object.emplace_back(key, value);
  return object;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t dim : shape) text += (text.empty() ? "" : " x ") + std::to_string(dim);
  return text;
}

void add_section(std::string& text, const char* title,
                 const std::vector<std::pair<std::string, std::string>>& entries) {
  if (entries.empty()) return;
  text += format_text("\n{}\n", title);
  for (const auto& [key, value] : entries) text += format_text("  {:<44} {}\n", key, shortened(value, 100));
}

}  // namespace

// What a folder of compressed-tensors asks of the cache; empty: nothing. kv: the type that is made of it.
std::string cache_note(const json::Value& config, std::optional<model::KvType> kv) {
  const json::Value* quantization = config.find("quantization_config");
  const json::Value* scheme = quantization != nullptr ? quantization->find("kv_cache_scheme") : nullptr;
  if (scheme == nullptr || !scheme->is_object()) return "";
  const std::string what = format_text("made for a KV cache of {}-bit {}s (kv_cache_scheme)",
                                       scheme->get("num_bits", 8), scheme->get("type", "int"));
  if (kv)
    return format_text("{}: its scales are used unless --kv-cache names another type than {}", what,
                       model::kv_type_name(*kv));
  return what + "; its scales are not used, as they are not one for all keys and one for all values of a layer";
}

InspectReport inspect_model(const InspectRequest& request) {
  const auto reader = container::open(request.model);
  InspectReport report;
  report.path = request.model;
  report.container = container::kind_name(reader->kind());
  report.architecture = reader->metadata().get_string("general.architecture", reader->config().get("model_type", ""));
  report.name = reader->metadata().get_string("general.name", "");
  for (const container::TensorEntry& entry : reader->tensors()) {
    const auto dims = entry.view.shape.dims();
    const encoding::ActivationInfo* inputs = entry.view.inputs.activation;
    report.tensors.push_back({entry.name,
                              entry.view.encoding->name,
                              {dims.begin(), dims.end()},
                              entry.view.n_bytes(),
                              inputs != nullptr ? inputs->name : ""});
    report.parameters += static_cast<std::uint64_t>(entry.view.shape.elements());
  }
  report.file_bytes = reader->file_bytes();
  if (report.parameters > 0)
    report.bits_per_weight = 8.0 * static_cast<double>(report.file_bytes) / static_cast<double>(report.parameters);
  for (const auto& [key, value] : reader->metadata().entries()) report.metadata.emplace_back(key, value_text(value));
  add_config(reader->config(), "", report.metadata);
  try {
    const auto source = model::ModelSource::open(request.model);
    if (report.name.empty()) report.name = source->spec().name;
    report.architecture = source->spec().arch;
    if (std::string note = cache_note(reader->config(), source->spec().kv_type); !note.empty())
      report.notes.push_back(std::move(note));
    add_sizes(source->spec(), report.sizes);
    add_tokenizer(source->vocabulary(), report.tokenizer);
  } catch (const Error& error) {
    report.notes.emplace_back(error.what());
  }
  return report;
}

std::string to_json(const InspectReport& report) {
  json::Value value;
  value.set("path", report.path);
  value.set("container", report.container);
  value.set("architecture", report.architecture);
  value.set("name", report.name);
  value.set("parameters", report.parameters);
  value.set("file_bytes", report.file_bytes);
  value.set("bits_per_weight", report.bits_per_weight);
  value.set("sizes", object_of(report.sizes));
  value.set("tokenizer", object_of(report.tokenizer));
  value.set("metadata", object_of(report.metadata));
  json::Array notes;
  for (const std::string& note : report.notes) notes.emplace_back(note);
  value.set("notes", std::move(notes));
  json::Array tensors;
  for (const InspectedTensor& tensor : report.tensors) {
    json::Array shape;
    for (const std::int64_t dim : tensor.shape) shape.emplace_back(dim);
    json::Object object = {
        {"name", tensor.name}, {"type", tensor.type}, {"shape", std::move(shape)}, {"bytes", tensor.bytes}};
    if (!tensor.inputs.empty()) object.emplace_back("inputs", tensor.inputs);
    tensors.emplace_back(std::move(object));
  }
  value.set("tensors", std::move(tensors));
  return json::dump(value);
}

std::string to_text(const InspectReport& report) {
  std::string text =
      format_text("{}\n  {}{}{}\n  {} parameters, {}, {:.2f} bits per weight, {} tensors\n", report.path,
                  report.container, report.architecture.empty() ? "" : ", architecture " + report.architecture,
                  report.name.empty() ? "" : ", " + report.name, format_count(report.parameters),
                  format_bytes(report.file_bytes), report.bits_per_weight, report.tensors.size());
  for (const std::string& note : report.notes) text += "  note: " + note + "\n";
  add_section(text, "model", report.sizes);
  add_section(text, "tokenizer", report.tokenizer);
  add_section(text, "metadata", report.metadata);
  text += "\ntensors\n";
  std::size_t width = 8;  // of the types
  for (const InspectedTensor& tensor : report.tensors) width = std::max(width, tensor.type.size());
  for (const InspectedTensor& tensor : report.tensors) {
    text += format_text("  {:<44} {:>20}  {:<{}} {:>9}{}\n", tensor.name, shape_text(tensor.shape), tensor.type, width,
                        format_bytes(tensor.bytes), tensor.inputs.empty() ? "" : "  inputs " + tensor.inputs);
  }
  return text;
}

}  // namespace nibble
