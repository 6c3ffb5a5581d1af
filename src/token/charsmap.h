// SentencePiece's precompiled normalisation rules: a double-array trie from byte strings to their replacements.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace nibble::token {

// The blob: u32 n_bytes of the trie, the trie's u32 units (darts-clone layout), then the replacements, each ended by a
// NUL.
class Charsmap {
 public:
  Charsmap() = default;  // no rules
  // Throws Error{kFormat} where the sizes contradict each other. `blob` is copied.
  explicit Charsmap(std::string_view blob);

  bool empty() const { return units_.empty(); }
  // Longest rule whose left side `text` begins with; false where there is none. `replacement` lives as long as this
  // object.
  bool longest(std::string_view text, std::size_t& length, std::string_view& replacement) const;
  // The same with the shortest rule.
  bool shortest(std::string_view text, std::string_view& replacement) const;

 private:
  bool find(std::string_view text, bool first, std::size_t& length, std::string_view& replacement) const;
  std::vector<std::uint32_t> units_;
  std::vector<char> replacements_;
};

}  // namespace nibble::token
