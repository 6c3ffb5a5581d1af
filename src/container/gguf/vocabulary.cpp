#include "container/gguf/vocabulary.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "token/pre_tokenizer.h"
#include "token/tokenizer.h"

namespace nibble::container::gguf {

namespace {

using token::TokenizerKind;
using token::TokenType;
using token::Vocabulary;

constexpr std::string_view kModel = "tokenizer.ggml.model";
constexpr std::string_view kPre = "tokenizer.ggml.pre";
constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kScores = "tokenizer.ggml.scores";
constexpr std::string_view kTypes = "tokenizer.ggml.token_type";
constexpr std::string_view kMerges = "tokenizer.ggml.merges";
constexpr std::string_view kAddBos = "tokenizer.ggml.add_bos_token";
constexpr std::string_view kAddEos = "tokenizer.ggml.add_eos_token";
constexpr std::string_view kAddSpacePrefix = "tokenizer.ggml.add_space_prefix";
constexpr std::string_view kRemoveSpaces = "tokenizer.ggml.remove_extra_whitespaces";
constexpr std::string_view kCharsmap = "tokenizer.ggml.precompiled_charsmap";
constexpr std::string_view kChatTemplate = "tokenizer.chat_template";
constexpr std::string_view kChatTemplates = "tokenizer.chat_templates";  // names of further ones
constexpr std::string_view kSpace = " ";
constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581, SentencePiece's space

constexpr float kUnusedScore = -10000.0f;  // of tokens that only fill up

// What files of each kind mean when they leave a key out (llama.cpp, src/llama-vocab.cpp).
struct KindDefaults {
  TokenizerKind kind;
  std::string_view model;
  int bos, eos, unk, pad;
  bool add_bos, add_eos, add_space_prefix;
};
constexpr KindDefaults kKinds[] = {
    {TokenizerKind::kSpmBpe, "llama", 1, 2, 0, -1, true, false, true},
    {TokenizerKind::kSpmUnigram, "t5", -1, 1, 2, 0, false, true, false},
    {TokenizerKind::kByteBpe, "gpt2", 11, 11, -1, -1, false, false, false},
};

struct SpecialId {
  std::string_view key;
  int Vocabulary::*id;
};
constexpr SpecialId kSpecialIds[] = {
    {"tokenizer.ggml.bos_token_id", &Vocabulary::bos},     {"tokenizer.ggml.eos_token_id", &Vocabulary::eos},
    {"tokenizer.ggml.unknown_token_id", &Vocabulary::unk}, {"tokenizer.ggml.padding_token_id", &Vocabulary::pad},
    {"tokenizer.ggml.eot_token_id", &Vocabulary::eot},
};

std::string named_template_key(std::string_view name) { return format_text("{}.{}", kChatTemplate, name); }

const KindDefaults& kind_named(std::string_view model) {
  const auto it = std::ranges::find(kKinds, model, &KindDefaults::model);
  if (it == std::end(kKinds)) fail(ErrorCode::kUnsupported, "tokenizers of kind '{}' are not supported", model);
  return *it;
}

void check_length(std::string_view key, std::size_t found, std::size_t wanted) {
  if (found != wanted) fail(ErrorCode::kFormat, "'{}' has {} elements, '{}' has {}", key, found, kTokens, wanted);
}

std::vector<TokenType> read_types(const Metadata& metadata, std::size_t n_tokens) {
  if (!metadata.contains(kTypes)) return std::vector<TokenType>(n_tokens, TokenType::kNormal);
  const auto ids = metadata.get_ints(kTypes);
  check_length(kTypes, ids.size(), n_tokens);
  std::vector<TokenType> types;
  types.reserve(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] > static_cast<std::int64_t>(TokenType::kByte)) {
      fail(ErrorCode::kFormat, "'{}': token {} has the unknown type {}", kTypes, i, ids[i]);
    }
    types.push_back(static_cast<TokenType>(ids[i]));
  }
  return types;
}

std::vector<float> read_scores(const Metadata& metadata, std::size_t n_tokens) {
  if (!metadata.contains(kScores)) return std::vector<float>(n_tokens, 0.0f);
  auto scores = metadata.get_floats(kScores);
  check_length(kScores, scores.size(), n_tokens);
  return scores;
}

