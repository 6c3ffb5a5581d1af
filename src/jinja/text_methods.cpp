// The methods that texts have in Python.
#include <algorithm>

#include "jinja/builtins.h"
#include "jinja/call_arguments.h"
#include "jinja/method_tables.h"
#include "jinja/operators.h"
#include "jinja/python_text.h"
#include "token/unicode.h"
#include "token/utf8.h"

namespace nibble::jinja {

namespace {

Value copy_of(Runtime& runtime, const Value& self, std::string_view text) {
  return runtime.text(std::string(text), self.is_markup());
}

template <bool Left, bool Right>
Value text_strip(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("strip", arguments, {"chars"});
  if (const std::string* set = call.text(0)) {
    return copy_of(runtime, self, strip_characters(self.text(), *set, Left, Right));
  }
  std::string_view text = self.text();
  if constexpr (Left) text = strip_left(text);
  if constexpr (Right) text = strip_right(text);
  return copy_of(runtime, self, text);
}

// Where the first or last run of characters that are no space ends or begins.
std::size_t word_end(std::string_view text, bool from_right) {
  std::size_t at = from_right ? text.size() : 0;
  while (from_right ? at > 0 : at < text.size()) {
    std::size_t start = at;
    if (from_right) {
      while (--start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) {
      }
    }
    const token::Utf8Char c = token::decode_utf8(text.substr(start));
    if (is_python_space(c.code)) break;
    at = from_right ? start : at + static_cast<std::size_t>(std::max(c.length, 1));
  }
  return at;
}

// From the left, or from the right, at most `limit` times; a negative limit is none.
std::vector<std::string_view> split_space(std::string_view text, std::int64_t limit, bool from_right) {
  std::vector<std::string_view> parts;
  for (text = strip(text); !text.empty() && limit != 0; --limit) {
    const std::size_t at = word_end(text, from_right);
    if (at == (from_right ? 0 : text.size())) break;
    parts.push_back(from_right ? text.substr(at) : text.substr(0, at));
    text = from_right ? strip_right(text.substr(0, at)) : strip_left(text.substr(at));
  }
  if (!text.empty()) parts.push_back(text);
  if (from_right) std::ranges::reverse(parts);
  return parts;
}

std::vector<std::string_view> split_text(std::string_view text, std::string_view separator, std::int64_t limit,
                                         bool from_right) {
  std::vector<std::string_view> parts;
  for (; limit != 0; --limit) {
    const std::size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    parts.push_back(from_right ? text.substr(at + separator.size()) : text.substr(0, at));
    text = from_right ? text.substr(0, at) : text.substr(at + separator.size());
  }
  parts.push_back(text);
  if (from_right) std::ranges::reverse(parts);
  return parts;
}

Value list_of(Runtime& runtime, const Value& self, const std::vector<std::string_view>& parts,
              Sequence::Kind kind = Sequence::Kind::kList) {
  runtime.check_room(parts.size() * (sizeof(Value) + sizeof(Text)));
  Values items;
  for (const std::string_view part : parts) items.push_back(copy_of(runtime, self, part));
  return runtime.list(std::move(items), kind);
}

template <bool FromRight>
Value text_split(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call(FromRight ? "rsplit" : "split", arguments, {"sep", "maxsplit"});
  const std::int64_t limit = call.integer(1, -1);
  runtime.spend_walk(self.text().size());
  const std::string* separator = call.text(0);
  if (separator == nullptr) {
    runtime.check_room(self.text().size() * sizeof(std::string_view));
    return list_of(runtime, self, split_space(self.text(), limit, FromRight));
  }
  if (separator->empty()) fail_template("empty separator");
  return list_of(runtime, self, split_text(self.text(), *separator, limit, FromRight));
}

template <bool FromRight>
Value text_partition(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& separator = CallArguments("partition", arguments, {"sep"}).required_text(0);
  if (separator.empty()) fail_template("empty separator");
  const std::string_view text = self.text();
  const std::size_t at = FromRight ? text.rfind(separator) : text.find(separator);
  std::vector<std::string_view> parts = {text, "", ""};
  if (at != std::string_view::npos) {
    parts = {text.substr(0, at), separator, text.substr(at + separator.size())};
  } else if (FromRight) {
    parts = {"", "", text};
  }
  return list_of(runtime, self, parts, Sequence::Kind::kTuple);
}

template <bool AtEnd>
Value text_has_end(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call(AtEnd ? "endswith" : "startswith", arguments, {"prefix", "start", "end"});
  const Value start = call.find(1) != nullptr ? *call.find(1) : kNone;
  const Value stop = call.find(2) != nullptr ? *call.find(2) : kNone;
  const bool whole = start.is_none() && stop.is_none();
  const Value part = whole ? self : slice(runtime, self, start, stop, kNone);
  const auto fits = [&](const Value& end) {
    if (!end.is_text()) {
      require_defined(end);
      fail_template("{} first arg must be str or a tuple of str, not {}", AtEnd ? "endswith" : "startswith",
                    end.type_name());
    }
    return AtEnd ? part.text().ends_with(end.text()) : part.text().starts_with(end.text());
  };
  const Value& ends = call.required(0);
  if (!ends.is_sequence() || ends.sequence().kind != Sequence::Kind::kTuple) return Value(fits(ends));
  return Value(std::ranges::any_of(ends.sequence().items, fits));
}

Value text_replace(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("replace", arguments, {"old", "new", "count"});
  return copy_of(runtime, self,
                 replace_text(runtime, self.text(), call.required_text(0), call.required_text(1), call.integer(2, -1)));
}

template <std::string (*Map)(std::string_view)>
Value text_map(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("text method", arguments, {});
  runtime.spend_walk(self.text().size());
  return copy_of(runtime, self, Map(self.text()));
}

std::string python_title(std::string_view text) {
  std::string out;
  bool inside = false;
  for (const std::string_view c : characters(text)) {
    out += inside ? token::to_lower(c) : token::to_upper(c);
    inside = token::is_letter(token::decode_utf8(c).code);
  }
  return out;
}

std::string swap_case(std::string_view text) {
  std::string out;
  for (const std::string_view c : characters(text)) {
    out += token::is_upper(token::decode_utf8(c).code) ? token::to_lower(c) : token::to_upper(c);
  }
  return out;
}

template <bool FromRight, bool Throws>
Value text_find(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& wanted = CallArguments("find", arguments, {"sub"}).required_text(0);
  runtime.spend_copy(self.text().size());
  const std::string& text = self.text();
  const std::size_t at = FromRight ? text.rfind(wanted) : text.find(wanted);
  if (at == std::string::npos) {
    if (Throws) fail_template("substring not found");
    return Value(std::int64_t{-1});
  }
  return Value(Text(text.substr(0, at)).length());
}

Value text_count(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& wanted = CallArguments("count", arguments, {"sub"}).required_text(0);
  runtime.spend_copy(self.text().size());
  if (wanted.empty()) return Value(self.as_text().length() + 1);
  return Value(static_cast<std::int64_t>(split_text(self.text(), wanted, -1, false).size()) - 1);
}

template <bool Prefix>
Value text_remove_end(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::string& end = CallArguments("removeprefix", arguments, {"prefix"}).required_text(0);
  std::string_view text = self.text();
  if (Prefix && text.starts_with(end)) text.remove_prefix(end.size());
  if (!Prefix && text.ends_with(end)) text.remove_suffix(end.size());
  return copy_of(runtime, self, text);
}

// ljust, rjust, center, zfill: how much of the filling stands on the left.
template <int LeftHalves>
Value text_pad(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("ljust", arguments, {"width", "fillchar"});
  const std::string* fill = call.text(1);
  const std::int64_t missing = call.integer(0, 0) - self.as_text().length();
  if (missing <= 0) return self;
  const auto n = static_cast<std::uint64_t>(missing);
  runtime.check_room(n * 4);
  runtime.spend_copy(n);
  const std::uint64_t left =
      LeftHalves == 1 ? n / 2 + (n & static_cast<std::uint64_t>(call.integer(0, 0)) & 1) : n * (LeftHalves / 2);
  std::string out;
  for (std::uint64_t i = 0; i < left; ++i) out += fill != nullptr ? *fill : " ";
  out += self.text();
  for (std::uint64_t i = left; i < n; ++i) out += fill != nullptr ? *fill : " ";
  return copy_of(runtime, self, out);
}

Value text_zfill(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const std::int64_t width = CallArguments("zfill", arguments, {"width"}).integer(0, 0);
  const std::int64_t missing = width - self.as_text().length();
  if (missing <= 0) return self;
  runtime.check_room(static_cast<std::uint64_t>(missing));
  const std::size_t sign = self.text().starts_with('-') || self.text().starts_with('+') ? 1 : 0;
  return copy_of(
      runtime, self,
      self.text().substr(0, sign) + std::string(static_cast<std::size_t>(missing), '0') + self.text().substr(sign));
}

Value text_join(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("join", arguments, {"iterable"});
  const Values items = elements(runtime, call.required(0));
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_text()) {
      fail_template("sequence item {}: expected str instance, {} found", i, items[i].type_name());
    }
    if (i > 0) out += self.text();
    out += items[i].text();
    runtime.check_room(out.size());
  }
  return copy_of(runtime, self, out);
}

