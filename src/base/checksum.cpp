#include "base/checksum.h"

#include <bit>
#include <cstring>

namespace nibble {

namespace {

constexpr std::uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F, kPrime3 = 0x165667B19E3779F9,
                        kPrime4 = 0x85EBCA77C2B2AE63, kPrime5 = 0x27D4EB2F165667C5;
constexpr std::size_t kStripe = 32;  // bytes: a word for each of four lanes

template <typename Word>
std::uint64_t load(const std::byte* bytes) {
  Word word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

std::uint64_t round_lane(std::uint64_t lane, std::uint64_t word) {
  return std::rotl(lane + word * kPrime2, 31) * kPrime1;
}

// What is left behind the stripes, and the final mix.
std::uint64_t finish(std::uint64_t sum, const std::byte* at, std::size_t n) {
  for (; n >= 8; at += 8, n -= 8) {
    sum = std::rotl(sum ^ round_lane(0, load<std::uint64_t>(at)), 27) * kPrime1 + kPrime4;
  }
  if (n >= 4) {
    sum = std::rotl(sum ^ load<std::uint32_t>(at) * kPrime1, 23) * kPrime2 + kPrime3;
    at += 4, n -= 4;
  }
  for (; n > 0; ++at, --n) sum = std::rotl(sum ^ std::to_integer<std::uint64_t>(*at) * kPrime5, 11) * kPrime1;
  sum = (sum ^ sum >> 33) * kPrime2;
  sum = (sum ^ sum >> 29) * kPrime3;
  return sum ^ sum >> 32;
}

}  // namespace

std::uint64_t checksum(std::span<const std::byte> bytes) noexcept {
  const std::byte* at = bytes.data();
  std::size_t n = bytes.size();
  if (n < kStripe) return finish(kPrime5 + bytes.size(), at, n);
  std::uint64_t lanes[4] = {kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
  for (; n >= kStripe; at += kStripe, n -= kStripe) {
    for (std::size_t i = 0; i < 4; ++i) lanes[i] = round_lane(lanes[i], load<std::uint64_t>(at + 8 * i));
  }
  std::uint64_t sum =
      std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) + std::rotl(lanes[3], 18);
  for (const std::uint64_t lane : lanes) sum = (sum ^ round_lane(0, lane)) * kPrime1 + kPrime4;
  return finish(sum + bytes.size(), at, n);
}

}  // namespace nibble
