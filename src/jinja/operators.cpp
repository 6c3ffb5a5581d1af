#include "jinja/operators.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "jinja/builtins.h"
#include "jinja/python_text.h"

namespace nibble::jinja {

namespace {

constexpr std::array<std::string_view, 15> kSymbols = {
    "+", "-", "*", "/", "//", "%", "** or pow()", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};

std::string_view symbol_of(Operator op) { return kSymbols[static_cast<std::size_t>(op)]; }

[[noreturn]] void fail_operands(Operator op, const Value& a, const Value& b) {
  fail_template("unsupported operand type(s) for {}: '{}' and '{}'", symbol_of(op), a.type_name(), b.type_name());
}

[[noreturn]] void fail_too_large() { fail(ErrorCode::kUnsupported, "an integer needs more than 64 bits"); }

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  return a / b - ((a % b != 0) && ((a < 0) != (b < 0)) ? 1 : 0);
}

std::int64_t power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(result, base, &result)) fail_too_large();
    if (result == 0 || (base == 1 || (base == -1 && exponent % 2 == 1))) break;
  }
  return result;
}

Value integer_arithmetic(Operator op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  bool overflows = false;
  const bool divides = op == Operator::kDiv || op == Operator::kFloorDiv || op == Operator::kMod;
  if (divides && b == 0) {
    fail_template("{}", op == Operator::kDiv ? "division by zero" : "integer modulo by zero");
  }
  if (a == std::numeric_limits<std::int64_t>::min() && b == -1 && divides) fail_too_large();
  switch (op) {
    case Operator::kAdd:
      overflows = __builtin_add_overflow(a, b, &result);
      break;
    case Operator::kSub:
      overflows = __builtin_sub_overflow(a, b, &result);
      break;
    case Operator::kMul:
      overflows = __builtin_mul_overflow(a, b, &result);
      break;
    case Operator::kDiv:
      return Value(static_cast<double>(a) / static_cast<double>(b));
    case Operator::kFloorDiv:
      result = floor_divide(a, b);
      break;
    case Operator::kMod:
      result = a - floor_divide(a, b) * b;
      break;
    default:
      if (b < 0) return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
      result = power(a, b);
  }
  if (overflows) fail_too_large();
  return Value(result);
}

Value float_arithmetic(Operator op, double a, double b) {
  const bool divides = op == Operator::kDiv || op == Operator::kFloorDiv || op == Operator::kMod;
  if (divides && b == 0) fail_template("float division by zero");
  switch (op) {
    case Operator::kAdd:
      return Value(a + b);
    case Operator::kSub:
      return Value(a - b);
    case Operator::kMul:
      return Value(a * b);
    case Operator::kDiv:
      return Value(a / b);
    case Operator::kFloorDiv:
      return Value(std::floor(a / b));
    case Operator::kMod:
      return Value(a - std::floor(a / b) * b);
    default:
      return Value(std::pow(a, b));
  }
}

bool is_plain(const Value& value, Sequence::Kind kind) { return value.is_sequence() && value.sequence().kind == kind; }

Value add(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_text() && b.is_text()) {
    const bool markup = a.is_markup() || b.is_markup();
    const auto part = [&](const Value& v) { return markup && !v.is_markup() ? escape_html(v.text()) : v.text(); };
    runtime.check_room(a.text().size() + b.text().size());
    if (!markup) return runtime.text(a.text() + b.text());
    return runtime.text(part(a) + part(b), true);
  }
  for (const auto kind : {Sequence::Kind::kList, Sequence::Kind::kTuple}) {
    if (!is_plain(a, kind) || !is_plain(b, kind)) continue;
    runtime.check_room((a.sequence().items.size() + b.sequence().items.size()) * sizeof(Value));
    Values items = a.sequence().items;
    items.insert(items.end(), b.sequence().items.begin(), b.sequence().items.end());
    return runtime.list(std::move(items), kind);
  }
  if (a.is_text()) fail_template("can only concatenate str (not \"{}\") to str", b.type_name());
  if (is_plain(a, Sequence::Kind::kList)) {
    fail_template("can only concatenate list (not \"{}\") to list", b.type_name());
  }
  fail_operands(Operator::kAdd, a, b);
}

Value repeat(Runtime& runtime, const Value& value, std::int64_t times) {
  const auto n = static_cast<std::uint64_t>(std::max<std::int64_t>(times, 0));
  const std::uint64_t size = value.is_text() ? value.text().size() : value.sequence().items.size() * sizeof(Value);
  if (size > 0) runtime.check_room(n > std::numeric_limits<std::uint64_t>::max() / size ? ~std::uint64_t{0} : n * size);
  runtime.spend(size == 0 ? 1 : 1 + n / 64);
  if (value.is_text()) {
    std::string out;
    out.reserve(n * size);
    for (std::uint64_t i = 0; i < n && size > 0; ++i) out += value.text();
    return runtime.text(std::move(out), value.is_markup());
  }
  Values items;
  const Values& source = value.sequence().items;
  for (std::uint64_t i = 0; i < n && size > 0; ++i) items.insert(items.end(), source.begin(), source.end());
  return runtime.list(std::move(items), value.sequence().kind);
}

