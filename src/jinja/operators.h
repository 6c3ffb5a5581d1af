// What Python's operators do to values.
#pragma once

#include "jinja/ast.h"
#include "jinja/runtime.h"

namespace nibble::jinja {

Value arithmetic(Runtime& runtime, Operator op, const Value& a, const Value& b);
Value negate(const Value& value);
bool compare(Runtime& runtime, Operator op, const Value& a, const Value& b);
bool equal(Runtime& runtime, const Value& a, const Value& b);
bool less(Runtime& runtime, const Value& a, const Value& b, std::string_view symbol = "<");
bool contains(Runtime& runtime, const Value& container, const Value& item);

// What `for` goes through: elements, keys of an object, characters; nothing for an undefined value. Throws for others.
Values elements(Runtime& runtime, const Value& value);
// len(); throws for what has none.
std::int64_t length(const Value& value);

// a.name and a[index] as Jinja looks things up: undefined where there is nothing.
Value attribute(Runtime& runtime, const Value& object, const std::string& name);
Value subscript(Runtime& runtime, const Value& object, const Value& index);
Value slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step);

}  // namespace nibble::jinja
