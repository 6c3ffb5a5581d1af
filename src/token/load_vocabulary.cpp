#include "base/atomic_file.h"
#include "base/error.h"
#include "json/json.h"
#include "token/spm_model.h"
#include "token/tokenizer.h"

namespace nibble::token {

namespace {

constexpr std::uint64_t kFileLimit = std::uint64_t{256} << 20;

// A token named in a configuration: a string, or an object with its text in "content".
std::string token_text(const json::Value* value) {
  if (value == nullptr) return {};
  if (value->is_string()) return value->as_string();
  if (value->is_object()) return value->get("content", "");
  return {};
}

int find_token(const Vocabulary& vocabulary, std::string_view text) {
  if (text.empty()) return -1;
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.tokens[i] == text) return static_cast<int>(i);
  }
  return -1;
}

void apply_configuration(const json::Value& config, Vocabulary& vocabulary) {
  const auto set = [&](const char* key, int& id) {
    const int found = find_token(vocabulary, token_text(config.find(key)));
    if (found >= 0) id = found;
  };
  set("bos_token", vocabulary.bos);
  set("eos_token", vocabulary.eos);
  set("unk_token", vocabulary.unk);
  set("pad_token", vocabulary.pad);
  vocabulary.add_bos = config.get("add_bos_token", vocabulary.add_bos);
  vocabulary.add_eos = config.get("add_eos_token", vocabulary.add_eos);
}

}  // namespace

Vocabulary load_vocabulary(const std::filesystem::path& folder) {
  const std::filesystem::path model = folder / "tokenizer.model";
  if (!std::filesystem::exists(model)) fail(ErrorCode::kNotFound, "no tokenizer in '{}': neither tokenizer.json nor tokenizer.model", folder.string());
  Vocabulary vocabulary = with_context("'" + model.string() + "'", [&] { return parse_spm_model(read_file(model, kFileLimit)); });
  vocabulary.pre = "default";
  vocabulary.add_bos = vocabulary.bos >= 0;
  const std::filesystem::path config = folder / "tokenizer_config.json";
  if (std::filesystem::exists(config)) apply_configuration(json::parse_file(config, kFileLimit), vocabulary);
  return vocabulary;
}

}  // namespace nibble::token
