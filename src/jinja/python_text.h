// Values as Python writes them: str(), repr(), json.dumps(); and texts by characters.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/runtime.h"

namespace nibble::jinja {

std::string float_text(double value);  // repr(): the shortest digits that read back equal
// str(); markup stays markup.
std::string to_text(Runtime& runtime, const Value& value);
Value to_text_value(Runtime& runtime, const Value& value);
std::string repr(Runtime& runtime, const Value& value);
std::string repr_text(std::string_view text);

struct JsonStyle {
  bool ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // of one level; none: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// Throws Error{kFormat} for values that JSON has no form of.
std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style);

// & < > " ' as HTML writes them.
std::string escape_html(std::string_view text);

bool is_python_space(char32_t code);
std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
std::string_view strip(std::string_view text);
// Without the characters of `set` at the ends asked for.
std::string_view strip_characters(std::string_view text, std::string_view set, bool left, bool right);
// Bytes before character `index`; the text's size when it has fewer.
std::size_t byte_offset(const Text& text, std::int64_t index);
std::vector<std::string_view> characters(std::string_view text);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends = false);
std::string capitalize(std::string_view text);

}  // namespace nibble::jinja