// "left right", divided at the first space behind the first byte.
std::vector<std::pair<std::string, std::string>> read_merges(const Metadata& metadata) {
  const auto& lines = metadata.get_strings(kMerges);
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::size_t space = lines[i].find(' ', 1);
    if (space == std::string::npos)
      fail(ErrorCode::kFormat, "'{}': merge {} is '{}', not two parts", kMerges, i, lines[i]);
    merges.emplace_back(lines[i].substr(0, space), lines[i].substr(space + 1));
  }
  return merges;
}

std::vector<std::string> join_merges(const Vocabulary& vocabulary) {
  std::vector<std::string> lines;
  lines.reserve(vocabulary.merges.size());
  for (const auto& [left, right] : vocabulary.merges) lines.push_back(left + " " + right);
  return lines;
}

std::string read_charsmap(const Metadata& metadata) {
  std::string bytes;
  if (!metadata.contains(kCharsmap)) return bytes;
  const auto values = metadata.get_ints(kCharsmap);
  bytes.reserve(values.size());
  for (const std::int64_t value : values) bytes += static_cast<char>(value);
  return bytes;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (std::size_t at = 0;;) {
    const std::size_t hit = text.find(from, at);
    result += text.substr(at, hit - at);
    if (hit == std::string_view::npos) return result;
    result += to;
    at = hit + from.size();
  }
}

// GGUF spells the spaces of SentencePiece's user-defined tokens as spaces, those of all other tokens as U+2581.
void respell_user_defined(Vocabulary& vocabulary, std::string_view from, std::string_view to) {
  if (vocabulary.kind == TokenizerKind::kByteBpe) return;
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.types[i] == TokenType::kUserDefined)
      vocabulary.tokens[i] = replace_all(vocabulary.tokens[i], from, to);
  }
}

void resize(Vocabulary& vocabulary, std::size_t n_tokens) {
  const std::size_t n_old = vocabulary.tokens.size();
  vocabulary.tokens.resize(n_tokens);
  vocabulary.types.resize(n_tokens, TokenType::kUnused);
  if (vocabulary.kind != TokenizerKind::kByteBpe) vocabulary.scores.resize(n_tokens, kUnusedScore);
  for (std::size_t i = n_old; i < n_tokens; ++i) vocabulary.tokens[i] = format_text("[PAD{}]", i);
  for (const auto& [key, id] : kSpecialIds) {
    if (vocabulary.*id >= static_cast<std::int64_t>(n_tokens)) vocabulary.*id = -1;
  }
}

std::vector<std::int32_t> type_numbers(const Vocabulary& vocabulary) {
  std::vector<std::int32_t> numbers;
  numbers.reserve(vocabulary.types.size());
  for (const TokenType type : vocabulary.types) numbers.push_back(static_cast<std::int32_t>(type));
  return numbers;
}

void read_byte_level(const Metadata& metadata, Vocabulary& vocabulary) {
  vocabulary.merges = read_merges(metadata);
  const token::PreTokenizer* pre = token::find_pre_tokenizer(vocabulary.pre);
  if (pre == nullptr) fail(ErrorCode::kUnsupported, "'{}': the pre-tokenizer '{}' is unknown", kPre, vocabulary.pre);
  vocabulary.split_patterns = pre->patterns;
  vocabulary.ignore_merges = pre->ignore_merges;
  vocabulary.add_bos = pre->add_bos;
}

void read_sentence_piece(const Metadata& metadata, Vocabulary& vocabulary) {
  vocabulary.scores = read_scores(metadata, vocabulary.tokens.size());
  vocabulary.byte_fallback = std::ranges::find(vocabulary.types, TokenType::kByte) != vocabulary.types.end();
  vocabulary.precompiled_charsmap = read_charsmap(metadata);
  respell_user_defined(vocabulary, kSpace, kSpaceSymbol);
}

void read_special_ids(const Metadata& metadata, Vocabulary& vocabulary) {
  const auto n_tokens = static_cast<std::int64_t>(vocabulary.tokens.size());
  for (const auto& [key, id] : kSpecialIds) {
    const std::int64_t value = metadata.get_int(key, vocabulary.*id);
    vocabulary.*id = value >= 0 && value < n_tokens ? static_cast<int>(value) : -1;
  }
  if (vocabulary.eot < 0) vocabulary.eot = token::find_end_of_turn(vocabulary);
}

}  // namespace

