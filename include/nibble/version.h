// The version of Nibble.
#pragma once

#include <string_view>

namespace nibble {

constexpr std::string_view kVersion = "0.1.0";

}  // namespace nibble
