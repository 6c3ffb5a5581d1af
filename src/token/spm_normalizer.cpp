#include "token/spm_normalizer.h"

#include "token/utf8.h"

namespace nibble::token {

SpmNormalizer::SpmNormalizer(const Vocabulary& vocabulary)
    : charsmap_(vocabulary.precompiled_charsmap),
      dummy_prefix_(vocabulary.add_space_prefix),
      remove_extra_(vocabulary.remove_extra_whitespaces) {
  if (vocabulary.huggingface) return;  // there user-defined tokens are added tokens
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.types[i] == TokenType::kUserDefined) user_defined_.insert(vocabulary.tokens[i], static_cast<int>(i));
  }
}

// The normal form of the first rule, symbol or character of `text`.
std::string_view SpmNormalizer::next(std::string_view text, std::size_t& consumed) const {
  if (!user_defined_.empty() && user_defined_.longest(text, consumed) >= 0) return text.substr(0, consumed);
  std::string_view replacement;
  if (charsmap_.longest(text, consumed, replacement)) return replacement;
  consumed = static_cast<std::size_t>(decode_utf8(text).length);
  if (consumed > 0) return text.substr(0, consumed);
  consumed = 1;
  return kReplacementCharacter;
}

std::string SpmNormalizer::normalize(std::string_view text, bool prefix) const {
  std::string out;
  std::size_t consumed;
  if (remove_extra_) {
    while (!text.empty() && next(text, consumed) == " ") text.remove_prefix(consumed);
  }
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 2);
  if (prefix && dummy_prefix_) out += kSpaceSymbol;
  bool after_space = remove_extra_;
  while (!text.empty()) {
    std::string_view part = next(text, consumed);
    while (after_space && part.starts_with(' ')) part.remove_prefix(1);
    if (!part.empty()) {
      for (char c : part) {
        if (c == ' ') {
          out += kSpaceSymbol;
        } else {
          out += c;
        }
      }
      after_space = remove_extra_ && part.back() == ' ';
    }
    text.remove_prefix(consumed);
  }
  if (remove_extra_) {
    while (out.ends_with(kSpaceSymbol)) out.resize(out.size() - kSpaceSymbol.size());
  }
  return out;
}

}  // namespace nibble::token
