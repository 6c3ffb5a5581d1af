#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "json/json.h"
#include "token/spm_model.h"
#include "token/tokenizer.h"
#include "token/tokenizer_json.h"

namespace nibble::token {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kFileLimit = std::uint64_t{256} << 20;
constexpr std::int64_t kMaxGap = 1 << 16;

// Names under which model families keep their end-of-turn token, the usual ones first.
constexpr std::string_view kEndOfTurn[] = {"<|eot_id|>", "<|im_end|>",      "<|end|>", "<end_of_turn>",
                                           "<|eot|>",    "<|end_of_turn|>", "<EOT>"};

std::string quoted(const fs::path& path) { return "'" + path.string() + "'"; }

// A token named in a configuration: a string, or an object with its text in "content".
std::string token_text(const json::Value* value) {
  if (value == nullptr) return {};
  if (value->is_string()) return value->as_string();
  return value->is_object() ? value->get("content", "") : std::string();
}

int find_token(const Vocabulary& vocabulary, std::string_view text) {
  const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), text);
  return text.empty() || found == vocabulary.tokens.end() ? -1 : static_cast<int>(found - vocabulary.tokens.begin());
}

// `replace`: what the configuration names counts more than what is known already.
void read_named_tokens(const json::Value& config, bool replace, Vocabulary& vocabulary) {
  const auto set = [&](const char* key, int& id) {
    if (id >= 0 && !replace) return;
    const int found = find_token(vocabulary, token_text(config.find(key)));
    if (found >= 0) id = found;
  };
  set("bos_token", vocabulary.bos);
  set("eos_token", vocabulary.eos);
  set("pad_token", vocabulary.pad);
  if (vocabulary.kind != TokenizerKind::kByteBpe && vocabulary.unk < 0) set("unk_token", vocabulary.unk);
}

// Ids in generation_config.json and config.json; a list means several ends, of which the first is `eos`.
void read_ids(const json::Value& config, Vocabulary& vocabulary) {
  const auto set = [&](const char* key, int& id) {
    const json::Value* value = config.find(key);
    if (id >= 0 || value == nullptr) return;
    if (value->is_array() && !value->as_array().empty()) value = &value->as_array()[0];
    if (!value->is_int() || value->as_int() < 0 ||
        value->as_int() >= static_cast<std::int64_t>(vocabulary.tokens.size()))
      return;
    id = static_cast<int>(value->as_int());
  };
  if (const json::Value* ends = config.find("eos_token_id"); ends != nullptr && ends->is_array()) {
    for (const json::Value& id : ends->as_array()) {
      if (id.is_int() && id.as_int() >= 0 && id.as_int() < static_cast<std::int64_t>(vocabulary.tokens.size()))
        vocabulary.ends.push_back(static_cast<int>(id.as_int()));
    }
  }
  set("bos_token_id", vocabulary.bos);
  set("eos_token_id", vocabulary.eos);
  set("pad_token_id", vocabulary.pad);
}

// added_tokens_decoder of tokenizer_config.json: tokens beside a tokenizer.model, and what its own ones are for.
void read_added_tokens_decoder(const json::Value& config, Vocabulary& vocabulary) {
  const json::Value* decoder = config.find("added_tokens_decoder");
  if (decoder == nullptr || !decoder->is_object()) return;
  const json::Object& entries = decoder->as_object();
  const auto limit = static_cast<std::int64_t>(vocabulary.tokens.size() + entries.size()) + kMaxGap;
  for (const auto& [key, token] : entries) {
    const bool digits = !key.empty() && key.size() < 10 &&
                        std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
    const std::int64_t id = digits ? std::stoll(key) : -1;
    if (id < 0 || id >= limit)
      fail(ErrorCode::kFormat, "added_tokens_decoder: id '{}' is outside 0 to {}", key, limit - 1);
    const auto at = static_cast<std::size_t>(id);
    while (vocabulary.tokens.size() <= at) {
      vocabulary.tokens.push_back(format_text("[PAD{}]", vocabulary.tokens.size()));
      vocabulary.types.push_back(TokenType::kUnused);
      vocabulary.scores.push_back(-10000.0f);
    }
    AddedToken added{.id = static_cast<int>(id), .special = token.get("special", false)};
    added.lstrip = token.get("lstrip", false);
    added.rstrip = token.get("rstrip", false);
    added.single_word = token.get("single_word", false);
    TokenType& type = vocabulary.types[at];
    if (type == TokenType::kNormal || type == TokenType::kUnused) {
      vocabulary.tokens[at] = token.at("content").as_string();
      vocabulary.scores[at] = type == TokenType::kUnused ? -1000.0f : vocabulary.scores[at];
      type = added.special ? TokenType::kControl : TokenType::kUserDefined;
    }
    vocabulary.added.push_back(added);
  }
}

json::Value parse_if_there(const fs::path& path) {
  return fs::exists(path) ? json::parse_file(path, kFileLimit) : json::Value(json::Object{});
}

