#include "jinja/python_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "token/unicode.h"
#include "token/utf8.h"

namespace nibble::jinja {

namespace {

using token::decode_utf8;

std::size_t char_bytes(std::string_view text) {
  const int length = decode_utf8(text).length;
  return length > 0 ? static_cast<std::size_t>(length) : 1;
}

// Checked while it grows: shared parts can make the text of a small value endless.
void check_growth(Runtime& runtime, const std::string& out) {
  runtime.spend();
  runtime.check_room(out.size());
}

void append_repr(Runtime& runtime, const Value& value, std::string& out);

void append_items(Runtime& runtime, const Values& items, std::string_view open, std::string_view close,
                  std::string& out) {
  out += open;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(runtime, items[i], out);
  }
  out += close;
}

void append_sequence(Runtime& runtime, const Sequence& sequence, std::string& out) {
  const Values& items = sequence.items;
  switch (sequence.kind) {
    case Sequence::Kind::kList:
      return append_items(runtime, items, "[", "]", out);
    case Sequence::Kind::kTuple:
      return append_items(runtime, items, "(", items.size() == 1 ? ",)" : ")", out);
    case Sequence::Kind::kItems:
      return append_items(runtime, items, "dict_items([", "])", out);
    case Sequence::Kind::kKeys:
      return append_items(runtime, items, "dict_keys([", "])", out);
    case Sequence::Kind::kValues:
      return append_items(runtime, items, "dict_values([", "])", out);
    case Sequence::Kind::kRange:
      out += items.empty() ? "range(0, 0)"
                           : format_text("range({}, {})", items.front().as_int(), items.back().as_int() + 1);
      return;
    case Sequence::Kind::kGenerator:
      out += "<generator object>";
  }
}

void append_repr(Runtime& runtime, const Value& value, std::string& out) {
  check_growth(runtime, out);
  if (value.is_text()) {
    runtime.spend_walk(value.text().size());
    if (value.is_markup()) out += "Markup(";
    out += repr_text(value.text());
    if (value.is_markup()) out += ')';
  } else if (value.is_sequence()) {
    append_sequence(runtime, value.sequence(), out);
  } else if (value.is_dict()) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : value.dict().items) {
      if (!first) out += ", ";
      first = false;
      append_repr(runtime, key, out);
      out += ": ";
      append_repr(runtime, item, out);
    }
    out += '}';
  } else if (value.is_undefined()) {
    out += "Undefined";
  } else if (value.is_namespace()) {
    out += "<Namespace>";  // what it holds can be itself
  } else if (value.is_callable() || value.is_loop()) {
    out += value.is_loop() ? "<LoopContext>" : format_text("<{} '{}'>", value.type_name(), value.callable().name);
  } else {
    out += to_text(runtime, value);
  }
}

void append_json_text(std::string_view text, bool ascii, std::string& out) {
  out += '"';
  while (!text.empty()) {
    const char c = text[0];
    constexpr std::string_view kShort = "\"\\\n\r\t\f\b";
    const std::size_t at = kShort.find(c);
    if (at != std::string_view::npos) {
      out += '\\';
      out += "\"\\nrtfb"[at];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += format_text("\\u{:04x}", static_cast<unsigned>(c));
    } else if (!ascii || static_cast<unsigned char>(c) < 0x80) {
      out += c;
    } else {
      const auto code = static_cast<unsigned>(decode_utf8(text).code);
      out += code < 0x10000 ? format_text("\\u{:04x}", code)
                            : format_text("\\u{:04x}\\u{:04x}", 0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF));
      text.remove_prefix(char_bytes(text) - 1);
    }
    text.remove_prefix(1);
  }
  out += '"';
}

std::string json_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return float_text(value);
}

