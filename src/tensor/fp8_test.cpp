// FP8 against ml_dtypes (testdata/fp8.txt, made by dev/golden/fp8.py): every code, every edge, a million floats.
#include <gtest/gtest.h>

#include <bit>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/format.h"
#include "base/rng.h"
#include "tensor/half.h"

namespace nibble {
namespace {

struct Type {
  const char* name;
  float (*decode)(std::uint8_t);
  std::uint8_t (*encode)(float, Fp8Overflow);
  std::uint8_t largest;  // code
};
const Type kTypes[] = {{"e4m3", f8_e4m3_to_f32, f32_to_f8_e4m3, 0x7E}, {"e5m2", f8_e5m2_to_f32, f32_to_f8_e5m2, 0x7B}};

// The words behind each line's first one or two, which are its key.
std::multimap<std::string, std::vector<std::string>> read_golden() {
  std::istringstream file(read_file(NIBBLE_SOURCE_DIR "/src/tensor/testdata/fp8.txt"));
  std::multimap<std::string, std::vector<std::string>> lines;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key, type;
    words >> key;
    if (key != "vector" && words >> type) key += " " + type;
    std::vector<std::string> rest;
    for (std::string word; words >> word;) rest.push_back(word);
    lines.emplace(key, rest);
  }
  return lines;
}

std::uint32_t from_hex(const std::string& text) {
  std::uint32_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return value;
}

TEST(Fp8, EveryCodeHasItsValue) {
  const auto golden = read_golden();
  for (const Type& type : kTypes) {
    const auto& values = golden.find(std::string("values ") + type.name)->second;
    ASSERT_EQ(values.size(), 256u);
    for (std::size_t i = 0; i < 256; ++i) {
      const auto code = static_cast<std::uint8_t>(i);
      const float value = type.decode(code);
      const std::uint32_t bits = std::isnan(value) ? 0x7FC00000u : std::bit_cast<std::uint32_t>(value);
      EXPECT_EQ(bits, from_hex(values[i])) << type.name << " " << i;
      for (const Fp8Overflow overflow : {Fp8Overflow::kSaturate, Fp8Overflow::kSpecial}) {
        const std::uint8_t back = type.encode(value, overflow);
        if (std::isnan(value)) {
          EXPECT_TRUE(std::isnan(type.decode(back)));
        } else if (std::isinf(value) && overflow == Fp8Overflow::kSaturate) {
          EXPECT_EQ(back, type.largest | (code & 0x80));
        } else {
          EXPECT_EQ(back, code) << type.name;
        }
      }
    }
  }
}

TEST(Fp8, RoundsEveryEdgeAsMlDtypes) {
  const auto golden = read_golden();
  const auto [begin, end] = golden.equal_range("vector");
  EXPECT_GT(std::distance(begin, end), 1000);
  for (auto line = begin; line != end; ++line) {
    const std::vector<std::string>& words = line->second;
    ASSERT_EQ(words.size(), 5u);
    const float value = std::bit_cast<float>(from_hex(words[0]));
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(kTypes[i].encode(value, Fp8Overflow::kSpecial), from_hex(words[1 + 2 * i])) << words[0];
      EXPECT_EQ(kTypes[i].encode(value, Fp8Overflow::kSaturate), from_hex(words[2 + 2 * i])) << words[0];
    }
  }
}

// bits() of dev/golden/fp8.py.
float drawn_float(std::uint64_t i) {
  const std::uint64_t draw = random_bits(8, 0, i);
  const auto any_float = static_cast<std::uint32_t>(draw >> 32);
  if (i % 3 == 0) return std::bit_cast<float>(any_float);
  const auto exponent = static_cast<std::uint32_t>(127 - 20 + (draw & 0xFF) % 40);
  const std::uint32_t near = (any_float & 0x807FFFFFu) | exponent << 23;
  return std::bit_cast<float>(i % 3 == 1 ? near : near & 0xFFF80000u);
}

TEST(Fp8, RoundsAMillionFloatsAsMlDtypes) {
  const auto golden = read_golden();
  constexpr std::pair<const char*, Fp8Overflow> kModes[] = {{"codes", Fp8Overflow::kSpecial},
                                                            {"saturated", Fp8Overflow::kSaturate}};
  for (const auto& [mode, overflow] : kModes) {
    for (const Type& type : kTypes) {
      std::uint64_t hash = 0xCBF29CE484222325u;
      for (std::uint64_t i = 0; i < 1'000'000; ++i)
        hash = (hash ^ type.encode(drawn_float(i), overflow)) * 0x100000001B3u;
      const std::string key = std::string(mode) + " " + type.name;
      EXPECT_EQ(format_text("{:016x}", hash), golden.find(key)->second.at(0)) << key;
    }
  }
}

}  // namespace
}  // namespace nibble
