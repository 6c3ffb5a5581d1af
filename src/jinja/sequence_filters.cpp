// Filters on the elements of a value.
#include <algorithm>

#include "jinja/call_arguments.h"
#include "jinja/filter_tables.h"
#include "jinja/operators.h"
#include "jinja/python_text.h"
#include "token/unicode.h"

namespace nibble::jinja {

namespace {

// "a.b.0" as map(attribute=...) and selectattr() follow it.
Value follow(Runtime& runtime, Value item, const Value& path, const Value* fallback = nullptr) {
  if (path.is_integral()) return subscript(runtime, item, path);
  if (!path.is_text()) return item;
  std::string_view rest = path.text();
  for (;;) {
    const std::size_t dot = std::min(rest.find('.'), rest.size());
    const std::string part(rest.substr(0, dot));
    const bool number = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string::npos;
    item = subscript(runtime, item, number ? Value(std::int64_t{std::stol(part)}) : runtime.text(part));
    if (fallback != nullptr && item.is_undefined()) item = *fallback;
    if (dot == rest.size()) return item;
    rest.remove_prefix(dot + 1);
  }
}

Value folded(Runtime& runtime, const Value& value) {
  return value.is_text() ? runtime.text(token::to_lower(value.text())) : value;
}

// The elements with what they are ordered or told apart by.
struct Keyed {
  Value key;
  Value item;
};

std::vector<Keyed> keyed(Runtime& runtime, const Values& items, const Value* path, bool case_sensitive) {
  std::vector<Keyed> out;
  for (const Value& item : items) {
    Value key = path != nullptr && !path->is_none() ? follow(runtime, item, *path) : item;
    out.push_back({case_sensitive ? key : folded(runtime, key), item});
  }
  return out;
}

void sort_keyed(Runtime& runtime, std::vector<Keyed>& items, bool reverse) {
  std::ranges::stable_sort(items, [&](const Keyed& a, const Keyed& b) {
    return reverse ? less(runtime, b.key, a.key) : less(runtime, a.key, b.key);
  });
}

Value items_of(Runtime& runtime, const std::vector<Keyed>& keyed_items) {
  Values out;
  for (const Keyed& one : keyed_items) out.push_back(one.item);
  return runtime.list(std::move(out));
}

Value join(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("join", arguments, {"d", "attribute"});
  const std::string between = call.find(0) != nullptr ? to_text(runtime, *call.find(0)) : "";
  std::string out;
  bool first = true;
  for (const Value& item : elements(runtime, input)) {
    if (!std::exchange(first, false)) out += between;
    out += to_text(runtime, call.find(1) != nullptr ? follow(runtime, item, *call.find(1)) : item);
    runtime.check_room(out.size());
  }
  return runtime.text(std::move(out));
}

Value first(Runtime& runtime, const Value& input, const Arguments&) {
  const Values items = elements(runtime, input);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last(Runtime& runtime, const Value& input, const Arguments&) {
  const Values items = elements(runtime, input);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value list(Runtime& runtime, const Value& input, const Arguments&) { return runtime.list(elements(runtime, input)); }

// Filters that are generators in Jinja: nothing happens, and nothing fails, before their elements are asked for.
template <Values (*Make)(Runtime&, const Value&, const Arguments&)>
Value lazily(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Value list = runtime.list(arguments.positional);
  return runtime.generator({&input, &list}, [input, arguments](Runtime& r) { return Make(r, input, arguments); });
}

Value reverse(Runtime& runtime, const Value& input, const Arguments&) {
  if (input.is_text()) {
    runtime.spend_walk(input.text().size());
    runtime.check_room(input.text().size() * sizeof(std::string_view));
    std::vector<std::string_view> all = characters(input.text());
    std::string out;
    for (auto c = all.rbegin(); c != all.rend(); ++c) out += *c;
    return runtime.text(std::move(out));
  }
  Values items = elements(runtime, input);
  std::ranges::reverse(items);
  return runtime.generator({&input}, [items](Runtime&) { return items; });
}

Values items(Runtime& runtime, const Value& input, const Arguments&) {
  if (input.is_undefined()) return {};
  if (!input.is_dict()) fail_template("Can only get item pairs from a mapping.");
  return find_method(runtime, input, "items").callable().call(runtime, {}).sequence().items;
}

Value dict_sort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = call.text(1) != nullptr ? *call.text(1) : "key";
  if (by != "key" && by != "value") fail_template("You can only sort by either \"key\" or \"value\"");
  require_defined(input);
  if (!input.is_dict()) fail_template("'{}' object has no attribute 'items'", input.type_name());
  const Value pairs = find_method(runtime, input, "items").callable().call(runtime, {});
  const Value path(std::int64_t{by == "value"});
  std::vector<Keyed> sorted = keyed(runtime, pairs.sequence().items, &path, call.flag(0, false));
  sort_keyed(runtime, sorted, call.flag(2, false));
  return items_of(runtime, sorted);
}

Value sort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<Keyed> sorted = keyed(runtime, elements(runtime, input), call.find(2), call.flag(1, false));
  sort_keyed(runtime, sorted, call.flag(0, false));
  return items_of(runtime, sorted);
}

Values unique(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("unique", arguments, {"case_sensitive", "attribute"});
  std::vector<Keyed> kept;
  for (const Keyed& one : keyed(runtime, elements(runtime, input), call.find(1), call.flag(0, false))) {
    if (std::ranges::none_of(kept, [&](const Keyed& old) { return equal(runtime, old.key, one.key); })) {
      kept.push_back(one);
    }
  }
  return items_of(runtime, kept).sequence().items;
}

template <bool Largest>
Value extreme(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("max", arguments, {"case_sensitive", "attribute"});
  const std::vector<Keyed> all = keyed(runtime, elements(runtime, input), call.find(1), call.flag(0, false));
  if (all.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  const Keyed* best = &all[0];
  for (const Keyed& one : all) {
    if (Largest ? less(runtime, best->key, one.key) : less(runtime, one.key, best->key)) best = &one;
  }
  return best->item;
}

Value sum(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("sum", arguments, {"attribute", "start"});
  Value total = call.find(1) != nullptr ? *call.find(1) : Value(std::int64_t{0});
  for (const Value& item : elements(runtime, input)) {
    const bool deep = call.find(0) != nullptr && !call.find(0)->is_none();
    total = arithmetic(runtime, Operator::kAdd, total, deep ? follow(runtime, item, *call.find(0)) : item);
  }
  return total;
}

Arguments after_first(const Arguments& arguments, std::size_t n) {
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<std::ptrdiff_t>(std::min(n, rest.positional.size())));
  return rest;
}

Values map(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Values out;
  if (!input.truthy()) return out;
  const Value* path = arguments.find("attribute");
  if (arguments.positional.empty() && path == nullptr) fail_template("map requires a filter argument");
  for (const Value& item : elements(runtime, input)) {
    if (arguments.positional.empty()) {
      out.push_back(follow(runtime, item, *path, arguments.find("default")));
    } else {
      out.push_back(apply_filter(runtime, to_text(runtime, arguments.positional[0]), item, after_first(arguments, 1)));
    }
  }
  return out;
}

// select, reject: by a test of the element; selectattr, rejectattr: of an attribute.
template <bool Keeps, bool ByAttribute>
Values choose(Runtime& runtime, const Value& input, const Arguments& arguments) {
  constexpr std::size_t kTest = ByAttribute ? 1 : 0;
  if (!input.truthy()) return {};
  if (ByAttribute && arguments.positional.empty()) fail_template("Missing parameter for attribute name");
  Values out;
  const Arguments rest = after_first(arguments, kTest + 1);
  for (const Value& item : elements(runtime, input)) {
    const Value tested = ByAttribute ? follow(runtime, item, arguments.positional[0]) : item;
    const bool fits = arguments.positional.size() > kTest
                          ? apply_test(runtime, to_text(runtime, arguments.positional[kTest]), tested, rest)
                          : tested.truthy();
    if (fits == Keeps) out.push_back(item);
  }
  return out;
}

Values batch(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("batch", arguments, {"linecount", "fill_with"});
  const auto size = static_cast<std::size_t>(std::max<std::int64_t>(call.integer(0, 1), 1));
  const Values all = elements(runtime, input);
  Values rows;
  for (std::size_t at = 0; at < all.size(); at += std::min(size, all.size() - at)) {
    const std::size_t n = std::min(size, all.size() - at);
    Values row(all.begin() + static_cast<std::ptrdiff_t>(at), all.begin() + static_cast<std::ptrdiff_t>(at + n));
    if (call.find(1) != nullptr && !call.find(1)->is_none()) {
      runtime.check_room(size * sizeof(Value));
      row.resize(size, *call.find(1));
    }
    rows.push_back(runtime.list(std::move(row)));
  }
  return rows;
}

Value group_by(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const CallArguments call("groupby", arguments, {"attribute", "default", "case_sensitive"});
  std::vector<Keyed> sorted = keyed(runtime, elements(runtime, input), &call.required(0), call.flag(2, false));
  sort_keyed(runtime, sorted, false);
  Values groups;
  for (std::size_t at = 0; at < sorted.size();) {
    Values members;
    const std::size_t start = at;
    for (; at < sorted.size() && equal(runtime, sorted[at].key, sorted[start].key); ++at) {
      members.push_back(sorted[at].item);
    }
    groups.push_back(runtime.tuple({follow(runtime, members[0], call.required(0)), runtime.list(std::move(members))}));
  }
  return runtime.list(std::move(groups));
}

constexpr FilterEntry kFilters[] = {
    {"batch", lazily<batch>},
    {"dictsort", dict_sort},
    {"first", first},
    {"groupby", group_by},
    {"items", lazily<items>},
    {"join", join},
    {"last", last},
    {"list", list},
    {"map", lazily<map>},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", lazily<choose<false, false>>},
    {"rejectattr", lazily<choose<false, true>>},
    {"reverse", reverse},
    {"select", lazily<choose<true, false>>},
    {"selectattr", lazily<choose<true, true>>},
    {"sort", sort},
    {"sum", sum},
    {"unique", lazily<unique>},
};

}  // namespace

std::span<const FilterEntry> sequence_filters() { return kFilters; }

}  // namespace nibble::jinja
