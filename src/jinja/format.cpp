// Python's two ways of putting values into a text: "%" and str.format().
#include <cmath>

#include "jinja/builtins.h"
#include "jinja/operators.h"
#include "jinja/python_text.h"

namespace nibble::jinja {

namespace {

constexpr int kMaxWidth = 10000;

// [[fill]align][sign][#][0][width][,][.precision][type]
struct Spec {
  std::string fill = " ";
  char align = 0;
  char sign = '-';
  int width = 0;
  bool thousands = false;
  int precision = -1;
  char type = 0;
};

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  bool done() const { return text_.empty(); }
  char peek() const { return text_.empty() ? '\0' : text_[0]; }
  char next() {
    const char c = peek();
    if (!text_.empty()) text_.remove_prefix(1);
    return c;
  }
  bool skip(char c) { return !text_.empty() && text_[0] == c && (next(), true); }
  std::string_view until(std::string_view stops) {
    const std::size_t n = std::min(text_.find_first_of(stops), text_.size());
    const std::string_view part = text_.substr(0, n);
    text_.remove_prefix(n);
    return part;
  }
  int number() {
    int value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + (next() - '0');
      if (value > kMaxWidth) fail_template("a width or precision in a format is more than {}", kMaxWidth);
    }
    return value;
  }
  std::string_view rest() const { return text_; }
  void drop(std::size_t n) { text_.remove_prefix(n); }

 private:
  std::string_view text_;
};

bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

Spec parse_spec(std::string_view text) {
  Spec spec;
  Reader in(text);
  const std::vector<std::string_view> first = characters(text.substr(0, 8));
  if (first.size() > 1 && is_align(first[1][0])) {
    spec.fill = first[0];
    spec.align = first[1][0];
    in.drop(first[0].size() + 1);
  } else if (is_align(in.peek())) {
    spec.align = in.next();
  }
  if (in.peek() == '+' || in.peek() == '-' || in.peek() == ' ') spec.sign = in.next();
  if (in.skip('0')) {
    spec.fill = "0";
    if (spec.align == 0) spec.align = '=';
  }
  spec.width = in.number();
  spec.thousands = in.skip(',');
  if (in.skip('.')) spec.precision = in.number();
  spec.type = in.next();
  if (!in.done()) fail_template("Invalid format specifier '{}'", text);
  return spec;
}

std::string padded(std::string text, const Spec& spec, char usual_align) {
  const std::int64_t missing = spec.width - Text(text).length();
  if (missing <= 0) return text;
  const char align = spec.align != 0 ? spec.align : usual_align;
  const auto fill = [&](std::int64_t n) {
    std::string out;
    for (std::int64_t i = 0; i < n; ++i) out += spec.fill;
    return out;
  };
  if (align == '<') return text + fill(missing);
  if (align == '^') return fill(missing / 2) + text + fill(missing - missing / 2);
  const std::size_t sign = align == '=' && !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  return text.substr(0, sign) + fill(missing) + text.substr(sign);
}

void add_thousands(std::string& digits) {
  std::size_t end = digits.find_first_of(".e");
  if (end == std::string::npos) end = digits.size();
  const std::size_t begin = digits[0] == '-' ? 1 : 0;
  for (std::size_t at = end; at > begin + 3;) digits.insert(at -= 3, ",");
}

std::string format_number(const Value& value, const Spec& spec) {
  std::string text;
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  const char type = spec.type != 0 ? spec.type : value.is_integral() ? 'd' : 'r';
  const double number = value.as_number();
  if (value.is_integral() && std::string_view("dxXob").find(type) != std::string_view::npos) {
    const bool negative = value.as_int() < 0;
    const std::uint64_t size =
        negative ? ~static_cast<std::uint64_t>(value.as_int()) + 1 : static_cast<std::uint64_t>(value.as_int());
    text = (negative ? "-" : "") + (type == 'x'   ? format_text("{:x}", size)
                                    : type == 'X' ? format_text("{:X}", size)
                                    : type == 'o' ? format_text("{:o}", size)
                                    : type == 'b' ? format_text("{:b}", size)
                                                  : format_text("{}", size));
  } else if (type == 'f' || type == 'F') {
    text = format_text("{:.{}f}", number, precision);
  } else if (type == 'e') {
    text = format_text("{:.{}e}", number, precision);
  } else if (type == 'g') {
    text = format_text("{:.{}g}", number, precision);
  } else if (type == '%') {
    text = format_text("{:.{}f}%", number * 100, precision);
  } else if (type == 'r') {
    text = spec.precision < 0 ? float_text(number) : format_text("{:.{}g}", number, precision);
  } else {
    fail_template("Unknown format code '{}' for object of type '{}'", type, value.type_name());
  }
  if (spec.thousands) add_thousands(text);
  if (spec.sign != '-' && text[0] != '-') text.insert(0, 1, spec.sign);
  return padded(std::move(text), spec, '>');
}

