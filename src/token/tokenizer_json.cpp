#include "token/tokenizer_json.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "json/json.h"
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

// The file with its two long lists, model.vocab and model.merges, left where they are.
struct Parts {
  json::Value rest{json::Object{}};
  json::Value model{json::Object{}};
  std::optional<json::Document::Element> vocab, merges;
};

Parts take_apart(const json::Document& document) {
  Parts parts;
  document.root().for_each_member([&](std::string_view key, json::Document::Element part) {
    if (key != "model") {
      parts.rest.set(key, part.value());
      return;
    }
    part.for_each_member([&](std::string_view name, json::Document::Element member) {
      if (name == "vocab") {
        parts.vocab = member;
      } else if (name == "merges") {
        parts.merges = member;
      } else {
        parts.model.set(name, member.value());
      }
    });
  });
  if (!parts.vocab) fail(ErrorCode::kFormat, "no 'model' with a 'vocab'");
  return parts;
}

void read_merges(const json::Document::Element& merges, Vocabulary& vocabulary) {
  vocabulary.merges.reserve(merges.size());
  merges.for_each([&](json::Document::Element merge) {
    const std::size_t rank = vocabulary.merges.size();
    if (merge.is_array()) {
      std::string_view halves[2];
      std::size_t n = 0;
      merge.for_each([&](json::Document::Element half) {
        if (n < 2) halves[n] = half.as_string();
        ++n;
      });
      if (n != 2) fail(ErrorCode::kFormat, "merge {} has {} parts", rank, n);
      vocabulary.merges.emplace_back(halves[0], halves[1]);
      return;
    }
    const std::string_view line = merge.as_string();
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || space == 0 || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string_view::npos) {
      fail(ErrorCode::kFormat, "merge {} is '{}', not two parts", rank, line);
    }
    vocabulary.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  });
}

void read_bpe(const Parts& parts, Vocabulary& vocabulary) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!parts.model.get(key, "").empty()) fail(ErrorCode::kUnsupported, "BPE with '{}'", key);
  }
  const json::Value* added = parts.rest.find("added_tokens");
  const std::size_t n_added = added != nullptr && added->is_array() ? added->as_array().size() : 0;
  const std::size_t n_tokens = parts.vocab->size();
  const auto limit = static_cast<std::int64_t>(n_tokens + n_added) + kMaxGap;
  vocabulary.tokens.reserve(n_tokens + n_added);
  parts.vocab->for_each_member([&](std::string_view text, json::Document::Element id) {
    place(vocabulary, id.as_int(), text, TokenType::kNormal, limit);
  });
  vocabulary.ignore_merges = parts.model.get("ignore_merges", false);
  vocabulary.fuse_unknown = parts.model.get("fuse_unk", false);
  if (!parts.merges) fail(ErrorCode::kFormat, "BPE without 'merges'");
  read_merges(*parts.merges, vocabulary);
}

void read_unigram(const Parts& parts, Vocabulary& vocabulary) {
  parts.vocab->for_each([&](json::Document::Element pair) {
    const std::size_t i = vocabulary.tokens.size();
    std::string_view text;
    double score = 0;
    std::size_t n = 0;
    pair.for_each([&](json::Document::Element part) {
      if (n == 0) text = part.as_string();
      if (n == 1) score = part.as_number();
      ++n;
    });
    if (n != 2) fail(ErrorCode::kFormat, "unigram token {} has {} parts", i, n);
    if (!std::isfinite(static_cast<float>(score)))
      fail(ErrorCode::kFormat, "unigram token {} has the score {}", i, score);
    vocabulary.tokens.emplace_back(text);
    vocabulary.types.push_back(TokenType::kNormal);
    vocabulary.scores.push_back(static_cast<float>(score));
  });
  const std::int64_t unknown = parts.model.get("unk_id", -1);
  const auto n_tokens = static_cast<std::int64_t>(vocabulary.tokens.size());
  if (unknown >= n_tokens) fail(ErrorCode::kFormat, "unk_id {} of {} tokens", unknown, n_tokens);
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
    const TokenType type = id == vocabulary.unk ? TokenType::kUnknown
                           : added.special      ? TokenType::kControl
                                                : TokenType::kUserDefined;
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
  StringIndex index(vocabulary.tokens);
  for (std::size_t i = 0; i < size; ++i) index.insert(i);
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

bool is_byte_token(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with(">");
}

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

void read_model(const Parts& parts, Vocabulary& vocabulary) {
  std::string type = parts.model.get("type", "");
  if (type.empty()) type = parts.merges ? "BPE" : "Unigram";  // files of old versions
  if (type == "BPE") {
    const bool byte_level =
        mentions_byte_level(parts.rest.find("pre_tokenizer")) || mentions_byte_level(parts.rest.find("decoder"));
    vocabulary.kind = byte_level ? TokenizerKind::kByteBpe : TokenizerKind::kSpmBpe;
    read_bpe(parts, vocabulary);
    const std::string unknown = parts.model.get("unk_token", "");
    const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), unknown);
    if (!unknown.empty() && found != vocabulary.tokens.end()) {
      vocabulary.unk = static_cast<int>(found - vocabulary.tokens.begin());
      vocabulary.types[static_cast<std::size_t>(vocabulary.unk)] = TokenType::kUnknown;
    }
  } else if (type == "Unigram") {
    vocabulary.kind = TokenizerKind::kSpmUnigram;
    read_unigram(parts, vocabulary);
  } else {
    fail(ErrorCode::kUnsupported, "tokenizer model '{}' (BPE and Unigram are supported)", type);
  }
  if (vocabulary.tokens.empty()) fail(ErrorCode::kFormat, "the vocabulary is empty");
  if (vocabulary.kind != TokenizerKind::kByteBpe) mark_byte_tokens(parts.model, vocabulary);
}

}  // namespace

Vocabulary parse_tokenizer_json(std::string_view text) {
  const json::Document document(text);
  const Parts parts = take_apart(document);
  const json::Value& file = parts.rest;
  Vocabulary vocabulary;
  vocabulary.huggingface = true;
  vocabulary.unknown_text.clear();
  with_context("model", [&] { read_model(parts, vocabulary); });
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
