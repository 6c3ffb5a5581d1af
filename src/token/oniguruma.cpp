#include "base/error.h"
#include "token/regex.h"

namespace nibble::token {

namespace {

constexpr int kMaxDepth = 32;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

class Translator {
 public:
  explicit Translator(std::string_view source) : source_(source) {}

  std::string run() {
    while (at_ < source_.size()) {
      const char c = source_[at_];
      if (c == '\\') {
        out_ += escape(false);
      } else if (c == '[') {
        out_ += character_class(0);
      } else if (c == '{' && possessive_interval()) {
        continue;
      } else {
        out_ += c;
        ++at_;
      }
    }
    return out_;
  }

 private:
  [[noreturn]] void bad(std::string_view what) const {
    fail(ErrorCode::kFormat, "regular expression '{}': {} at offset {}", source_, what, at_);
  }

  // One escape; `inside` a class, where a set is written without its brackets.
  std::string escape(bool inside) {
    if (at_ + 1 >= source_.size()) bad("a lone backslash");
    const char c = source_[at_ + 1];
    if (c == 'u' && at_ + 6 <= source_.size()) {
      const std::string_view digits = source_.substr(at_ + 2, 4);
      bool hex = true;
      for (char d : digits) hex = hex && is_hex(d);
      if (hex) {
        at_ += 6;
        return "\\x{" + std::string(digits) + "}";
      }
    }
    at_ += 2;
    const auto set = [&](std::string_view members) {
      return inside ? std::string(members) : "[" + std::string(members) + "]";
    };
    switch (c) {
      case 's':
        return "\\p{WSpace}";
      case 'S':
        return "\\P{WSpace}";
      case 'w':
        return set("\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}");
      case 'h':
        return set("0-9a-fA-F");
      case 'W':
        if (inside) return "\\W";
        return "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";
      default:
        return {'\\', c};
    }
  }

  // {n,m}+ repeats the interval in Oniguruma: with n of 0 or 1 that is any number from n on.
  bool possessive_interval() {
    std::size_t i = at_ + 1;
    const std::size_t low = i;
    while (i < source_.size() && is_digit(source_[i])) ++i;
    const std::string_view lowest = source_.substr(low, i - low);
    if (i >= source_.size() || source_[i] != ',') return false;
    ++i;
    while (i < source_.size() && is_digit(source_[i])) ++i;
    if (i + 1 >= source_.size() || source_[i] != '}' || source_[i + 1] != '+') return false;
    if (lowest != "1" && lowest != "0" && !lowest.empty()) bad("a repeated interval");
    out_ += lowest == "1" ? '+' : '*';
    at_ = i + 2;
    return true;
  }

  // [...] with classes inside: their members join this one's; a negated one becomes an alternative, && a look-ahead.
  std::string character_class(int depth) {
    if (depth > kMaxDepth) bad("classes nested too deep");
    ++at_;
    const bool negated = at_ < source_.size() && source_[at_] == '^';
    if (negated) ++at_;
    std::vector<std::string> parts;         // the finished operands of &&
    std::string members;                    // of the operand at hand
    std::vector<std::string> alternatives;  // its negated inner classes
    const auto finish = [&] {
      std::string operand = members.empty() ? std::string() : "[" + members + "]";
      for (const std::string& other : alternatives) operand += (operand.empty() ? "" : "|") + other;
      if (operand.empty()) bad("an empty class");
      parts.push_back(alternatives.empty() ? operand : "(?:" + operand + ")");
      members.clear();
      alternatives.clear();
    };
    for (bool first = true;; first = false) {
      if (at_ >= source_.size()) bad("an unfinished class");
      const char c = source_[at_];
      if (c == ']' && !first) break;
      if (c == '\\') {
        members += escape(true);
      } else if (c == '[' && source_.substr(at_, 2) == "[:" && source_.find(":]", at_) != std::string_view::npos) {
        const std::size_t end = source_.find(":]", at_) + 2;
        members += source_.substr(at_, end - at_);
        at_ = end;
      } else if (c == '[') {
        std::string inner = character_class(depth + 1);
        if (inner.starts_with("[") && !inner.starts_with("[^")) {
          members += inner.substr(1, inner.size() - 2);
        } else {
          alternatives.push_back(std::move(inner));
        }
      } else if (source_.substr(at_, 2) == "&&") {
        at_ += 2;
        finish();
      } else {
        if (c == ']') members += '\\';
        members += c;
        ++at_;
      }
    }
    ++at_;
    if (parts.empty() && alternatives.empty()) return (negated ? "[^" : "[") + members + "]";
    finish();
    std::string all;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) all += "(?=" + parts[i] + ")";
    all += parts.back();
    return negated ? "(?:(?!" + all + ")(?s:.))" : "(?:" + all + ")";
  }

  std::string_view source_;
  std::size_t at_ = 0;
  std::string out_;
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace nibble::token
