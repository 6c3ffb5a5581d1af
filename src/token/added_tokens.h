// Finds added and special tokens in a text before it is tokenized.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "token/tables.h"
#include "token/text_normalizer.h"
#include "token/vocabulary.h"

namespace nibble::token {

// A stretch of text, or the one token that it is.
struct Segment {
  std::string_view text;
  int id = -1;  // -1: text
};

class AddedTokens {
 public:
  // The tokens that are looked for in the text as it is: those of `vocabulary.added`, or where that list is empty all
  // tokens of the types that stand apart (control and unknown; for byte-level BPE user-defined too).
  explicit AddedTokens(const Vocabulary& vocabulary);
  // The tokens that are looked for in the normalised text, spelled as the normaliser leaves them.
  AddedTokens(const Vocabulary& vocabulary, const TextNormalizer& normalizer);
  // Leftmost, longest first. Tokens marked special only where `parse_special`.
  std::vector<Segment> split(std::string_view text, bool parse_special) const;
  bool empty() const { return tokens_.empty(); }

 private:
  void add(std::string_view text, const AddedToken& token);
  const AddedToken* match(std::string_view text, std::size_t at, bool parse_special, std::size_t& length) const;
  ByteTrie trie_;  // -> index in tokens_
  std::vector<AddedToken> tokens_;
  bool first_byte_[256] = {};
};

}  // namespace nibble::token
