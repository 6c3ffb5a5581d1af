#include "encoding/float_code.h"

#include <algorithm>
#include <bit>

#include "encoding/e2m1.h"
#include "tensor/half.h"

namespace nibble::encoding {

namespace {

std::uint8_t nearest_e4m3(float value) { return f32_to_f8_e4m3(value); }
std::uint8_t nearest_e5m2(float value) { return f32_to_f8_e5m2(value); }
std::uint8_t nearest_e2m1(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), magnitude = std::min(bits & 0x7FFFFFFFu, 0x7F800000u);
  return static_cast<std::uint8_t>((bits >> 28 & 8u) | std::min(nearest_small_float<1, 1>(magnitude), 7u));
}
float e2m1_to_f32(std::uint8_t code) {
  return (code & 15) == 8 ? -0.0f : 0.5f * static_cast<float>(kE2m1Doubled[code & 15]);
}

FloatForm make(FloatForm form, float (*decode)(std::uint8_t)) {
  for (std::size_t i = 0; i < 256; ++i) form.values[i] = decode(static_cast<std::uint8_t>(i));
  form.largest = form.values[form.largest_code];
  return form;
}

}  // namespace

const FloatForm& float_form(FloatCode code) {
  // In the order of the enum.
  static const FloatForm kForms[] = {
      make({.largest_code = 0x7E, .exponent = 8, .nearest = nearest_e4m3}, f8_e4m3_to_f32),
      make({.largest_code = 0x7B, .exponent = 15, .nearest = nearest_e5m2}, f8_e5m2_to_f32),
      make({.bits = 4, .sign = 8, .largest_code = 7, .exponent = 2, .nearest = nearest_e2m1}, e2m1_to_f32)};
  return kForms[static_cast<std::size_t>(code)];
}

}  // namespace nibble::encoding
