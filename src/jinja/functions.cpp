// The functions every template finds: range, namespace, raise_exception, strftime_now and a few more.
#include <memory>

#include "jinja/builtins.h"
#include "jinja/call_arguments.h"
#include "jinja/operators.h"
#include "jinja/python_text.h"

namespace nibble::jinja {

namespace {

Value range(Runtime& runtime, const Arguments& arguments) {
  const CallArguments call("range", arguments, {"start", "stop", "step"});
  if (call.find(0) == nullptr) fail_template("range expected at least 1 argument, got 0");
  const auto number = [&](std::size_t i, std::int64_t fallback) {
    const Value* value = call.find(i);
    if (value == nullptr) return fallback;
    require_defined(*value);
    if (!value->is_integral()) fail_template("'{}' object cannot be interpreted as an integer", value->type_name());
    return value->as_int();
  };
  const bool one = call.find(1) == nullptr;
  const std::int64_t start = one ? 0 : number(0, 0);
  const std::int64_t stop = one ? number(0, 0) : number(1, 0);
  const std::int64_t step = number(2, 1);
  if (step == 0) fail_template("range() arg 3 must not be zero");
  constexpr std::size_t kMost = 100000;
  Values items;
  for (std::int64_t at = start; step > 0 ? at < stop : at > stop;) {
    if (items.size() == kMost) {
      fail_template("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", kMost);
    }
    items.push_back(Value(at));
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return runtime.list(std::move(items), Sequence::Kind::kRange);
}

// dict(...): of an object or pairs, then of names.
std::vector<std::pair<Value, Value>> dict_items(Runtime& runtime, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  if (arguments.positional.size() > 1) {
    fail_template("dict expected at most 1 argument, got {}", arguments.positional.size());
  }
  if (!arguments.positional.empty() && arguments.positional[0].is_dict()) {
    items = arguments.positional[0].dict().items;
  } else if (!arguments.positional.empty()) {
    for (const Value& pair : elements(runtime, arguments.positional[0])) {
      const Values two = elements(runtime, pair);
      if (two.size() != 2) fail_template("dictionary update sequence element has length {}; 2 is required", two.size());
      items.emplace_back(two[0], two[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) items.emplace_back(runtime.text(name), value);
  return items;
}

Value make_dict(Runtime& runtime, const Arguments& arguments) { return runtime.dict(dict_items(runtime, arguments)); }

Value make_namespace(Runtime& runtime, const Arguments& arguments) {
  std::vector<std::pair<std::string, Value>> attributes;
  const Value all = runtime.dict(dict_items(runtime, arguments));
  for (const auto& [key, value] : all.dict().items) {
    if (!key.is_text()) fail_template("namespace attributes are named by texts");
    check_attribute_name(key.text());
    attributes.emplace_back(key.text(), value);
  }
  return runtime.name_space(std::move(attributes));
}

Value raise_exception(Runtime& runtime, const Arguments& arguments) {
  const CallArguments call("raise_exception", arguments, {"message"});
  throw Error(ErrorCode::kInvalidArgument, to_text(runtime, call.required(0)));
}

Value strftime_now(Runtime& runtime, const Arguments& arguments) {
  const std::string& format = CallArguments("strftime_now", arguments, {"format"}).required_text(0);
  constexpr std::size_t kMost = 4096;
  char buffer[kMost];
  // A space in front tells an empty result from one that does not fit.
  const std::size_t n = std::strftime(buffer, kMost, (" " + format).c_str(), &runtime.now());
  if (n == 0) fail_template("a date of more than {} characters", kMost);
  return runtime.text(std::string(buffer + 1, n - 1));
}

Value joiner(Runtime& runtime, const Arguments& arguments) {
  const CallArguments call("joiner", arguments, {"sep"});
  const std::string between = call.text(0) != nullptr ? *call.text(0) : ", ";
  return runtime.function("joiner", [between, used = std::make_shared<bool>(false)](Runtime& r, const Arguments&) {
    return r.text(std::exchange(*used, true) ? between : "");
  });
}

}  // namespace

void check_attribute_name(std::string_view name) {
  if (!name.starts_with('_')) return;
  fail_template(
      "Chat templates cannot store underscore-prefixed attributes on a namespace, but got {}. Please rename the "
      "attribute.",
      repr_text(name));
}

std::vector<std::pair<std::string, Value>> global_functions(Runtime& runtime) {
  std::vector<std::pair<std::string, Value>> out;
  const auto add = [&](std::string name, Value (*function)(Runtime&, const Arguments&)) {
    out.emplace_back(name, runtime.function(name, function, "function"));
  };
  add("range", range);
  add("dict", make_dict);
  add("namespace", make_namespace);
  add("raise_exception", raise_exception);
  add("strftime_now", strftime_now);
  add("joiner", joiner);
  return out;
}

}  // namespace nibble::jinja
