// The two tables of filters: on one value, on the elements of one.
#pragma once

#include <span>
#include <string_view>

#include "jinja/builtins.h"

namespace nibble::jinja {

struct FilterEntry {
  std::string_view name;
  FilterFunction function;
};

std::span<const FilterEntry> value_filters();
std::span<const FilterEntry> sequence_filters();

}  // namespace nibble::jinja