std::string format_value(Runtime& runtime, const Value& value, std::string_view text) {
  if (text.empty()) return to_text(runtime, value);
  const Spec spec = parse_spec(text);
  if (value.is_number() && (!value.is_bool() || spec.type != 0) && spec.type != 's') return format_number(value, spec);
  if (!value.is_text() && !value.is_bool()) {
    fail_template("unsupported format string passed to {}.__format__", value.type_name());
  }
  if (spec.type != 0 && spec.type != 's') {
    fail_template("Unknown format code '{}' for object of type '{}'", spec.type, value.type_name());
  }
  std::string out = to_text(runtime, value);
  if (spec.precision >= 0) out.resize(byte_offset(Text(out), spec.precision));
  return padded(std::move(out), spec, '<');
}

// The field "0", "name", "a.b[c]" of str.format(); `automatic` counts the empty ones.
Value format_field(Runtime& runtime, std::string_view field, const Arguments& arguments, std::size_t& automatic) {
  Reader in(field);
  const std::string first(in.until(".["));
  const Value* found = nullptr;
  if (first.empty() || first.find_first_not_of("0123456789") == std::string::npos) {
    const std::size_t at = first.empty() ? automatic++ : first.size() > 6 ? ~std::size_t{0} : std::stoul(first);
    if (at >= arguments.positional.size()) fail_template("tuple index out of range");
    found = &arguments.positional[at];
  } else {
    found = arguments.find(first);
    if (found == nullptr) fail_template("'{}'", first);
  }
  Value value = *found;
  while (!in.done()) {
    if (in.skip('.')) {
      value = attribute(runtime, value, std::string(in.until(".[")));
    } else {
      in.next();
      const std::string key(in.until("]"));
      in.skip(']');
      const bool number = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
      value = subscript(runtime, value, number ? Value(std::int64_t{std::stol(key)}) : runtime.text(key));
    }
  }
  return value;
}

// [flags][width][.precision]type of "%".
Spec parse_percent_spec(Reader& in) {
  Spec spec;
  for (; !in.done() && std::string_view("-+ 0#").find(in.peek()) != std::string_view::npos; in.next()) {
    if (in.peek() == '-') spec.align = '<';
    if (in.peek() == '+' || in.peek() == ' ') spec.sign = in.peek();
    if (in.peek() == '0') spec.fill = "0", spec.align = '=';
  }
  spec.width = in.number();
  if (in.skip('.')) spec.precision = in.number();
  spec.type = in.next();
  return spec;
}

std::string percent_value(Runtime& runtime, Value value, Spec spec) {
  if (spec.type == 's' || spec.type == 'r') {
    std::string text = spec.type == 's' ? to_text(runtime, value) : repr(runtime, value);
    if (spec.precision >= 0) text.resize(byte_offset(Text(text), spec.precision));
    return padded(std::move(text), spec, '>');
  }
  if (!value.is_number()) {
    require_defined(value);
    fail_template("%{} format: a real number is required, not {}", spec.type, value.type_name());
  }
  if (spec.type == 'i' || spec.type == 'u') spec.type = 'd';
  if (spec.type == 'd' && value.is_float() && std::fabs(value.as_number()) < 0x1p63) {
    value = Value(static_cast<std::int64_t>(value.as_number()));
  }
  return format_number(value, spec);
}

}  // namespace

std::string brace_format(Runtime& runtime, const std::string& format, const Arguments& arguments) {
  std::string out;
  std::size_t automatic = 0;
  Reader in(format);
  while (!in.done()) {
    runtime.spend();
    runtime.check_room(out.size());
    out += in.until("{}");
    if (in.done()) break;
    const char brace = in.next();
    if (in.skip(brace)) {
      out += brace;
      continue;
    }
    if (brace == '}') fail_template("Single '}}' encountered in format string");
    const std::string_view field = in.until("!:{}");
    const bool quoted = in.skip('!') && in.next() == 'r';
    const std::string_view spec = in.skip(':') ? in.until("{}") : std::string_view();
    if (!in.skip('}')) fail_template("expected '}}' before end of string");
    const Value value = format_field(runtime, field, arguments, automatic);
    out += quoted ? repr(runtime, value) : format_value(runtime, value, spec);
  }
  return out;
}

std::string percent_format(Runtime& runtime, const std::string& format, const Value& arguments) {
  const bool tuple = arguments.is_sequence() && arguments.sequence().kind == Sequence::Kind::kTuple;
  const Values values = tuple ? arguments.sequence().items : Values{arguments};
  std::size_t used = 0;
  std::string out;
  Reader in(format);
  while (!in.done()) {
    runtime.spend();
    runtime.check_room(out.size());
    out += in.until("%");
    if (in.done()) break;
    in.next();
    if (in.skip('%')) {
      out += '%';
      continue;
    }
    if (in.skip('(')) {
      const Value value = subscript(runtime, arguments, runtime.text(std::string(in.until(")"))));
      in.skip(')');
      used = values.size();
      out += percent_value(runtime, value, parse_percent_spec(in));
      continue;
    }
    const Spec spec = parse_percent_spec(in);
    if (used >= values.size()) fail_template("not enough arguments for format string");
    out += percent_value(runtime, values[used++], spec);
  }
  if (used < values.size() && (tuple || !arguments.is_dict())) {
    fail_template("not all arguments converted during string formatting");
  }
  return out;
}

}  // namespace nibble::jinja
