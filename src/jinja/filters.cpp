// Filters on one value.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "jinja/call_arguments.h"
#include "jinja/filter_tables.h"
#include "jinja/operators.h"
#include "jinja/python_text.h"
#include "token/unicode.h"

namespace nibble::jinja {

namespace {

// The input as text, marked as it was.
template <std::string (*Map)(std::string_view)>
Value map_text(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("filter", arguments, {});
  const Value text = to_text_value(runtime, input);
  runtime.spend_walk(text.text().size());
  runtime.check_room(text.text().size() * sizeof(std::string_view));
  return runtime.text(Map(text.text()), text.is_markup());
}

Value to_json_filter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = call.flag(0, false);
  style.sort_keys = call.flag(3, false);
  if (const Value* indent = call.find(1); indent != nullptr && !indent->is_none()) {
    constexpr std::int64_t kMost = 64;
    style.indent =
        indent->is_text()
            ? indent->text()
            : std::string(static_cast<std::size_t>(std::clamp<std::int64_t>(call.integer(1, 0), 0, kMost)), ' ');
    style.item_separator = ",";
  }
  if (const Value* pair = call.find(2); pair != nullptr && !pair->is_none()) {
    const Values parts = elements(runtime, *pair);
    if (parts.size() != 2 || !parts[0].is_text() || !parts[1].is_text()) fail_template("separators are two texts");
    style.item_separator = parts[0].text();
    style.key_separator = parts[1].text();
  }
  return runtime.text(to_json(runtime, input, style));
}

Value trim(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("trim", arguments, {"chars"});
  const Value text = to_text_value(runtime, input);
  const std::string* set = call.text(0);
  return runtime.text(
      std::string(set != nullptr ? strip_characters(text.text(), *set, true, true) : strip(text.text())),
      text.is_markup());
}

Value count(Runtime&, const Value& input, const Arguments&) { return Value(length(input)); }

Value use_default(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("default", arguments, {"default_value", "boolean"});
  const bool replaces = input.is_undefined() || (call.flag(1, false) && !input.truthy());
  if (!replaces) return input;
  return call.find(0) != nullptr ? *call.find(0) : runtime.text("");
}

Value string(Runtime& runtime, const Value& input, const Arguments&) { return to_text_value(runtime, input); }

Value safe(Runtime& runtime, const Value& input, const Arguments&) {
  return runtime.text(to_text(runtime, input), true);
}

Value escape(Runtime& runtime, const Value& input, const Arguments&) {
  if (input.is_markup()) return input;
  if (input.is_text()) runtime.spend_walk(input.text().size());
  return runtime.text(escape_html(to_text(runtime, input)), true);
}

// The text of a number without the spaces and single underscores that Python allows.
std::string number_text(std::string_view text) {
  std::string out(strip(text));
  std::erase(out, '_');
  if (out.starts_with('+')) out.erase(0, 1);
  return out;
}

bool read_float(std::string_view text, double& value) {
  const std::string digits = number_text(text);
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return read.ec == std::errc{} && read.ptr == digits.data() + digits.size();
}

Value to_int(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("int", arguments, {"default", "base"});
  const Value fallback = call.find(0) != nullptr ? *call.find(0) : Value(std::int64_t{0});
  require_defined(input);
  if (input.is_integral()) return Value(input.as_int());
  double number = 0;
  if (input.is_float()) {
    number = input.as_number();
  } else if (input.is_text()) {
    runtime.spend_copy(input.text().size());
    std::string digits = number_text(input.text());
    const auto base = static_cast<int>(std::clamp<std::int64_t>(call.integer(1, 10), 2, 36));
    if (base == 16 && (digits.starts_with("0x") || digits.starts_with("0X"))) digits.erase(0, 2);
    std::int64_t value = 0;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (read.ec == std::errc{} && read.ptr == digits.data() + digits.size() && !digits.empty()) return Value(value);
    if (!read_float(input.text(), number)) return fallback;
  } else {
    return fallback;
  }
  return std::fabs(number) < 0x1p63 ? Value(static_cast<std::int64_t>(number)) : fallback;
}

Value to_float(Runtime&, const Value& input, const Arguments& arguments) {
  const CallArguments call("float", arguments, {"default"});
  require_defined(input);
  if (input.is_number()) return Value(input.as_number());
  double number = 0;
  if (input.is_text() && read_float(input.text(), number)) return Value(number);
  return call.find(0) != nullptr ? *call.find(0) : Value(0.0);
}

Value absolute(Runtime&, const Value& input, const Arguments&) {
  require_defined(input);
  if (!input.is_number()) fail_template("bad operand type for abs(): '{}'", input.type_name());
  if (input.is_float()) return Value(std::fabs(input.as_number()));
  return input.as_int() < 0 ? negate(input) : Value(input.as_int());
}

Value round_number(Runtime&, const Value& input, const Arguments& arguments) {
  const CallArguments call("round", arguments, {"precision", "method"});
  require_defined(input);
  if (!input.is_number()) fail_template("type {} doesn't define __round__ method", input.type_name());
  const std::string* method = call.text(1);
  const double scale = std::pow(10.0, static_cast<double>(call.integer(0, 0)));
  const double scaled = input.as_number() * scale;
  if (method == nullptr || *method == "common") {
    if (input.is_integral() && call.integer(0, 0) >= 0) return Value(input.as_int());
    const double rounded = std::nearbyint(scaled) / scale;
    return input.is_integral() ? Value(static_cast<std::int64_t>(rounded)) : Value(rounded);
  }
  if (*method == "ceil") return Value(std::ceil(scaled) / scale);
  if (*method == "floor") return Value(std::floor(scaled) / scale);
  fail_template("method must be common, ceil or floor");
}

Value replace(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("replace", arguments, {"old", "new", "count"});
  const std::string text = to_text(runtime, input);
  const std::int64_t limit = call.find(2) != nullptr && !call.find(2)->is_none() ? call.integer(2, -1) : -1;
  return runtime.text(
      replace_text(runtime, text, to_text(runtime, call.required(0)), to_text(runtime, call.required(1)), limit));
}

std::string title_of(std::string_view text) {
  std::string out;
  bool begins = true;
  for (const std::string_view c : characters(text)) {
    out += begins ? token::to_upper(c) : token::to_lower(c);
    begins = c.find_first_of("-({[<") == 0 || strip(c).empty();
  }
  return out;
}

Value indent(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("indent", arguments, {"width", "first", "blank"});
  const Value* width = call.find(0);
  constexpr std::int64_t kMost = 1000;
  const std::string by =
      width != nullptr && width->is_text()
          ? width->text()
          : std::string(static_cast<std::size_t>(std::clamp<std::int64_t>(call.integer(0, 4), 0, kMost)), ' ');
  const Value source = to_text_value(runtime, input);
  runtime.spend_walk(source.text().size());
  const std::string text = source.text() + "\n";
  const std::vector<std::string_view> lines = split_lines(text);
  std::string out = call.flag(1, false) ? by : "";
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (call.flag(2, false) || !lines[i].empty())) out += by;
    out += lines[i];
    runtime.check_room(out.size());
  }
  return runtime.text(std::move(out), source.is_markup());
}

