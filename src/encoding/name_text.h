// Reading the parameterised names of encodings ("int4-g128-asym", "fp8-block128x128") from the front.
#pragma once

#include <charconv>
#include <cstdint>
#include <string_view>

namespace nibble::encoding {

// Takes `word` off the front, if it is there.
inline bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

inline bool take_number(std::string_view& text, std::int64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

}  // namespace nibble::encoding
