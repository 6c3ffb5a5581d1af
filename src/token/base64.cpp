#include "token/base64.h"

#include <cstdint>

#include "base/error.h"

namespace nibble::token {

std::string decode_base64(std::string_view text) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::int8_t values[256];
  for (std::int8_t& value : values) value = -1;
  for (std::size_t i = 0; i < kAlphabet.size(); ++i)
    values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<std::int8_t>(i);
  while (text.ends_with('=')) text.remove_suffix(1);
  if (text.size() % 4 == 1) fail(ErrorCode::kFormat, "base64 of {} characters", text.size());
  std::string out;
  out.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  int n_bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::int8_t value = values[static_cast<unsigned char>(text[i])];
    if (value < 0)
      fail(ErrorCode::kFormat, "base64: character {} at offset {}",
           static_cast<int>(static_cast<unsigned char>(text[i])), i);
    bits = (bits << 6 | static_cast<std::uint32_t>(value)) & 0xFFFFFF;
    n_bits += 6;
    if (n_bits >= 8) {
      n_bits -= 8;
      out += static_cast<char>(static_cast<unsigned char>(bits >> n_bits));
    }
  }
  return out;
}

}  // namespace nibble::token
