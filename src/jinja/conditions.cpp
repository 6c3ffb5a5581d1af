// What stands behind `is`: Jinja's tests.
#include <algorithm>
#include <span>

#include "jinja/builtins.h"
#include "jinja/call_arguments.h"
#include "jinja/operators.h"
#include "jinja/python_text.h"
#include "token/unicode.h"

namespace nibble::jinja {

namespace {

struct TestEntry {
  std::string_view name;
  TestFunction function;
};

template <bool (Value::*Is)() const>
bool is_kind(Runtime&, const Value& input, const Arguments&) {
  return (input.*Is)();
}

template <Operator Op>
bool compares(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("test", arguments, {"b"});
  return compare(runtime, Op, input, call.required(0));
}

template <bool Wanted>
bool is_boolean(Runtime&, const Value& input, const Arguments&) {
  return input.is_bool() && input.as_bool() == Wanted;
}

bool is_defined(Runtime&, const Value& input, const Arguments&) { return !input.is_undefined(); }

bool is_iterable(Runtime&, const Value& input, const Arguments&) {
  return input.is_text() || input.is_sequence() || input.is_dict() || input.is_undefined() || input.is_loop();
}

bool is_sequence(Runtime&, const Value& input, const Arguments&) {
  if (input.is_sequence()) return input.sequence().kind <= Sequence::Kind::kRange;
  return input.is_text() || input.is_dict() || input.is_undefined();
}

std::int64_t whole_number(const Value& input) {
  require_defined(input);
  if (!input.is_integral()) fail_template("not all arguments converted during string formatting");
  return input.as_int();
}

template <int Rest>
bool has_rest(Runtime&, const Value& input, const Arguments&) {
  return (whole_number(input) & 1) == Rest;
}

bool is_divisible(Runtime&, const Value& input, const Arguments& arguments) {
  const std::int64_t by = whole_number(CallArguments("divisibleby", arguments, {"num"}).required(0));
  if (by == 0) fail_template("integer modulo by zero");
  return by == -1 || whole_number(input) % by == 0;
}

template <bool Upper>
bool has_case(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Value text = to_text_value(runtime, input);
  return find_method(runtime, text, Upper ? "isupper" : "islower").callable().call(runtime, arguments).truthy();
}

bool is_same(Runtime&, const Value& input, const Arguments& arguments) {
  return input.same_as(CallArguments("sameas", arguments, {"other"}).required(0));
}

bool is_callable(Runtime&, const Value& input, const Arguments&) {
  return input.is_callable() || input.is_undefined() || input.is_loop();
}

bool is_filter_name(Runtime&, const Value& input, const Arguments&) {
  return input.is_text() && find_filter(input.text()) != nullptr;
}

bool is_test_name(Runtime&, const Value& input, const Arguments&) {
  return input.is_text() && find_test(input.text()) != nullptr;
}

constexpr TestEntry kTests[] = {
    {"!=", compares<Operator::kNe>},
    {"<", compares<Operator::kLt>},
    {"<=", compares<Operator::kLe>},
    {"==", compares<Operator::kEq>},
    {">", compares<Operator::kGt>},
    {">=", compares<Operator::kGe>},
    {"boolean", is_kind<&Value::is_bool>},
    {"callable", is_callable},
    {"defined", is_defined},
    {"divisibleby", is_divisible},
    {"eq", compares<Operator::kEq>},
    {"equalto", compares<Operator::kEq>},
    {"escaped", is_kind<&Value::is_markup>},
    {"even", has_rest<0>},
    {"false", is_boolean<false>},
    {"filter", is_filter_name},
    {"float", is_kind<&Value::is_float>},
    {"ge", compares<Operator::kGe>},
    {"greaterthan", compares<Operator::kGt>},
    {"gt", compares<Operator::kGt>},
    {"in", compares<Operator::kIn>},
    {"integer", is_kind<&Value::is_int>},
    {"iterable", is_iterable},
    {"le", compares<Operator::kLe>},
    {"lessthan", compares<Operator::kLt>},
    {"lower", has_case<false>},
    {"lt", compares<Operator::kLt>},
    {"mapping", is_kind<&Value::is_dict>},
    {"ne", compares<Operator::kNe>},
    {"none", is_kind<&Value::is_none>},
    {"number", is_kind<&Value::is_number>},
    {"odd", has_rest<1>},
    {"sameas", is_same},
    {"sequence", is_sequence},
    {"string", is_kind<&Value::is_text>},
    {"test", is_test_name},
    {"true", is_boolean<true>},
    {"undefined", is_kind<&Value::is_undefined>},
    {"upper", has_case<true>},
};

}  // namespace

TestFunction find_test(std::string_view name) {
  const TestEntry* found = std::ranges::find(kTests, name, &TestEntry::name);
  return found == std::end(kTests) ? nullptr : found->function;
}

bool apply_test(Runtime& runtime, const std::string& name, const Value& input, const Arguments& arguments) {
  const TestFunction test = find_test(name);
  if (test == nullptr) fail_template("No test named {}.", repr_text(name));
  return test(runtime, input, arguments);
}

}  // namespace nibble::jinja