bool repeatable(const Value& value) {
  return value.is_text() || is_plain(value, Sequence::Kind::kList) || is_plain(value, Sequence::Kind::kTuple);
}

int compare_values(Runtime& runtime, const Value& a, const Value& b, std::string_view symbol) {
  runtime.spend();
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int();
    return a.as_number() < b.as_number() ? -1 : a.as_number() > b.as_number();
  }
  if (a.is_text() && b.is_text()) {
    runtime.spend_copy(std::min(a.text().size(), b.text().size()));
    return a.text().compare(b.text());
  }
  if (a.is_sequence() && b.is_sequence() && a.type_name() == b.type_name()) {
    const Values& x = a.sequence().items;
    const Values& y = b.sequence().items;
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(runtime, x[i], y[i])) return compare_values(runtime, x[i], y[i], symbol);
    }
    return x.size() < y.size() ? -1 : x.size() > y.size();
  }
  require_defined(a);
  require_defined(b);
  fail_template("'{}' not supported between instances of '{}' and '{}'", symbol, a.type_name(), b.type_name());
}

}  // namespace

Value arithmetic(Runtime& runtime, Operator op, const Value& a, const Value& b) {
  require_defined(a);
  if (op == Operator::kAdd && a.is_text() && !b.is_text() && !b.is_undefined()) return add(runtime, a, b);
  require_defined(b);
  if (a.is_number() && b.is_number()) {
    return a.is_integral() && b.is_integral() ? integer_arithmetic(op, a.as_int(), b.as_int())
                                              : float_arithmetic(op, a.as_number(), b.as_number());
  }
  if (op == Operator::kAdd) return add(runtime, a, b);
  if (op == Operator::kMul && repeatable(a) && b.is_integral()) return repeat(runtime, a, b.as_int());
  if (op == Operator::kMul && repeatable(b) && a.is_integral()) return repeat(runtime, b, a.as_int());
  if (op == Operator::kMod && a.is_text()) return runtime.text(percent_format(runtime, a.text(), b), a.is_markup());
  fail_operands(op, a, b);
}

Value negate(const Value& value) {
  require_defined(value);
  if (value.is_integral()) {
    if (value.as_int() == std::numeric_limits<std::int64_t>::min()) fail_too_large();
    return Value(-value.as_int());
  }
  if (value.is_float()) return Value(-value.as_number());
  fail_template("bad operand type for unary -: '{}'", value.type_name());
}

bool equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.spend();
  if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
  if (a.is_number() && b.is_number()) {
    return a.is_integral() && b.is_integral() ? a.as_int() == b.as_int() : a.as_number() == b.as_number();
  }
  if (a.is_text() && b.is_text()) {
    runtime.spend_copy(std::min(a.text().size(), b.text().size()));
    return a.text() == b.text();
  }
  if (a.is_sequence() && b.is_sequence() && a.sequence().has_length() && a.type_name() == b.type_name()) {
    const Values& x = a.sequence().items;
    const Values& y = b.sequence().items;
    return std::ranges::equal(x, y, [&](const Value& p, const Value& q) { return equal(runtime, p, q); });
  }
  if (a.is_dict() && b.is_dict()) {
    if (a.dict().items.size() != b.dict().items.size()) return false;
    return std::ranges::all_of(a.dict().items, [&](const auto& item) {
      runtime.spend();
      const Value* other = b.dict().find(item.first);
      return other != nullptr && equal(runtime, item.second, *other);
    });
  }
  return a.same_as(b);
}

bool less(Runtime& runtime, const Value& a, const Value& b, std::string_view symbol) {
  return compare_values(runtime, a, b, symbol) < 0;
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_text()) {
    if (!item.is_text()) {
      fail_template("'in <string>' requires string as left operand, not {}", item.type_name());
    }
    runtime.spend_copy(container.text().size());
    return container.text().find(item.text()) != std::string::npos;
  }
  if (container.is_dict()) {
    runtime.spend(item.is_text() ? 1 : 1 + container.dict().items.size());
    if (item.is_dict() || (item.is_sequence() && item.sequence().kind == Sequence::Kind::kList)) {
      fail_template("unhashable type: '{}'", item.type_name());
    }
    return container.dict().find(item) != nullptr;
  }
  if (!container.is_sequence() && !container.is_undefined()) {
    fail_template("argument of type '{}' is not iterable", container.type_name());
  }
  const Values items = elements(runtime, container);
  return std::ranges::any_of(items, [&](const Value& value) { return equal(runtime, value, item); });
}

bool compare(Runtime& runtime, Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::kEq:
      return equal(runtime, a, b);
    case Operator::kNe:
      return !equal(runtime, a, b);
    case Operator::kIn:
      return contains(runtime, b, a);
    case Operator::kNotIn:
      return !contains(runtime, b, a);
    default:
      break;
  }
  if (a.is_number() && b.is_number() && (std::isnan(a.as_number()) || std::isnan(b.as_number()))) return false;
  const int order = compare_values(runtime, a, b, symbol_of(op));
  if (op == Operator::kLt) return order < 0;
  if (op == Operator::kLe) return order <= 0;
  return op == Operator::kGt ? order > 0 : order >= 0;
}

}  // namespace nibble::jinja
