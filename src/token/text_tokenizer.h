// What all tokenizers share: added tokens around stretches of text, ids before and after, the checked vocabulary.
#pragma once

#include "token/added_tokens.h"
#include "token/tokenizer.h"

namespace nibble::token {

class TextTokenizer : public Tokenizer {
 public:
  std::vector<TokenId> encode(std::string_view text, EncodeOptions options) const final;
  const Vocabulary& vocabulary() const final { return vocabulary_; }

 protected:
  // Throws Error{kFormat} where lengths differ, ids are out of range or a token is not UTF-8.
  explicit TextTokenizer(Vocabulary vocabulary);
  // Ids of one stretch without added tokens, not empty; `first` is false after an added token.
  virtual void encode_text(std::string_view text, bool first, bool parse_special, std::vector<TokenId>& ids) const = 0;
  // The text as added tokens are looked for in it (malformed bytes replaced where the kind's reference knows valid text only).
  virtual std::string_view prepare(std::string_view text, std::string& buffer) const = 0;

  const Vocabulary vocabulary_;

 private:
  AddedTokens added_;
  std::vector<TokenId> before_, after_;
};

}  // namespace nibble::token
