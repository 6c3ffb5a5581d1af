// Base64 (RFC 4648), as tokenizer.json holds its binary rules.
#pragma once

#include <string>
#include <string_view>

namespace nibble::token {

// Throws Error{kFormat} on characters outside the alphabet and on padding inside.
std::string decode_base64(std::string_view text);

}  // namespace nibble::token