Value center(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Value text = to_text_value(runtime, input);
  Arguments width = arguments;
  if (width.positional.empty() && width.named.empty()) width.positional.push_back(Value(std::int64_t{80}));
  return find_method(runtime, text, "center").callable().call(runtime, width);
}

Value format(Runtime& runtime, const Value& input, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    fail_template("can't handle positional and keyword arguments at the same time");
  }
  std::vector<std::pair<Value, Value>> named;
  for (const auto& [name, value] : arguments.named) named.emplace_back(runtime.text(name), value);
  const Value values = named.empty() ? runtime.tuple(arguments.positional) : runtime.dict(std::move(named));
  return runtime.text(percent_format(runtime, to_text(runtime, input), values));
}

Value attribute_filter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const std::string& name = CallArguments("attr", arguments, {"name"}).required_text(0);
  if (input.is_dict() && !is_method(input, name)) {
    return Value::undefined(format_text("'dict object' has no attribute {}", repr_text(name)));
  }
  return attribute(runtime, input, name);
}

Value word_count(Runtime& runtime, const Value& input, const Arguments&) {
  const std::string text = to_text(runtime, input);
  runtime.spend_walk(text.size());
  runtime.check_room(text.size() * sizeof(std::string_view));
  std::int64_t n = 0;
  bool inside = false;
  for (const std::string_view c : characters(text)) {
    const bool word = token::begins_with_word(c);
    n += word && !inside;
    inside = word;
  }
  return Value(n);
}

Value truncate(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const Value text = to_text_value(runtime, input);
  const std::string end = call.text(2) != nullptr ? *call.text(2) : "...";
  const std::int64_t wanted = call.integer(0, 255);
  if (text.as_text().length() <= wanted + call.integer(3, 5)) return text;
  const std::int64_t kept = std::max<std::int64_t>(wanted - Text(end).length(), 0);
  std::string cut = text.text().substr(0, byte_offset(text.as_text(), kept));
  if (!call.flag(1, false)) cut = cut.substr(0, cut.rfind(' '));
  return runtime.text(cut + end);
}

Value url_encode(Runtime& runtime, const Value& input, const Arguments&) {
  std::string out;
  const std::string text = to_text(runtime, input);
  runtime.spend_walk(text.size());
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("_.-~/").find(c) != std::string_view::npos;
    out += plain ? std::string(1, c) : format_text("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
  }
  return runtime.text(std::move(out));
}

constexpr FilterEntry kFilters[] = {
    {"abs", absolute},
    {"attr", attribute_filter},
    {"capitalize", map_text<capitalize>},
    {"center", center},
    {"count", count},
    {"d", use_default},
    {"default", use_default},
    {"e", escape},
    {"escape", escape},
    {"float", to_float},
    {"format", format},
    {"indent", indent},
    {"int", to_int},
    {"length", count},
    {"lower", map_text<token::to_lower>},
    {"replace", replace},
    {"round", round_number},
    {"safe", safe},
    {"string", string},
    {"title", map_text<title_of>},
    {"tojson", to_json_filter},
    {"trim", trim},
    {"truncate", truncate},
    {"upper", map_text<token::to_upper>},
    {"urlencode", url_encode},
    {"wordcount", word_count},
};

}  // namespace

std::span<const FilterEntry> value_filters() { return kFilters; }

FilterFunction find_filter(std::string_view name) {
  for (const auto table : {value_filters(), sequence_filters()}) {
    const auto found = std::ranges::find(table, name, &FilterEntry::name);
    if (found != table.end()) return found->function;
  }
  return nullptr;
}

Value apply_filter(Runtime& runtime, const std::string& name, const Value& input, const Arguments& arguments) {
  const FilterFunction filter = find_filter(name);
  if (filter == nullptr) fail_template("No filter named {}.", repr_text(name));
  return filter(runtime, input, arguments);
}

}  // namespace nibble::jinja
