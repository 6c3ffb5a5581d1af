// Text to token ids and back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "token/vocabulary.h"

namespace nibble::token {

using TokenId = std::int32_t;

struct EncodeOptions {
  bool add_special = true;    // beginning and end tokens, as the model's files ask for
  bool parse_special = true;  // control tokens spelled in the text become tokens; otherwise they are plain text
};

// Immutable and thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Any bytes are accepted; invalid UTF-8 is treated as the reference implementation of the kind does.
  virtual std::vector<TokenId> encode(std::string_view text, EncodeOptions options = {}) const = 0;
  // The bytes of one token as they appear in text ("" for control tokens unless `spell_special`).
  // Throws Error{kInvalidArgument} for an id outside the vocabulary.
  virtual std::string token_bytes(TokenId id, bool spell_special = false) const = 0;
  // Text of the ids, valid UTF-8; the first token's artificial space prefix is removed as the reference does.
  std::string decode(std::span<const TokenId> ids, bool spell_special = false) const;
  virtual const Vocabulary& vocabulary() const = 0;
  int size() const { return static_cast<int>(vocabulary().tokens.size()); }
};

// Feeds out text as tokens arrive, never splitting a UTF-8 sequence. What it gives in all is decode() of the same ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool spell_special = false)
      : tokenizer_(tokenizer), spell_special_(spell_special) {}
  std::string push(TokenId id);  // text that became complete with this token
  std::string finish();          // what is left, incomplete bytes replaced by U+FFFD

 private:
  std::string take(bool all);
  const Tokenizer& tokenizer_;
  bool spell_special_;
  std::string pending_;
  bool first_ = true;
};

// The token that ends a turn by its usual names, for files that do not say which it is; -1 without one.
int find_end_of_turn(const Vocabulary& vocabulary);
std::unique_ptr<Tokenizer> make_tokenizer(Vocabulary vocabulary);
// From a Hugging Face folder: tokenizer.json, else tokenizer.model, with tokenizer_config.json,
// special_tokens_map.json, generation_config.json and chat_template.jinja beside it. Throws Error{kNotFound} when there
// is none.
Vocabulary load_vocabulary(const std::filesystem::path& folder);

}  // namespace nibble::token
