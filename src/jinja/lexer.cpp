#include "jinja/lexer.h"

#include <algorithm>

#include "base/error.h"
#include "jinja/python_text.h"
#include "token/utf8.h"

namespace nibble::jinja {

namespace {

using Kind = Token::Kind;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

// Line ends become \n, one at the very end goes.
std::string normalize_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

int hex_value(std::string_view digits) {
  int value = 0;
  for (const char c : digits) {
    const int digit = is_digit(c)            ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const std::size_t tag = find_tag();
      if (tag == std::string_view::npos) {
        add_text(source_.substr(at_));
        at_ = source_.size();
        break;
      }
      open_tag(tag);
    }
    tokens_.push_back({Kind::kEnd, "", line_});
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail_here(std::string_view what) const {
    throw Error(ErrorCode::kFormat, std::string(what)).add_context(format_text("line {}", line_));
  }

  std::string_view rest() const { return source_.substr(at_); }
  bool skip(std::string_view text) {
    if (!rest().starts_with(text)) return false;
    advance(text.size());
    return true;
  }
  void advance(std::size_t n) {
    line_ += static_cast<int>(std::ranges::count(source_.substr(at_, n), '\n'));
    at_ += n;
    line_starting_ = at_ > 0 && source_[at_ - 1] == '\n';
  }
  void skip_space() { advance(rest().size() - strip_left(rest()).size()); }

  std::size_t find_tag() const {
    for (std::size_t at = source_.find('{', at_); at + 1 < source_.size(); at = source_.find('{', at + 1)) {
      if (at == std::string_view::npos) break;
      if (std::string_view("%{#").find(source_[at + 1]) != std::string_view::npos) return at;
    }
    return std::string_view::npos;
  }

  void add_text(std::string_view text) {
    if (!text.empty()) tokens_.push_back({Kind::kText, std::string(text), line_});
  }

  // The text before a tag with the white space that the tag's sign takes.
  std::string_view text_before(std::size_t tag, char sign, bool is_print) const {
    const std::string_view text = source_.substr(at_, tag - at_);
    if (sign == '-') return strip_right(text);
    if (sign == '+' || is_print) return text;
    const std::size_t last_line = text.rfind('\n') + 1;  // 0 without one
    if (last_line == 0 && !line_starting_) return text;
    return strip(text.substr(last_line)).empty() ? text.substr(0, last_line) : text;
  }

  void open_tag(std::size_t tag) {
    const char kind = source_[tag + 1];
    char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
    if (sign != '-' && (sign != '+' || kind == '{')) sign = ' ';
    const std::string_view text = text_before(tag, sign, kind == '{');
    add_text(text);
    advance(tag - at_ + (sign == ' ' ? 2 : 3));
    if (kind == '#') return skip_comment();
    if (kind == '%' && skip_raw()) return;
    tokens_.push_back({kind == '{' ? Kind::kPrintBegin : Kind::kTagBegin, "", line_});
    lex_tag(kind == '{');
  }

  void skip_comment() {
    const std::size_t end = source_.find("#}", at_);
    if (end == std::string_view::npos) fail_here("Missing end of comment tag");
    const char sign = end > at_ ? source_[end - 1] : ' ';
    advance(end + 2 - at_);
    close_tag(sign);
  }

  // After the end of a block or comment: its sign or the trimming of one line end.
  void close_tag(char sign) {
    if (sign == '-') {
      skip_space();
    } else if (sign != '+') {
      skip("\n");
    }
  }

  bool skip_raw() {
    const std::size_t start = at_;
    const int line = line_;
    skip_space();
    if (skip("raw")) {
      skip_space();
      const bool strips = skip("-%}");
      if (strips || skip("%}")) {
        if (strips) skip_space();
        raw_text();
        return true;
      }
    }
    at_ = start;
    line_ = line;
    return false;
  }

  void raw_text() {
    for (std::size_t tag = source_.find("{%", at_); tag != std::string_view::npos; tag = source_.find("{%", tag + 1)) {
      std::string_view inside = source_.substr(tag + 2);
      const char sign = inside.empty() ? ' ' : inside[0];
      if (sign == '-' || sign == '+') inside.remove_prefix(1);
      inside = strip_left(inside);
      if (!inside.starts_with("endraw")) continue;
      inside = strip_left(inside.substr(6));
      const char end_sign = inside.empty() ? ' ' : inside[0];
      if (end_sign == '-' || end_sign == '+') inside.remove_prefix(1);
      if (!inside.starts_with("%}")) continue;
      add_text(text_before(tag, sign, false));
      advance(source_.size() - inside.size() + 2 - at_);
      return close_tag(end_sign);
    }
    fail_here("Missing end of raw directive");
  }

  // Inside {{ or {% up to its end, which counts only where no bracket is open.
  void lex_tag(bool is_print) {
    std::string open;
    for (;;) {
      skip_space();
      if (at_ == source_.size()) fail_here("unexpected end of template");
      if (open.empty() && close_here(is_print)) return;
      const char c = source_[at_];
      if (is_name_start(c)) {
        lex_name();
      } else if (is_digit(c)) {
        lex_number();
      } else if (c == '"' || c == '\'') {
        lex_string();
      } else {
        lex_operator(open);
      }
    }
  }

  bool close_here(bool is_print) {
    const std::string_view end = is_print ? "}}" : "%}";
    const char sign = rest()[0];
    const bool signed_end = (sign == '-' || (sign == '+' && !is_print)) && rest().substr(1).starts_with(end);
    if (!signed_end && !rest().starts_with(end)) return false;
    tokens_.push_back({is_print ? Kind::kPrintEnd : Kind::kTagEnd, "", line_});
    advance(signed_end ? 3 : 2);
    if (!is_print || signed_end) close_tag(signed_end ? sign : ' ');
    return true;
  }

  void take(Kind kind, std::size_t length) {
    tokens_.push_back({kind, std::string(rest().substr(0, length)), line_});
    advance(length);
  }

  void lex_name() {
    std::size_t length = 1;
    while (length < rest().size() && (is_name_start(rest()[length]) || is_digit(rest()[length]))) ++length;
    take(Kind::kName, length);
  }

  // Digits with single underscores between them.
  std::size_t digits(std::size_t from) const {
    std::size_t end = from;
    while (end < rest().size() && (is_digit(rest()[end]) || (rest()[end] == '_' && end > from))) ++end;
    return end;
  }

  void lex_number() {
    if (rest()[0] == '0' && rest().size() > 2 && std::string_view("xXoObB").find(rest()[1]) != std::string_view::npos) {
      std::size_t end = 2;
      while (end < rest().size() && (is_name_start(rest()[end]) || is_digit(rest()[end]))) ++end;
      return take(Kind::kInteger, end);
    }
    std::size_t end = digits(0);
    Kind kind = Kind::kInteger;
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    const auto digit_at = [&](std::size_t i) { return i < rest().size() && is_digit(rest()[i]); };
    if (!after_dot && end < rest().size() && rest()[end] == '.' && digit_at(end + 1)) {
      end = digits(end + 1);
      kind = Kind::kFloat;
    }
    if (!after_dot && end < rest().size() && (rest()[end] == 'e' || rest()[end] == 'E')) {
      std::size_t exponent = end + 1;
      if (exponent < rest().size() && (rest()[exponent] == '+' || rest()[exponent] == '-')) ++exponent;
      if (digit_at(exponent)) {
        end = digits(exponent);
        kind = Kind::kFloat;
      }
    }
    take(kind, end);
    std::erase(tokens_.back().text, '_');
  }

  void lex_string() {
    const char quote = rest()[0];
    std::size_t end = 1;
    while (end < rest().size() && rest()[end] != quote) end += rest()[end] == '\\' ? 2 : 1;
    if (end >= rest().size()) fail_here(format_text("unexpected char {} at {}", quote == '"' ? "'\"'" : "\"'\"", at_));
    tokens_.push_back({Kind::kString, unescape(rest().substr(1, end - 1)), line_});
    advance(end + 1);
  }

  std::string unescape(std::string_view text) const {
    std::string out;
    while (!text.empty()) {
      if (text[0] != '\\') {
        const std::size_t n = std::min(text.find('\\'), text.size());
        out += text.substr(0, n);
        text.remove_prefix(n);
        continue;
      }
      constexpr std::string_view kNames = "\\'\"abfnrtv\n";
      constexpr std::string_view kMeant = "\\'\"\a\b\f\n\r\t\v";
      const char c = text[1];
      const std::size_t at = kNames.find(c);
      const std::size_t hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
      if (hex > 0) {
        text.remove_prefix(2 + unescape_hex(text, hex, out));
      } else if (c >= '0' && c <= '7') {
        std::size_t n = 1;
        while (n < 3 && n + 1 < text.size() && text[n + 1] >= '0' && text[n + 1] <= '7') ++n;
        char32_t code = 0;
        for (const char digit : text.substr(1, n)) code = code * 8 + static_cast<char32_t>(digit - '0');
        token::append_utf8(code, out);
        text.remove_prefix(1 + n);
      } else {
        if (at < kMeant.size()) {
          out += kMeant[at];
        } else if (at == std::string_view::npos) {
          out += {'\\', c};  // a backslash and a line end are nothing
        }
        text.remove_prefix(2);
      }
    }
    return token::replace_malformed(out);
  }

  std::size_t unescape_hex(std::string_view text, std::size_t n, std::string& out) const {
    int code = text.size() >= 2 + n ? hex_value(text.substr(2, n)) : -1;
    if (code < 0 || code > 0x10FFFF) fail_here("a broken \\x, \\u or \\U in a string");
    std::size_t used = n;
    if (code >= 0xD800 && code < 0xDC00 && text.substr(2 + n).starts_with("\\u") && text.size() >= 8 + n) {
      const int low = hex_value(text.substr(4 + n, 4));
      if (low >= 0xDC00 && low < 0xE000) {
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        used = n + 6;
      }
    }
    token::append_utf8(static_cast<char32_t>(code), out);
    return used;
  }

  void lex_operator(std::string& open) {
    constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                               "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!rest().starts_with(op)) continue;
      constexpr std::string_view kOpening = "([{", kClosing = ")]}";
      if (const std::size_t at = kOpening.find(op); at != std::string_view::npos) {
        open += kClosing[at];
      } else if (kClosing.find(op) != std::string_view::npos) {
        if (open.empty()) fail_here(format_text("unexpected '{}'", op));
        if (open.back() != op[0]) fail_here(format_text("unexpected '{}', expected '{}'", op, open.back()));
        open.pop_back();
      }
      return take(Kind::kOperator, op.size());
    }
    fail_here(format_text("unexpected char {} at {}", repr_text(rest().substr(0, 1)), at_));
  }

  std::string_view source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const Limits& limits) {
  if (source.size() > limits.source_bytes) {
    fail(ErrorCode::kFormat, "the chat template has {} bytes, more than {}", source.size(), limits.source_bytes);
  }
  const std::string text = normalize_lines(token::replace_malformed(source));
  return Lexer(text).run();
}

}  // namespace nibble::jinja
