// The regular expressions of pre-tokenizers and normalisers (PCRE2 with its JIT).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::token {

// Oniguruma's dialect, in which tokenizer.json is written, in PCRE2's words: white space and word characters by their
// Unicode properties, classes within classes, intersections (&&), {n,m}+ (which does not mean a possessive there).
std::string translate_oniguruma(std::string_view pattern);

struct Span {
  std::size_t begin = 0, end = 0;
};

// Immutable and thread-safe. Matching is bounded: Error{kUnsupported} where an expression backtracks beyond reason.
class Regex {
 public:
  // `pattern` as tokenizer.json writes it. Throws Error{kFormat} naming it where it does not compile.
  explicit Regex(std::string_view pattern);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // What a thread needs to match; reuse it from text to text.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Regex;
    struct State;
    std::unique_ptr<State> state_;
  };

  // All matches from left to right, empty ones too. `text` must be valid UTF-8.
  void find_all(std::string_view text, Scratch& scratch, std::vector<Span>& matches) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
  std::string pattern_;
};

}  // namespace nibble::token
