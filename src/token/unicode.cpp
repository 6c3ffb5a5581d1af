#include "token/unicode.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "token/utf8.h"

namespace nibble::token {

namespace {

bool is_ascii(std::string_view text) {
  for (char c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  }
  return true;
}

bool is_word(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

template <typename Append>
std::string map_characters(std::string_view text, Append&& append) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    if (c.length > 0) {
      append(c.code, out);
    } else {
      out += text[0];
    }
    text.remove_prefix(c.length > 0 ? static_cast<std::size_t>(c.length) : 1);
  }
  return out;
}

// The last character of a non-empty text; length 0 where it is malformed.
Utf8Char last_char(std::string_view text) {
  for (std::size_t back = 1; back <= 4 && back <= text.size(); ++back) {
    const std::string_view tail = text.substr(text.size() - back);
    if ((static_cast<unsigned char>(tail[0]) & 0xC0) == 0x80) continue;
    const Utf8Char found = decode_utf8(tail);
    return static_cast<std::size_t>(found.length) == back ? found : Utf8Char{};
  }
  return {};
}

}  // namespace

std::string normalize_unicode(std::string_view text, NormalForm form) {
  if (is_ascii(text)) return std::string(text);
  int options = UTF8PROC_STABLE;
  options |= form == NormalForm::kNfc || form == NormalForm::kNfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* raw = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &raw, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(raw, &std::free);
  if (length < 0) fail(ErrorCode::kInvalidArgument, "Unicode normalisation: {}", utf8proc_errmsg(length));
  return std::string(reinterpret_cast<const char*>(raw), static_cast<std::size_t>(length));
}

std::string to_lower(std::string_view text) {
  return map_characters(text, [](char32_t code, std::string& out) {
    append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))), out);
  });
}

std::string to_upper(std::string_view text) {
  return map_characters(text, [](char32_t code, std::string& out) {
    if (code == 0xDF) {
      out += "SS";
    } else {
      append_utf8(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code))), out);
    }
  });
}

bool is_letter(char32_t code) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_digit(char32_t code) { return utf8proc_category(static_cast<utf8proc_int32_t>(code)) == UTF8PROC_CATEGORY_ND; }

bool is_upper(char32_t code) { return utf8proc_category(static_cast<utf8proc_int32_t>(code)) == UTF8PROC_CATEGORY_LU; }

bool is_lower(char32_t code) { return utf8proc_category(static_cast<utf8proc_int32_t>(code)) == UTF8PROC_CATEGORY_LL; }

bool is_printable(char32_t code) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
  return code == ' ' || (category != UTF8PROC_CATEGORY_CN && category < UTF8PROC_CATEGORY_ZS);
}

std::size_t grapheme_length(std::string_view text) {
  Utf8Char last = decode_utf8(text);
  std::size_t length = last.length > 0 ? static_cast<std::size_t>(last.length) : 1;
  utf8proc_int32_t state = 0;
  while (length < text.size()) {
    const Utf8Char next = decode_utf8(text.substr(length));
    if (next.length == 0 || last.length == 0) break;
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last.code),
                                         static_cast<utf8proc_int32_t>(next.code), &state))
      break;
    length += static_cast<std::size_t>(next.length);
    last = next;
  }
  return length;
}

bool is_white_space(char32_t code) {
  return (code >= 9 && code <= 13) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
         code == 0x3000;
}

bool begins_with_word(std::string_view text) {
  return !text.empty() && decode_utf8(text).length > 0 && is_word(decode_utf8(text).code);
}

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  const Utf8Char last = last_char(text);
  return last.length > 0 && is_word(last.code);
}

std::size_t leading_space(std::string_view text) {
  std::size_t n = 0;
  while (n < text.size()) {
    const Utf8Char c = decode_utf8(text.substr(n));
    if (c.length == 0 || !is_white_space(c.code)) break;
    n += static_cast<std::size_t>(c.length);
  }
  return n;
}

std::size_t trailing_space(std::string_view text) {
  std::size_t n = 0;
  while (n < text.size()) {
    const Utf8Char c = last_char(text.substr(0, text.size() - n));
    if (c.length == 0 || !is_white_space(c.code)) break;
    n += static_cast<std::size_t>(c.length);
  }
  return n;
}

}  // namespace nibble::token
