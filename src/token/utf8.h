// UTF-8, one character at a time, on any bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibble::token {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD
inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";           // U+2581, SentencePiece's space

struct Utf8Char {
  char32_t code = 0;
  int length = 0;  // bytes; 0 where `text` does not begin with a well-formed character
};

// First character of a non-empty text. Overlong forms, surrogates and codes beyond U+10FFFF are not well formed.
Utf8Char decode_utf8(std::string_view text);
// Length that the first byte announces, 1 for bytes that cannot begin a character; never beyond the text.
std::size_t announced_length(std::string_view text);
// Length of the longest prefix of a malformed text that could begin a character (at least 1): what Unicode calls the
// maximal subpart, one U+FFFD in Python and Rust. `incomplete` says that the text ended before the character did.
std::size_t malformed_length(std::string_view text, bool& incomplete);
void append_utf8(char32_t code, std::string& out);
bool is_valid_utf8(std::string_view text);
// Every maximal malformed subpart becomes U+FFFD.
std::string replace_malformed(std::string_view text);

}  // namespace nibble::token