// Sets a template, under its name where that is not "default".
void add_chat_template(const std::string& name, std::string text, Vocabulary& vocabulary) {
  if (name == "default") {
    vocabulary.chat_template = std::move(text);
  } else if (!name.empty()) {
    auto& named = vocabulary.named_chat_templates;
    const auto old = std::ranges::find(named, name, &std::pair<std::string, std::string>::first);
    if (old != named.end()) named.erase(old);
    named.emplace_back(name, std::move(text));
  }
}

// "chat_template" of a configuration: a string, or a list of {name, template}.
void read_chat_templates(const json::Value& config, Vocabulary& vocabulary) {
  const json::Value* value = config.find("chat_template");
  if (value == nullptr) return;
  if (value->is_string()) vocabulary.chat_template = value->as_string();
  if (!value->is_array()) return;
  for (const json::Value& entry : value->as_array()) {
    add_chat_template(entry.get("name", ""), entry.get("template", ""), vocabulary);
  }
}

// Files count more than the configuration.
void read_chat_template_files(const fs::path& folder, const json::Value& config, Vocabulary& vocabulary) {
  read_chat_templates(parse_if_there(folder / "chat_template.json"), vocabulary);
  read_chat_templates(config, vocabulary);
  const fs::path jinja = folder / "chat_template.jinja";
  if (fs::exists(jinja)) vocabulary.chat_template = read_file(jinja, kFileLimit);
  const fs::path others = folder / "additional_chat_templates";
  if (!fs::is_directory(others)) return;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(others)) files.push_back(entry.path());
  std::ranges::sort(files);
  for (const fs::path& file : files) {
    if (file.extension() == ".jinja") add_chat_template(file.stem().string(), read_file(file, kFileLimit), vocabulary);
  }
}

// The post-processor's ids in the words of GGUF where those suffice; add_bos_token and add_eos_token have the last
// word.
void settle_ends(const json::Value& config, Vocabulary& vocabulary) {
  const auto settle = [&](std::vector<int>& ids, int& id, bool& add, const char* key) {
    if (ids.size() == 1 && (id < 0 || id == ids[0])) {
      id = ids[0];
      add = true;
      ids.clear();
    }
    const json::Value* wanted = config.find(key);
    if (wanted == nullptr || !wanted->is_bool()) return;
    add = wanted->as_bool() && ids.empty();
    if (!wanted->as_bool()) ids.clear();
  };
  settle(vocabulary.prefix_ids, vocabulary.bos, vocabulary.add_bos, "add_bos_token");
  settle(vocabulary.suffix_ids, vocabulary.eos, vocabulary.add_eos, "add_eos_token");
  vocabulary.add_bos = vocabulary.add_bos && vocabulary.bos >= 0;
  vocabulary.add_eos = vocabulary.add_eos && vocabulary.eos >= 0;
}

std::shared_ptr<const MappedFile> map_file(const fs::path& path) {
  auto file = MappedFile::open(path);
  if (file->size() > kFileLimit) fail(ErrorCode::kFormat, "{} bytes are too many", file->size());
  return file;
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.size()};
}

}  // namespace

int find_end_of_turn(const Vocabulary& vocabulary) {
  for (std::string_view name : kEndOfTurn) {
    const int id = find_token(vocabulary, name);
    if (id >= 0) return id;
  }
  return -1;
}

Vocabulary load_vocabulary(const fs::path& folder) {
  const fs::path described = folder / "tokenizer.json";
  const fs::path model = folder / "tokenizer.model";
  const fs::path config_path = folder / "tokenizer_config.json";
  const json::Value config = parse_if_there(config_path);
  Vocabulary vocabulary;
  if (fs::exists(described)) {
    vocabulary = with_context(quoted(described), [&] { return parse_tokenizer_json(text_of(*map_file(described))); });
  } else if (fs::exists(model)) {
    vocabulary = with_context(quoted(model), [&] { return parse_spm_model(text_of(*map_file(model))); });
    vocabulary.pre = "default";
    vocabulary.add_bos = true;
    with_context(quoted(config_path), [&] { read_added_tokens_decoder(config, vocabulary); });
  } else {
    fail(ErrorCode::kNotFound, "no tokenizer in '{}': neither tokenizer.json nor tokenizer.model", folder.string());
  }
  with_context(quoted(config_path), [&] { read_named_tokens(config, true, vocabulary); });
  read_named_tokens(parse_if_there(folder / "special_tokens_map.json"), false, vocabulary);
  read_ids(parse_if_there(folder / "generation_config.json"), vocabulary);
  read_ids(parse_if_there(folder / "config.json"), vocabulary);
  settle_ends(config, vocabulary);
  if (vocabulary.eot < 0) vocabulary.eot = find_end_of_turn(vocabulary);
  with_context(quoted(folder), [&] { read_chat_template_files(folder, config, vocabulary); });
  return vocabulary;
}

}  // namespace nibble::token
