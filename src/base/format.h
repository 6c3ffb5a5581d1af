// Text formatting: the only header that names the fmt library.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <string>
#include <utility>

namespace nibble {

template <typename... Args>
using FormatString = fmt::format_string<Args...>;

template <typename... Args>
std::string format_text(FormatString<Args...> text, Args&&... args) {
  return fmt::format(text, std::forward<Args>(args)...);
}

// "1.2 GB", "735 MB", "12.0 KB": powers of 1000, as file sizes are sold.
std::string format_bytes(std::uint64_t n_bytes);
// "1.24B", "7.3M": counts of parameters.
std::string format_count(std::uint64_t count);
// "1h02m", "3m07s", "12.4s".
std::string format_duration(double seconds);

}  // namespace nibble
