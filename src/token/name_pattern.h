// A regular expression (PCRE2) that users write over tensor names: "ffn_(up|gate)", "blk\.\d+\.attn_v".
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace nibble::token {

class NamePattern {
 public:
  // Throws Error{kInvalidArgument} that says where the pattern is wrong.
  explicit NamePattern(std::string_view pattern);
  // Does any part of `text` match? Throws Error{kInvalidArgument} for a pattern that needs too much backtracking.
  bool found_in(std::string_view text) const;
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::shared_ptr<void> code_;
};

}  // namespace nibble::token
