// Array conversions written for one instruction set; called through tensor/half.h. Halves lie
// at any address, aligned or not.
#pragma once

#include <stdint.h>

namespace nibble {

void f16_to_f32_avx2(const unsigned char* src, float* dst, int64_t n) noexcept;
void f32_to_f16_avx2(const float* src, unsigned char* dst, int64_t n) noexcept;

}  // namespace nibble
