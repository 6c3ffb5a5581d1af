// The methods that lists, objects and loops have and a template may call, and the looking up of methods.
#include <algorithm>

#include "jinja/builtins.h"
#include "jinja/call_arguments.h"
#include "jinja/method_tables.h"
#include "jinja/operators.h"
#include "jinja/python_text.h"

namespace nibble::jinja {

namespace {

template <int Part>  // 0 items, 1 keys, 2 values
Value dict_view(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("dict view", arguments, {});
  Values items;
  runtime.check_room(self.dict().items.size() * (sizeof(Sequence) + 2 * sizeof(Value)));
  for (const auto& [key, value] : self.dict().items) {
    items.push_back(Part == 0 ? runtime.tuple({key, value}) : Part == 1 ? key : value);
  }
  constexpr Sequence::Kind kKinds[] = {Sequence::Kind::kItems, Sequence::Kind::kKeys, Sequence::Kind::kValues};
  return runtime.list(std::move(items), kKinds[Part]);
}

Value dict_get(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("get", arguments, {"key", "default"});
  runtime.spend(call.required(0).is_text() ? 1 : 1 + self.dict().items.size());
  if (const Value* found = self.dict().find(call.required(0))) return *found;
  return call.find(1) != nullptr ? *call.find(1) : kNone;
}

Value copy(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("copy", arguments, {});
  return self.is_dict() ? runtime.dict(self.dict().items) : runtime.list(self.sequence().items);
}

Value list_index(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("index", arguments, {"value"});
  const Values& items = self.sequence().items;
  const auto found = std::ranges::find_if(items, [&](const Value& v) { return equal(runtime, v, call.required(0)); });
  if (found == items.end()) fail_template("{} is not in list", repr(runtime, call.required(0)));
  return Value(static_cast<std::int64_t>(found - items.begin()));
}

Value list_count(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const CallArguments call("count", arguments, {"value"});
  return Value(static_cast<std::int64_t>(std::ranges::count_if(
      self.sequence().items, [&](const Value& v) { return equal(runtime, v, call.required(0)); })));
}

Value loop_cycle(Runtime&, const Value& self, const Arguments& arguments) {
  if (arguments.positional.empty()) fail_template("no items for cycling given");
  const auto n = static_cast<std::int64_t>(arguments.positional.size());
  return arguments.positional[static_cast<std::size_t>(self.loop().index0 % n)];
}

Value loop_changed(Runtime& runtime, const Value& self, const Arguments& arguments) {
  Loop& loop = self.loop();
  const Value now = runtime.tuple(arguments.positional);
  const bool changed = !loop.changed_once || !equal(runtime, loop.last_changed, now);
  loop.changed_once = true;
  loop.last_changed = now;
  return Value(changed);
}

constexpr MethodEntry kDictMethods[] = {
    {"copy", copy},     {"get", dict_get}, {"items", dict_view<0>}, {"keys", dict_view<1>},  {"values", dict_view<2>},
    {"clear", nullptr}, {"pop", nullptr},  {"popitem", nullptr},    {"setdefault", nullptr}, {"update", nullptr}};
constexpr MethodEntry kListMethods[] = {{"copy", copy},       {"count", list_count}, {"index", list_index},
                                        {"append", nullptr},  {"clear", nullptr},    {"pop", nullptr},
                                        {"reverse", nullptr}, {"insert", nullptr},   {"sort", nullptr},
                                        {"extend", nullptr},  {"remove", nullptr}};
constexpr MethodEntry kTupleMethods[] = {{"count", list_count}, {"index", list_index}};
constexpr MethodEntry kLoopMethods[] = {{"cycle", loop_cycle}, {"changed", loop_changed}};

const MethodEntry* find_entry(const Value& self, std::string_view name) {
  const auto find = [&](std::span<const MethodEntry> table) -> const MethodEntry* {
    const auto found = std::ranges::find(table, name, &MethodEntry::name);
    return found == table.end() ? nullptr : &*found;
  };
  if (self.is_text()) return find(text_methods());
  if (self.is_dict()) return find(kDictMethods);
  if (self.is_loop()) return find(kLoopMethods);
  if (!self.is_sequence()) return nullptr;
  if (self.sequence().kind == Sequence::Kind::kList) return find(kListMethods);
  return self.sequence().kind == Sequence::Kind::kTuple ? find(kTupleMethods) : nullptr;
}

}  // namespace

bool is_method(const Value& self, std::string_view name) {
  return name.starts_with("__") || find_entry(self, name) != nullptr;
}

Value find_method(Runtime& runtime, const Value& self, std::string_view name) {
  const MethodEntry* entry = find_entry(self, name);
  if (entry == nullptr || entry->method == nullptr) {
    return Value::undefined(
        format_text("access to attribute {} of {} object is unsafe.", repr_text(name), repr_text(self.type_name())));
  }
  return runtime.function(std::string(name), [self, method = entry->method](Runtime& r, const Arguments& arguments) {
    return method(r, self, arguments);
  });
}

}  // namespace nibble::jinja
