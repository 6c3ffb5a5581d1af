// Tables of methods: of texts, of other values.
#pragma once

#include <span>
#include <string_view>

#include "jinja/runtime.h"

namespace nibble::jinja {

using Method = Value (*)(Runtime&, const Value& self, const Arguments&);

struct MethodEntry {
  std::string_view name;
  Method method;  // null: it would change the value, which Jinja's sandbox refuses
};

std::span<const MethodEntry> text_methods();

}  // namespace nibble::jinja