Value text_split_lines(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("splitlines", arguments, {"keepends"});
  runtime.spend_walk(self.text().size());
  return list_of(runtime, self, split_lines(self.text(), call.flag(0, false)));
}

Value text_format(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return copy_of(runtime, self, brace_format(runtime, self.text(), arguments));
}

template <bool (*Fits)(char32_t)>
Value text_all(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("text test", arguments, {});
  runtime.spend_walk(self.text().size());
  std::string_view text = self.text();
  bool all = !text.empty();
  while (all && !text.empty()) {
    const token::Utf8Char c = token::decode_utf8(text);
    all = Fits(c.code);
    text.remove_prefix(static_cast<std::size_t>(std::max(c.length, 1)));
  }
  return Value(all);
}

bool is_alphanumeric(char32_t code) { return token::is_letter(code) || token::is_digit(code); }
bool is_ascii(char32_t code) { return code < 0x80; }

template <bool Upper>
Value text_is_case(Runtime&, const Value& self, const Arguments&) {
  const std::string same = Upper ? token::to_upper(self.text()) : token::to_lower(self.text());
  const std::string other = Upper ? token::to_lower(self.text()) : token::to_upper(self.text());
  return Value(self.text() == same && same != other);
}

constexpr MethodEntry kTextMethods[] = {
    {"capitalize", text_map<capitalize>},
    {"casefold", text_map<token::to_lower>},
    {"center", text_pad<1>},
    {"count", text_count},
    {"endswith", text_has_end<true>},
    {"find", text_find<false, false>},
    {"format", text_format},
    {"index", text_find<false, true>},
    {"isalnum", text_all<is_alphanumeric>},
    {"isalpha", text_all<token::is_letter>},
    {"isascii", text_all<is_ascii>},
    {"isdecimal", text_all<token::is_digit>},
    {"isdigit", text_all<token::is_digit>},
    {"islower", text_is_case<false>},
    {"isnumeric", text_all<token::is_digit>},
    {"isspace", text_all<is_python_space>},
    {"isupper", text_is_case<true>},
    {"join", text_join},
    {"ljust", text_pad<0>},
    {"lower", text_map<token::to_lower>},
    {"lstrip", text_strip<true, false>},
    {"partition", text_partition<false>},
    {"removeprefix", text_remove_end<true>},
    {"removesuffix", text_remove_end<false>},
    {"replace", text_replace},
    {"rfind", text_find<true, false>},
    {"rindex", text_find<true, true>},
    {"rjust", text_pad<2>},
    {"rpartition", text_partition<true>},
    {"rsplit", text_split<true>},
    {"rstrip", text_strip<false, true>},
    {"split", text_split<false>},
    {"splitlines", text_split_lines},
    {"startswith", text_has_end<false>},
    {"strip", text_strip<true, true>},
    {"swapcase", text_map<swap_case>},
    {"title", text_map<python_title>},
    {"upper", text_map<token::to_upper>},
    {"zfill", text_zfill},
};
}  // namespace

std::span<const MethodEntry> text_methods() { return kTextMethods; }

std::string replace_text(Runtime& runtime, std::string_view text, std::string_view old, std::string_view fresh,
                         std::int64_t limit) {
  runtime.spend_copy(text.size());
  std::string out;
  const auto add = [&](std::string_view part) {
    out += part;
    runtime.check_room(out.size());
  };
  if (old.empty()) {  // between all characters and at both ends
    runtime.spend_walk(text.size());
    runtime.check_room(text.size() * sizeof(std::string_view));
    for (const std::string_view c : characters(text)) {
      if (limit-- != 0) add(fresh);
      add(c);
    }
    if (limit != 0) add(fresh);
    return out;
  }
  for (; limit != 0; --limit) {
    const std::size_t at = text.find(old);
    if (at == std::string_view::npos) break;
    add(text.substr(0, at));
    add(fresh);
    text.remove_prefix(at + old.size());
  }
  add(text);
  return out;
}

}  // namespace nibble::jinja
