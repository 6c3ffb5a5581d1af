// What templates find without defining it: filters, tests, methods of values, functions.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "jinja/ast.h"
#include "jinja/runtime.h"

namespace nibble::jinja {

// Null where there is none of that name.
FilterFunction find_filter(std::string_view name);
TestFunction find_test(std::string_view name);
// The filter or test called by name, as map() and select() do.
Value apply_filter(Runtime& runtime, const std::string& name, const Value& input, const Arguments& arguments);
bool apply_test(Runtime& runtime, const std::string& name, const Value& input, const Arguments& arguments);

// A method of a text, list or object bound to it; undefined where the value has none of that name.
Value find_method(Runtime& runtime, const Value& self, std::string_view name);
bool is_method(const Value& self, std::string_view name);

// range, namespace, raise_exception ... by name.
std::vector<std::pair<std::string, Value>> global_functions(Runtime& runtime);

// Throws for names that a namespace may not have: those that begin with an underscore.
void check_attribute_name(std::string_view name);

// str.replace(); a negative limit is none.
std::string replace_text(Runtime& runtime, std::string_view text, std::string_view old, std::string_view fresh,
                         std::int64_t limit = -1);
// Python's "%" on texts and str.format().
std::string percent_format(Runtime& runtime, const std::string& format, const Value& arguments);
std::string brace_format(Runtime& runtime, const std::string& format, const Arguments& arguments);

}  // namespace nibble::jinja
