// Looking into values: elements, lengths, attributes, subscripts, slices.
#include <algorithm>

#include "jinja/builtins.h"
#include "jinja/operators.h"
#include "jinja/python_text.h"

namespace nibble::jinja {

namespace {

Value no_attribute(const Value& object, std::string_view name) {
  return Value::undefined(format_text("{} has no attribute {}", repr_text(object.described()), repr_text(name)));
}

Value loop_attribute(const Value& object, const std::string& name) {
  const Loop& loop = object.loop();
  const Values& items = loop.items->items;
  const auto n = static_cast<std::int64_t>(items.size());
  const std::int64_t i = loop.index0;
  if (name == "index0") return Value(i);
  if (name == "index") return Value(i + 1);
  if (name == "revindex0") return Value(n - i - 1);
  if (name == "revindex") return Value(n - i);
  if (name == "first") return Value(i == 0);
  if (name == "last") return Value(i + 1 == n);
  if (name == "length") return Value(n);
  if (name == "depth0") return Value(std::int64_t{0});  // counts recursive loops only
  if (name == "depth") return Value(std::int64_t{1});
  if (name == "previtem") {
    return i > 0 ? items[static_cast<std::size_t>(i - 1)] : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return i + 1 < n ? items[static_cast<std::size_t>(i + 1)] : Value::undefined("there is no next item");
  }
  return no_attribute(object, name);
}

Value character(Runtime& runtime, const Text& text, std::int64_t index) {
  if (!text.ascii) runtime.spend_walk(text.text.size());
  const std::size_t from = byte_offset(text, index);
  return runtime.text(text.text.substr(from, byte_offset(text, index + 1) - from), text.markup);
}

// a[index] where Python's own rules find something.
bool find_item(Runtime& runtime, const Value& object, const Value& index, Value& found) {
  if (object.is_dict()) {
    runtime.spend(index.is_text() ? 1 : 1 + object.dict().items.size());
    const Value* value = object.dict().find(index);
    if (value != nullptr) found = *value;
    return value != nullptr;
  }
  const bool indexable = object.is_text() || (object.is_sequence() && object.sequence().kind <= Sequence::Kind::kRange);
  if (!indexable || !index.is_integral()) return false;
  const std::int64_t n = length(object);
  const std::int64_t at = index.as_int() < 0 ? index.as_int() + n : index.as_int();
  if (at < 0 || at >= n) return false;
  found = object.is_text() ? character(runtime, object.as_text(), at)
                           : object.sequence().items[static_cast<std::size_t>(at)];
  return true;
}

// Where a slice begins and ends in a sequence of n, as Python's slice.indices().
struct SliceRange {
  std::int64_t start, stop, step;
};

SliceRange slice_range(std::int64_t n, const Value& start, const Value& stop, const Value& step) {
  const auto part = [](const Value& value, std::int64_t fallback) {
    require_defined(value);
    if (value.is_none()) return fallback;
    if (!value.is_integral()) fail_template("slice indices must be integers or None or have an __index__ method");
    return value.as_int();
  };
  SliceRange range{};
  range.step = part(step, 1);
  if (range.step == 0) fail_template("slice step cannot be zero");
  const std::int64_t low = range.step > 0 ? 0 : -1;
  const std::int64_t high = range.step > 0 ? n : n - 1;
  const auto clamp = [&](std::int64_t at) { return std::clamp(at < 0 ? std::max(at, -n - 1) + n : at, low, high); };
  range.start = start.is_none() ? (range.step > 0 ? low : high) : clamp(part(start, 0));
  range.stop = stop.is_none() ? (range.step > 0 ? high : low) : clamp(part(stop, 0));
  return range;
}

}  // namespace

Values elements(Runtime& runtime, const Value& value) {
  Values out;
  if (value.is_sequence()) {
    const Sequence& sequence = value.sequence();
    if (!sequence.has_length()) {
      if (std::exchange(sequence.consumed, true)) return out;
      return sequence.generate(runtime);
    }
    runtime.spend(1 + sequence.items.size() / 4);
    runtime.check_room(sequence.items.size() * sizeof(Value));
    out = sequence.items;
  } else if (value.is_dict()) {
    runtime.spend(1 + value.dict().items.size() / 4);
    for (const auto& [key, item] : value.dict().items) out.push_back(key);
  } else if (value.is_text()) {
    runtime.spend_walk(value.text().size());
    runtime.check_room(value.text().size() * (sizeof(Value) + sizeof(Text)));
    for (const std::string_view c : characters(value.text())) out.push_back(runtime.text(std::string(c)));
  } else if (!value.is_undefined()) {
    fail_template("'{}' object is not iterable", value.type_name());
  }
  return out;
}

std::int64_t length(const Value& value) {
  if (value.is_text()) return value.as_text().length();
  if (value.is_dict()) return static_cast<std::int64_t>(value.dict().items.size());
  if (value.is_sequence() && value.sequence().has_length()) {
    return static_cast<std::int64_t>(value.sequence().items.size());
  }
  if (value.is_loop()) return static_cast<std::int64_t>(value.loop().items->items.size());
  if (value.is_undefined()) return 0;
  fail_template("object of type '{}' has no len()", value.type_name());
}

Value attribute(Runtime& runtime, const Value& object, const std::string& name) {
  require_defined(object);
  if (object.is_namespace()) {
    const Value* value = object.name_space().find(name);
    return value != nullptr ? *value : no_attribute(object, name);
  }
  if (object.is_loop() && name != "cycle" && name != "changed") return loop_attribute(object, name);
  if (object.is_callable() && name == "name") return runtime.text(object.callable().name);
  if (is_method(object, name)) return find_method(runtime, object, name);
  Value found;
  if (object.is_dict() && find_item(runtime, object, runtime.text(name), found)) return found;
  return no_attribute(object, name);
}

Value subscript(Runtime& runtime, const Value& object, const Value& index) {
  require_defined(object);
  if (index.is_text() && object.is_namespace()) return attribute(runtime, object, index.text());
  Value found;
  if (find_item(runtime, object, index, found)) return found;
  if (index.is_text()) {
    if (is_method(object, index.text())) return find_method(runtime, object, index.text());
    return object.is_loop() ? attribute(runtime, object, index.text()) : no_attribute(object, index.text());
  }
  return Value::undefined(format_text("{} has no element {}", object.described(), repr(runtime, index)));
}

Value slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step) {
  require_defined(object);
  const bool sliceable = object.is_text() || (object.is_sequence() && object.sequence().kind <= Sequence::Kind::kRange);
  if (object.is_dict()) fail_template("unhashable type: 'slice'");
  if (!sliceable) return Value::undefined(format_text("{} has no element slice", object.described()));
  const std::int64_t n = length(object);
  const SliceRange range = slice_range(n, start, stop, step);
  runtime.spend_walk(static_cast<std::size_t>(n));
  const auto inside = [&](std::int64_t at) { return range.step > 0 ? at < range.stop : at > range.stop; };
  // No step leads beyond the 64 bits that positions and the step have.
  const auto after = [&](std::int64_t at) {
    std::int64_t next = 0;
    return __builtin_add_overflow(at, range.step, &next) ? range.stop : next;
  };
  if (object.is_text()) {
    const Text& text = object.as_text();
    if (range.step == 1) {
      const std::size_t from = byte_offset(text, range.start);
      const std::size_t to = byte_offset(text, range.stop);
      return runtime.text(from < to ? text.text.substr(from, to - from) : std::string(), text.markup);
    }
    runtime.check_room(text.text.size() * sizeof(std::string_view));
    const std::vector<std::string_view> all = characters(text.text);
    std::string out;
    for (std::int64_t at = range.start; inside(at); at = after(at)) out += all[static_cast<std::size_t>(at)];
    return runtime.text(std::move(out), text.markup);
  }
  const Values& items = object.sequence().items;
  Values out;
  for (std::int64_t at = range.start; inside(at); at = after(at)) out.push_back(items[static_cast<std::size_t>(at)]);
  return runtime.list(std::move(out), object.sequence().kind);
}

}  // namespace nibble::jinja
