// GPT-2's byte alphabet: each byte as one printable character.
#pragma once

#include <array>
#include <string>
#include <string_view>

namespace nibble::token {

// The character of each byte, as UTF-8: bytes 33-126, 161-172 and 174-255 stand for themselves, the others for U+0100
// on, in order.
const std::array<std::string, 256>& byte_alphabet();
// The bytes that a text of that alphabet spells; false where it has another character.
bool decode_byte_alphabet(std::string_view text, std::string& bytes);

}  // namespace nibble::token
