#include "token/byte_alphabet.h"

#include "token/utf8.h"

namespace nibble::token {

namespace {

constexpr bool stands_for_itself(unsigned byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173); }

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<int, 512> bytes;  // by code point

  Alphabet() {
    bytes.fill(-1);
    char32_t next = 256;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const char32_t code = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
      append_utf8(code, characters[byte]);
      bytes[code] = static_cast<int>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

const std::array<std::string, 256>& byte_alphabet() { return alphabet().characters; }

bool decode_byte_alphabet(std::string_view text, std::string& bytes) {
  bytes.clear();
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    if (c.length == 0 || c.code >= 512 || alphabet().bytes[c.code] < 0) return false;
    bytes += static_cast<char>(static_cast<unsigned char>(alphabet().bytes[c.code]));
    text.remove_prefix(static_cast<std::size_t>(c.length));
  }
  return true;
}

}  // namespace nibble::token