std::string json_key(Runtime& runtime, const Value& key) {
  if (key.is_text()) return key.text();
  if (key.is_none()) return "null";
  if (key.is_bool()) return key.as_bool() ? "true" : "false";
  if (key.is_float()) return json_number(key.as_number());
  if (key.is_int()) return to_text(runtime, key);
  fail_template("keys must be str, int, float, bool or None, not {}", key.type_name());
}

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  void write(const Value& value, int level) {
    check_growth(runtime_, out_);
    if (value.is_text()) {
      runtime_.spend_walk(value.text().size());
      append_json_text(value.text(), style_.ascii, out_);
    } else if (value.is_none()) {
      out_ += "null";
    } else if (value.is_bool()) {
      out_ += value.as_bool() ? "true" : "false";
    } else if (value.is_int()) {
      out_ += std::to_string(value.as_int());
    } else if (value.is_float()) {
      out_ += json_number(value.as_number());
    } else if (value.is_dict()) {
      write_dict(value.dict(), level);
    } else if (value.is_sequence() && value.sequence().kind <= Sequence::Kind::kTuple) {
      write_list(value.sequence().items, level);
    } else {
      fail_template("Object of type {} is not JSON serializable", value.type_name());
    }
  }
  std::string take() { return std::move(out_); }

 private:
  void new_line(int level) {
    if (!style_.indent) return;
    out_ += '\n';
    for (int i = 0; i < level; ++i) out_ += *style_.indent;
    check_growth(runtime_, out_);
  }
  void write_list(const Values& items, int level) {
    out_ += '[';
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      new_line(level + 1);
      write(items[i], level + 1);
    }
    if (!items.empty()) new_line(level);
    out_ += ']';
  }
  void write_dict(const Dict& dict, int level) {
    std::vector<std::pair<std::string, const Value*>> items;
    for (const auto& [key, value] : dict.items) items.emplace_back(json_key(runtime_, key), &value);
    if (style_.sort_keys) std::ranges::stable_sort(items, {}, &std::pair<std::string, const Value*>::first);
    out_ += '{';
    bool first = true;
    for (const auto& [key, value] : items) {
      if (!first) out_ += style_.item_separator;
      first = false;
      new_line(level + 1);
      append_json_text(key, style_.ascii, out_);
      out_ += style_.key_separator;
      write(*value, level + 1);
    }
    if (!items.empty()) new_line(level);
    out_ += '}';
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string out_;
};

}  // namespace

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[400];
  const double size = std::fabs(value);
  // Python writes exponents below -4 and from 16 on.
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = plain ? std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed).ptr
                         : std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  std::string text(buffer, end);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string repr_text(std::string_view text) {
  const bool double_quotes = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string out(1, quote);
  while (!text.empty()) {
    const std::size_t length = char_bytes(text);
    const char32_t code = decode_utf8(text).code;
    if (length == 1 && (text[0] == quote || text[0] == '\\')) {
      out += {'\\', text[0]};
    } else if (text[0] == '\n' || text[0] == '\r' || text[0] == '\t') {
      out += text[0] == '\n' ? "\\n" : text[0] == '\r' ? "\\r" : "\\t";
    } else if (token::is_printable(code)) {
      out += text.substr(0, length);
    } else {
      const auto number = static_cast<unsigned>(code);
      out += number < 0x100     ? format_text("\\x{:02x}", number)
             : number < 0x10000 ? format_text("\\u{:04x}", number)
                                : format_text("\\U{:08x}", number);
    }
    text.remove_prefix(length);
  }
  return out += quote;
}

std::string repr(Runtime& runtime, const Value& value) {
  std::string out;
  append_repr(runtime, value, out);
  return out;
}

std::string to_text(Runtime& runtime, const Value& value) {
  if (value.is_text()) return value.text();
  if (value.is_undefined()) return {};
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.as_bool() ? "True" : "False";
  if (value.is_int()) return std::to_string(value.as_int());
  if (value.is_float()) return float_text(value.as_number());
  return repr(runtime, value);
}

Value to_text_value(Runtime& runtime, const Value& value) {
  return value.is_text() ? value : runtime.text(to_text(runtime, value));
}

std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  JsonWriter writer(runtime, style);
  writer.write(value, 0);
  return writer.take();
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

bool is_python_space(char32_t code) { return (code >= 0x1C && code <= 0x1F) || token::is_white_space(code); }

std::string_view strip_left(std::string_view text) {
  while (!text.empty() && is_python_space(decode_utf8(text).code)) text.remove_prefix(char_bytes(text));
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    std::size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    if (!is_python_space(decode_utf8(text.substr(start)).code)) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

std::string_view strip(std::string_view text) { return strip_right(strip_left(text)); }

std::string_view strip_characters(std::string_view text, std::string_view set, bool left, bool right) {
  const std::vector<std::string_view> wanted = characters(set);
  const auto in_set = [&](std::string_view c) { return std::ranges::find(wanted, c) != wanted.end(); };
  while (left && !text.empty() && in_set(text.substr(0, char_bytes(text)))) text.remove_prefix(char_bytes(text));
  while (right && !text.empty()) {
    std::size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    if (!in_set(text.substr(start))) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

std::size_t byte_offset(const Text& text, std::int64_t index) {
  const std::string_view bytes = text.text;
  if (text.ascii) return std::min(static_cast<std::size_t>(index), bytes.size());
  std::size_t at = 0;
  for (; index > 0 && at < bytes.size(); --index) at += char_bytes(bytes.substr(at));
  return at;
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    out.push_back(text.substr(0, char_bytes(text)));
    text.remove_prefix(out.back().size());
  }
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  std::size_t start = 0;
  for (std::size_t at = 0; at < text.size();) {
    const token::Utf8Char c = decode_utf8(text.substr(at));
    std::size_t end = at + (c.length > 0 ? static_cast<std::size_t>(c.length) : 1);
    const bool breaks = (c.code >= 0x0A && c.code <= 0x0D) || (c.code >= 0x1C && c.code <= 0x1E) || c.code == 0x85 ||
                        c.code == 0x2028 || c.code == 0x2029;
    if (c.length > 0 && breaks) {
      if (c.code == '\r' && end < text.size() && text[end] == '\n') ++end;
      lines.push_back(text.substr(start, (keep_ends ? end : at) - start));
      start = end;
    }
    at = end;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return {};
  const std::size_t first = char_bytes(text);
  return token::to_upper(text.substr(0, first)) + token::to_lower(text.substr(first));
}

}  // namespace nibble::jinja
