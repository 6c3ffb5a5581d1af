// The Unicode properties and normal forms that tokenizers use (utf8proc).
#pragma once

#include <string>
#include <string_view>

namespace nibble::token {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` must be valid UTF-8. The tables are Unicode 15's; the tokenizers library still has Unicode 9's, so that marks
// which came in between (U+08D3, U+1DF8, ...) can stand in another order there.
std::string normalize_unicode(std::string_view text, NormalForm form);
std::string to_lower(std::string_view text);
std::string to_upper(std::string_view text);  // letter for letter, but ß becomes SS

// Bytes of the first extended grapheme cluster of a non-empty text.
std::size_t grapheme_length(std::string_view text);
bool is_white_space(char32_t code);  // the property White_Space
bool is_letter(char32_t code);       // general category L*
bool is_digit(char32_t code);        // decimal digits of any script
bool is_upper(char32_t code);
bool is_lower(char32_t code);
bool is_printable(char32_t code);  // neither control, format, surrogate, private, unassigned nor a separator but U+0020
// \w at either end of a text: letter, mark, decimal digit, connector.
bool begins_with_word(std::string_view text);
bool ends_with_word(std::string_view text);
// Bytes of white space at either end.
std::size_t leading_space(std::string_view text);
std::size_t trailing_space(std::string_view text);

}  // namespace nibble::token
