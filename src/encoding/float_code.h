// The small floats that scaled encodings hold, as codes without a scale.
#pragma once

#include <array>
#include <cstdint>

#include "encoding/encoding.h"

namespace nibble::encoding {

// Codes are sign and magnitude, the sign the highest bit; magnitudes are consecutive and ascend with the value.
struct FloatForm {
  int bits = 8;
  std::uint8_t sign = 0x80;
  std::uint8_t largest_code = 0;  // above it: NaN and infinities
  float largest = 0;
  int exponent = 0;  // of two, of the largest
  std::array<float, 256> values{};
  std::uint8_t (*nearest)(float value) = nullptr;  // ties to even, above the largest the largest; keeps the sign of 0
};
const FloatForm& float_form(FloatCode code);

}  // namespace nibble::encoding
