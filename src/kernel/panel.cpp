#include "kernel/panel.h"

#include <cstdint>
#include <cstring>

namespace nibble::kernel {

namespace {

std::uint32_t four_times(std::uint8_t byte) { return byte * 0x01010101u; }

}  // namespace

void store_codes(CodePlanes planes, const std::uint8_t* code, int row, std::uint8_t* block) noexcept {
  const auto add = [row, block](int vector, int bit, std::uint32_t bits) {
    std::uint32_t word;
    std::uint8_t* at = block + vector * 64 + row * 4;
    std::memcpy(&word, at, 4);
    word |= bits << bit;
    std::memcpy(at, &word, 4);
  };
  const std::uint32_t low = four_times(code_mask(planes.low_bits)), high = four_times(code_mask(planes.high_bits));
  for (int g = 0; g < kGroups; ++g) {
    const CodePlace place = code_place(planes, g);
    std::uint32_t four;
    std::memcpy(&four, code + g * 4, 4);
    add(place.low_vector, place.low_bit, four & low);
    if (planes.high_bits > 0) add(place.high_vector, place.high_bit, four >> planes.low_bits & high);
  }
}

void load_codes(CodePlanes planes, const std::uint8_t* block, int row, std::uint8_t* code) noexcept {
  const auto bits_at = [row, block](int vector, int bit) {
    std::uint32_t word;
    std::memcpy(&word, block + vector * 64 + row * 4, 4);
    return word >> bit;
  };
  const std::uint32_t low = four_times(code_mask(planes.low_bits)), high = four_times(code_mask(planes.high_bits));
  for (int g = 0; g < kGroups; ++g) {
    const CodePlace place = code_place(planes, g);
    std::uint32_t four = bits_at(place.low_vector, place.low_bit) & low;
    if (planes.high_bits > 0) four |= (bits_at(place.high_vector, place.high_bit) & high) << planes.low_bits;
    std::memcpy(code + g * 4, &four, 4);
  }
}

}  // namespace nibble::kernel
