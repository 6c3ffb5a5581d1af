// What all tokenizers share: added tokens around stretches of text, ids before and after, the checked vocabulary.
#pragma once

#include <map>

#include "token/added_tokens.h"
#include "token/text_normalizer.h"
#include "token/tokenizer.h"

namespace nibble::token {

class TextTokenizer : public Tokenizer {
 public:
  std::vector<TokenId> encode(std::string_view text, EncodeOptions options) const final;
  const Vocabulary& vocabulary() const final { return vocabulary_; }

 protected:
  // Throws Error{kFormat} where lengths differ or ids are out of range.
  explicit TextTokenizer(Vocabulary vocabulary);
  // Ids of one stretch between added tokens, normalised by the vocabulary's steps, not empty; `first` is false after an
  // added token.
  virtual void encode_text(std::string_view text, bool first, std::vector<TokenId>& ids) const = 0;

  // A token as text holds it: the file's spelling, normalised for tokens that are looked for in the normalised text.
  const std::string& spelling(TokenId id) const;

  const Vocabulary vocabulary_;

 private:
  TextNormalizer normalizer_;
  AddedTokens added_;             // in the text as it is
  AddedTokens normalized_added_;  // in the normalised text
  std::map<TokenId, std::string> respelled_;
  std::vector<TokenId> before_, after_;
};

}  // namespace nibble::token
