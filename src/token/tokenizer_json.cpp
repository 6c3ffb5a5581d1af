#include "token/tokenizer_json.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "token/pre_tokenizer.h"
#include "token/tables.h"
#include "token/tokenizer_json_parts.h"
#include "token/utf8.h"

namespace nibble::token {

namespace {

constexpr std::int64_t kMaxGap = 1 << 16;  // ids without a token, in all

bool mentions_byte_level(const json::Value* part) {
  if (part == nullptr || !part->is_object()) return false;
  if (part->get("type", "") == "ByteLevel") return true;
  for (const char* key : {"pretokenizers", "decoders"}) {
    const json::Value* list = part->find(key);
    if (list == nullptr || !list->is_array()) continue;
    for (const json::Value& inner : list->as_array()) {
      if (mentions_byte_level(&inner)) return true;
    }
  }
  return false;
}

// Puts a token at its id; a second one with another text is an error.
void place(Vocabulary& vocabulary, std::int64_t id, std::string_view text, TokenType type, std::int64_t limit) {
  if (id < 0 || id >= limit) fail(ErrorCode::kFormat, "token '{}' has the id {}: outside 0 to {}", text, id, limit - 1);
  const auto at = static_cast<std::size_t>(id);
  if (at >= vocabulary.tokens.size()) {
    vocabulary.tokens.resize(at + 1);
    vocabulary.types.resize(at + 1, TokenType::kUndefined);
  }
  if (vocabulary.types[at] != TokenType::kUndefined && vocabulary.tokens[at] != text) {
    fail(ErrorCode::kFormat, "tokens '{}' and '{}' share the id {}", vocabulary.tokens[at], text, id);
  }
  vocabulary.tokens[at] = text;
  vocabulary.types[at] = type;
}

void read_merges(const json::Value& model, Vocabulary& vocabulary) {
  const json::Array& merges = model.at("merges").as_array();
  vocabulary.merges.reserve(merges.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const json::Value& merge = merges[rank];
    if (merge.is_array()) {
      const json::Array& pair = merge.as_array();
      if (pair.size() != 2) fail(ErrorCode::kFormat, "merge {} has {} parts", rank, pair.size());
      vocabulary.merges.emplace_back(pair[0].as_string(), pair[1].as_string());
      continue;
    }
    const std::string& line = merge.as_string();
    const std::size_t space = line.find(' ');
    if (space == std::string::npos || space == 0 || space + 1 == line.size() || line.find(' ', space + 1) != std::string::npos) {
      fail(ErrorCode::kFormat, "merge {} is '{}', not two parts", rank, line);
    }
    vocabulary.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
}

void read_bpe(const json::Value& model, Vocabulary& vocabulary, std::int64_t n_added) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.get(key, "").empty()) fail(ErrorCode::kUnsupported, "BPE with '{}'", key);
  }
  const json::Object& tokens = model.at("vocab").as_object();
  const std::int64_t limit = static_cast<std::int64_t>(tokens.size()) + n_added + kMaxGap;
  vocabulary.tokens.reserve(tokens.size() + static_cast<std::size_t>(n_added));
  for (const auto& [text, id] : tokens) place(vocabulary, id.as_int(), text, TokenType::kNormal, limit);
  vocabulary.ignore_merges = model.get("ignore_merges", false);
  vocabulary.fuse_unknown = model.get("fuse_unk", false);
  read_merges(model, vocabulary);
}

void read_unigram(const json::Value& model, Vocabulary& vocabulary) {
  const json::Array& tokens = model.at("vocab").as_array();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const json::Array& pair = tokens[i].as_array();
    if (pair.size() != 2) fail(ErrorCode::kFormat, "unigram token {} has {} parts", i, pair.size());
    const double score = pair[1].as_number();
    if (!std::isfinite(static_cast<float>(score))) fail(ErrorCode::kFormat, "unigram token {} has the score {}", i, score);
    vocabulary.tokens.push_back(pair[0].as_string());
    vocabulary.types.push_back(TokenType::kNormal);
    vocabulary.scores.push_back(static_cast<float>(score));
  }
  const std::int64_t unknown = model.get("unk_id", -1);
  if (unknown >= static_cast<std::int64_t>(tokens.size())) fail(ErrorCode::kFormat, "unk_id {} of {} tokens", unknown, tokens.size());
  if (unknown >= 0) vocabulary.types[static_cast<std::size_t>(unknown)] = TokenType::kUnknown;
  vocabulary.unk = static_cast<int>(std::max<std::int64_t>(unknown, -1));
}

void read_added_tokens(const json::Value& file, Vocabulary& vocabulary) {
  const json::Value* list = file.find("added_tokens");
  if (list == nullptr || list->is_null()) return;
  const json::Array& tokens = list->as_array();
  const auto limit = static_cast<std::int64_t>(vocabulary.tokens.size() + tokens.size()) + kMaxGap;
  for (const json::Value& token : tokens) {
    AddedToken added;
    const std::int64_t id = token.at("id").as_int();
    const std::string& text = token.at("content").as_string();
    added.special = token.get("special", false);
    added.lstrip = token.get("lstrip", false);
    added.rstrip = token.get("rstrip", false);
    added.single_word = token.get("single_word", false);
    added.normalized = token.get("normalized", !added.special);
    const TokenType type = id == vocabulary.unk ? TokenType::kUnknown : added.special ? TokenType::kControl : TokenType::kUserDefined;
    place(vocabulary, id, text, type, limit);
    added.id = static_cast<int>(id);
    vocabulary.added.push_back(added);
  }
}

