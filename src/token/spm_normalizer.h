// SentencePiece's text normaliser: precompiled rules, white space to U+2581, the dummy prefix, extra white space
// removed.
#pragma once

#include <string>
#include <string_view>

#include "token/charsmap.h"
#include "token/tables.h"
#include "token/vocabulary.h"

namespace nibble::token {

class SpmNormalizer {
 public:
  explicit SpmNormalizer(const Vocabulary& vocabulary);
  // Malformed bytes become one U+FFFD each. `prefix`: put the dummy prefix in front, where the vocabulary has one.
  std::string normalize(std::string_view text, bool prefix) const;
  // User-defined symbols: they pass unchanged and are never split.
  const ByteTrie& user_defined() const { return user_defined_; }

 private:
  std::string_view next(std::string_view text, std::size_t& consumed) const;
  Charsmap charsmap_;
  ByteTrie user_defined_;
  bool dummy_prefix_;
  bool remove_extra_;
};

}  // namespace nibble::token
