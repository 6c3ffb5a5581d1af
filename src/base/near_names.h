// "Did you mean": the known names closest to a wrong one.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace nibble {

// The `n` names of least edit distance, ties in the order given, as "a, b, c".
std::string near_names(std::string_view wrong, std::span<const std::string_view> names, std::size_t n = 5);

}  // namespace nibble