void fill_gaps(Vocabulary& vocabulary) {
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.types[i] != TokenType::kUndefined) continue;
    vocabulary.tokens[i] = format_text("[PAD{}]", i);
    vocabulary.types[i] = TokenType::kUnused;
  }
}

// SentencePiece's view of the merges: the score of a piece falls with the rank of the first merge that makes it.
void score_by_merges(Vocabulary& vocabulary) {
  const std::size_t size = vocabulary.tokens.size();
  vocabulary.scores.assign(size, 0.0f);
  StringIndex index(size);
  for (std::size_t i = 0; i < size; ++i) index.insert(vocabulary.tokens[i], static_cast<int>(i));
  std::vector<bool> made(size);
  std::string joined;
  for (std::size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    joined.assign(vocabulary.merges[rank].first).append(vocabulary.merges[rank].second);
    const int id = index.find(joined);
    if (id < 0 || made[static_cast<std::size_t>(id)]) continue;
    made[static_cast<std::size_t>(id)] = true;
    vocabulary.scores[static_cast<std::size_t>(id)] = -static_cast<float>(rank);
  }
}

bool is_byte_token(std::string_view token) { return token.size() == 6 && token.starts_with("<0x") && token.ends_with(">"); }

// Byte fallback counts only where all 256 byte tokens are there.
void mark_byte_tokens(const json::Value& model, Vocabulary& vocabulary) {
  if (!model.get("byte_fallback", false)) return;
  std::vector<std::size_t> bytes;
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (is_byte_token(vocabulary.tokens[i]) && vocabulary.types[i] == TokenType::kNormal) bytes.push_back(i);
  }
  vocabulary.byte_fallback = bytes.size() == 256;
  if (!vocabulary.byte_fallback) return;
  for (std::size_t i : bytes) vocabulary.types[i] = TokenType::kByte;
}

void read_model(const json::Value& file, Vocabulary& vocabulary) {
  const json::Value& model = file.at("model");
  std::string type = model.get("type", "");
  if (type.empty()) type = model.find("merges") != nullptr ? "BPE" : "Unigram";  // files of old versions
  const json::Value* added = file.find("added_tokens");
  const std::int64_t n_added = added != nullptr && added->is_array() ? static_cast<std::int64_t>(added->as_array().size()) : 0;
  if (type == "BPE") {
    const bool byte_level = mentions_byte_level(file.find("pre_tokenizer")) || mentions_byte_level(file.find("decoder"));
    vocabulary.kind = byte_level ? TokenizerKind::kByteBpe : TokenizerKind::kSpmBpe;
    read_bpe(model, vocabulary, n_added);
    const std::string unknown = model.get("unk_token", "");
    const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), unknown);
    if (!unknown.empty() && found != vocabulary.tokens.end()) {
      vocabulary.unk = static_cast<int>(found - vocabulary.tokens.begin());
      vocabulary.types[static_cast<std::size_t>(vocabulary.unk)] = TokenType::kUnknown;
    }
  } else if (type == "Unigram") {
    vocabulary.kind = TokenizerKind::kSpmUnigram;
    read_unigram(model, vocabulary);
  } else {
    fail(ErrorCode::kUnsupported, "tokenizer model '{}' (BPE and Unigram are supported)", type);
  }
  if (vocabulary.tokens.empty()) fail(ErrorCode::kFormat, "the vocabulary is empty");
  if (vocabulary.kind != TokenizerKind::kByteBpe) mark_byte_tokens(model, vocabulary);
}

}  // namespace

Vocabulary parse_tokenizer_json(const json::Value& file) {
  Vocabulary vocabulary;
  vocabulary.huggingface = true;
  vocabulary.unknown_text.clear();
  with_context("model", [&] { read_model(file, vocabulary); });
  with_context("added_tokens", [&] { read_added_tokens(file, vocabulary); });
  fill_gaps(vocabulary);
  const auto part = [&](const char* name, auto&& read) {
    const json::Value* value = file.find(name);
    if (value != nullptr && !value->is_null()) with_context(name, [&] { read(*value, vocabulary); });
  };
  part("normalizer", read_normalizer);
  part("pre_tokenizer", read_pre_tokenizer);
  part("post_processor", read_post_processor);
  if (vocabulary.kind == TokenizerKind::kByteBpe) {
    vocabulary.pre = match_pre_tokenizer(vocabulary.split_patterns, vocabulary.ignore_merges);
  } else {
    vocabulary.pre = "default";
    vocabulary.scores.resize(vocabulary.tokens.size(), 0.0f);
    if (vocabulary.kind == TokenizerKind::kSpmBpe) score_by_merges(vocabulary);
    describe_for_gguf(vocabulary);
  }
  return vocabulary;
}

}  // namespace nibble::token