Vocabulary read_vocabulary(const Metadata& metadata) {
  const std::string model = metadata.get_string(kModel, "no_vocab");
  if (model == "no_vocab" || model == "none") fail(ErrorCode::kNotFound, "the file has no vocabulary ('{}')", kModel);
  const KindDefaults& defaults = kind_named(model);
  Vocabulary v;
  v.kind = defaults.kind;
  v.tokens = metadata.get_strings(kTokens);
  if (v.tokens.empty()) fail(ErrorCode::kFormat, "'{}' is empty", kTokens);
  v.types = read_types(metadata, v.tokens.size());
  v.pre = metadata.get_string(kPre, "default");
  v.add_bos = defaults.add_bos;
  if (v.kind == TokenizerKind::kByteBpe) {
    read_byte_level(metadata, v);
  } else {
    read_sentence_piece(metadata, v);
  }
  v.bos = defaults.bos;
  v.eos = defaults.eos;
  v.unk = defaults.unk;
  v.pad = defaults.pad;
  read_special_ids(metadata, v);
  v.add_bos = metadata.get_bool(kAddBos, v.add_bos);
  v.add_eos = metadata.get_bool(kAddEos, defaults.add_eos);
  v.add_space_prefix = metadata.get_bool(kAddSpacePrefix, defaults.add_space_prefix);
  v.remove_extra_whitespaces = metadata.get_bool(kRemoveSpaces, false);
  v.chat_template = metadata.get_string(kChatTemplate, "");
  if (metadata.contains(kChatTemplates)) {
    for (const std::string& name : metadata.get_strings(kChatTemplates)) {
      const std::string key = named_template_key(name);
      if (metadata.contains(key)) v.named_chat_templates.emplace_back(name, metadata.get_string(key, ""));
    }
  }
  return v;
}

void write_vocabulary(const Vocabulary& source, Metadata& metadata, std::int64_t n_rows) {
  if (source.pre.empty()) {
    fail(ErrorCode::kUnsupported, "GGUF has no name for the pre-tokenizer of this vocabulary ('{}')", kPre);
  }
  Vocabulary v = source;
  respell_user_defined(v, kSpaceSymbol, kSpace);
  if (n_rows > 0) resize(v, static_cast<std::size_t>(n_rows));
  if (metadata.contains(kChatTemplates)) {
    for (const std::string& name : metadata.get_strings(kChatTemplates)) metadata.erase(named_template_key(name));
  }
  for (const std::string_view key : {kScores, kMerges, kRemoveSpaces, kCharsmap, kChatTemplate, kChatTemplates}) {
    metadata.erase(key);
  }
  metadata.set(kModel, std::string(std::ranges::find(kKinds, v.kind, &KindDefaults::kind)->model));
  metadata.set(kPre, v.pre);
  metadata.set(kTokens, MetaArray{std::move(v.tokens)});
  if (v.kind != TokenizerKind::kByteBpe) metadata.set(kScores, MetaArray{std::move(v.scores)});
  metadata.set(kTypes, MetaArray{type_numbers(v)});
  if (v.kind == TokenizerKind::kByteBpe) metadata.set(kMerges, MetaArray{join_merges(v)});
  for (const auto& [key, id] : kSpecialIds) {
    metadata.erase(key);
    if (v.*id >= 0) metadata.set(key, static_cast<std::uint32_t>(v.*id));
  }
  metadata.set(kAddBos, v.add_bos);
  metadata.set(kAddEos, v.add_eos);
  metadata.set(kAddSpacePrefix, v.add_space_prefix);
  if (v.remove_extra_whitespaces) metadata.set(kRemoveSpaces, true);
  if (!v.precompiled_charsmap.empty()) {
    metadata.set(kCharsmap,
                 MetaArray{std::vector<std::uint8_t>(v.precompiled_charsmap.begin(), v.precompiled_charsmap.end())});
  }
  if (!v.chat_template.empty()) metadata.set(kChatTemplate, v.chat_template);
  if (v.named_chat_templates.empty()) return;
  std::vector<std::string> names;
  for (const auto& [name, text] : v.named_chat_templates) {
    names.push_back(name);
    metadata.set(named_template_key(name), text);
  }
  metadata.set(kChatTemplates, MetaArray{std::move(names)});
}

}  // namespace nibble::container::gguf
