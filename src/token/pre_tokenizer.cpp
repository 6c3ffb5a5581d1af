#include "token/pre_tokenizer.h"

#include <algorithm>

namespace nibble::token {

Splitter::Splitter(std::span<const std::string> patterns) {
  for (const std::string& pattern : patterns) regexes_.emplace_back(pattern);
}

const std::vector<Span>& Splitter::split(std::string_view text, Scratch& scratch) const {
  scratch.pieces.clear();
  if (!text.empty()) scratch.pieces.push_back({0, text.size()});
  std::vector<Span> cut;
  for (const Regex& regex : regexes_) {
    cut.clear();
    for (const Span& piece : scratch.pieces) {
      scratch.matches.clear();
      regex.find_all(text.substr(piece.begin, piece.end - piece.begin), scratch.regex, scratch.matches);
      std::size_t done = piece.begin;
      const auto add = [&](std::size_t end) {
        if (end > done) cut.push_back({done, end});
        done = std::max(done, end);
      };
      for (const Span& match : scratch.matches) {
        add(piece.begin + match.begin);
        add(piece.begin + match.end);
      }
      add(piece.end);
    }
    scratch.pieces.swap(cut);
  }
  return scratch.pieces;
}

}  // namespace nibble::token
