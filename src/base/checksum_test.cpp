// Checksums against the xxhash package (xxhash 4.1.0, XXH64 with seed 0).
#include "base/checksum.h"

#include <gtest/gtest.h>

#include <string>

namespace nibble {
namespace {

std::uint64_t checksum_of(const std::string& text) { return checksum(std::as_bytes(std::span(text))); }

TEST(Checksum, AsXxHashHasIt) {
  const std::pair<std::size_t, std::uint64_t> expected[] = {
      // of the first letters of the alphabet, over and over
      {0, 0xEF46DB3751D8E999},  {1, 0xD24EC4F1A98C6E5B},  {3, 0x44BC2CF5AD770999},  {4, 0xDE0327B0D25D92CC},
      {7, 0x1860940E2902822D},  {8, 0x3AD351775B4634B7},  {15, 0x2E1218A2B1375068}, {31, 0xF7D421C242541AC9},
      {32, 0x4DA6CBE536CF55C7}, {33, 0x9AC581034B031F72}, {64, 0x14696B774542D718}, {100, 0x79C9FA152BB53C71},
  };
  std::string text;
  for (const auto& [n, sum] : expected) {
    while (text.size() < n) text += static_cast<char>('a' + text.size() % 26);
    EXPECT_EQ(checksum_of(text), sum) << n;
  }
}

TEST(Checksum, SeesEveryBit) {
  std::string text(77, 'x');
  const std::uint64_t plain = checksum_of(text);
  for (std::size_t bit = 0; bit < text.size() * 8; ++bit) {
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ 1 << bit % 8);
    EXPECT_NE(checksum_of(text), plain) << bit;
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ 1 << bit % 8);
  }
}

}  // namespace
}  // namespace nibble
