// Cuts a template into texts and the tokens between its tags, with trim_blocks and lstrip_blocks on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "jinja/limits.h"

namespace nibble::jinja {

struct Token {
  enum class Kind {
    kText,
    kPrintBegin,
    kPrintEnd,
    kTagBegin,
    kTagEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind{};
  std::string text;  // of strings: without quotes and escapes
  int line = 1;
};

// The last token is kEnd. Throws Error{kFormat} with the line.
std::vector<Token> tokenize(std::string_view source, const Limits& limits);

}  // namespace nibble::jinja
