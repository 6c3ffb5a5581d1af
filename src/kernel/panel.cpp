#include "kernel/panel.h"

#include <cstdint>
#include <cstring>

namespace nibble::kernel {

namespace {

// Where the bits of group g lie: vector, and bit within each byte.
struct Place {
  int vector;
  int bit;
};

Place low_place(CodePlanes planes, int g) {
  switch (planes.low_bits) {
    case 8:
      return {g, 0};
    case 4:
      return {g % 4, g / 4 * 4};
    default:
      return {g / 4, g % 4 * 2};
  }
}
Place high_place(CodePlanes planes, int g) { return planes.high_bits == 1 ? Place{0, g} : Place{g / 4, g % 4 * 2}; }

int low_bytes(CodePlanes planes) { return kPanelRows * kBlock * planes.low_bits / 8; }

// The same `bits` low bits in each of four bytes.
std::uint32_t mask_bytes(int bits) { return ((1u << bits) - 1) * 0x01010101u; }

}  // namespace

void store_codes(CodePlanes planes, const std::uint8_t* code, int row, std::uint8_t* block) noexcept {
  const auto add = [row](std::uint8_t* plane, Place place, std::uint32_t bits) {
    std::uint32_t word;
    std::uint8_t* at = plane + place.vector * 64 + row * 4;
    std::memcpy(&word, at, 4);
    word |= bits << place.bit;
    std::memcpy(at, &word, 4);
  };
  for (int g = 0; g < kGroups; ++g) {
    std::uint32_t four;
    std::memcpy(&four, code + g * 4, 4);
    add(block, low_place(planes, g), four & mask_bytes(planes.low_bits));
    if (planes.high_bits > 0) {
      add(block + low_bytes(planes), high_place(planes, g), four >> planes.low_bits & mask_bytes(planes.high_bits));
    }
  }
}

void load_codes(CodePlanes planes, const std::uint8_t* block, int row, std::uint8_t* code) noexcept {
  for (int g = 0; g < kGroups; ++g) {
    const auto bits_at = [row](const std::uint8_t* plane, Place place) {
      std::uint32_t word;
      std::memcpy(&word, plane + place.vector * 64 + row * 4, 4);
      return word >> place.bit;
    };
    std::uint32_t four = bits_at(block, low_place(planes, g)) & mask_bytes(planes.low_bits);
    if (planes.high_bits > 0) {
      four |= (bits_at(block + low_bytes(planes), high_place(planes, g)) & mask_bytes(planes.high_bits))
              << planes.low_bits;
    }
    std::memcpy(code + g * 4, &four, 4);
  }
}

}  // namespace nibble::kernel
