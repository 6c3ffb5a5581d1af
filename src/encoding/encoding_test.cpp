// Every fixed encoding against GGML's own bytes (testdata/, made by dev/golden/encodings.py), and what all of them owe.
#include "encoding/encoding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <sstream>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/rng.h"
#include "encoding/block_grid.h"
#include "encoding/golden_test.h"
#include "tensor/half.h"

namespace nibble::encoding {
namespace {

struct Golden {
  std::vector<float> values;
  std::vector<std::byte> bytes;
};

std::map<std::string, Golden> read_golden(const std::string& name) {
  const std::string file = read_file(std::string(NIBBLE_SOURCE_DIR "/src/encoding/testdata/") + name);
  std::map<std::string, Golden> records;
  std::size_t at = 0;
  const auto take = [&](void* dst, std::size_t n) {
    ASSERT_LE(at + n, file.size());
    if (n > 0) std::memcpy(dst, file.data() + at, n);
    at += n;
  };
  while (at < file.size()) {
    std::uint8_t length = 0;
    std::uint32_t counts[2] = {};
    take(&length, 1);
    std::string key(length, '\0');
    take(key.data(), length);
    take(counts, sizeof counts);
    Golden golden{std::vector<float>(counts[0]), std::vector<std::byte>(counts[1])};
    take(golden.values.data(), counts[0] * 4);
    take(golden.bytes.data(), counts[1]);
    records.emplace(key, std::move(golden));
  }
  return records;
}

std::size_t bytes_of(const EncodingInfo& info, std::size_t n) { return row_bytes(info, static_cast<std::int64_t>(n)); }

std::vector<std::byte> encode(const EncodingInfo& info, const std::vector<float>& values) {
  std::vector<std::byte> bytes(bytes_of(info, values.size()));
  info.encode(values.data(), bytes.data(), static_cast<std::int64_t>(values.size()));
  return bytes;
}

std::vector<float> decode(const EncodingInfo& info, const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / static_cast<std::size_t>(info.block_bytes) *
                            static_cast<std::size_t>(info.block_elements));
  info.decode(bytes.data(), values.data(), static_cast<std::int64_t>(values.size()));
  return values;
}

std::vector<float> random_values(std::size_t n, std::uint64_t seed) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = random_normal(seed, 0, i);
  return values;
}

// iq4_nl leaves the codes of a zero block undefined in the reference; there ours are compared by value.
bool zero_block(const EncodingInfo& info, const std::byte* block) {
  return info.name == "iq4_nl" && block[0] == std::byte{0} && (block[1] & std::byte{0x7F}) == std::byte{0};
}

TEST(BlockEncoding, EncodesAsTheReference) {
  const auto golden = read_golden("encode.bin");
  const std::vector<float>& values = golden.at("values").values;
  for (const auto& [name, record] : golden) {
    if (name == "values") continue;
    const EncodingInfo& info = get(name);
    ASSERT_NE(info.encode, nullptr) << name;
    const auto bytes = encode(info, values);
    ASSERT_EQ(bytes.size(), record.bytes.size()) << name;
    const auto size = static_cast<std::size_t>(info.block_bytes);
    int wrong = 0;
    for (std::size_t at = 0; at < bytes.size() && wrong < 3; at += size) {
      if (zero_block(info, &record.bytes[at]) && zero_block(info, &bytes[at])) continue;
      if (std::memcmp(&bytes[at], &record.bytes[at], size) == 0) continue;
      ADD_FAILURE() << name << ": block " << at / size << " (values from "
                    << at / size * static_cast<std::size_t>(info.block_elements) << ") differs";
      ++wrong;
    }
  }
}

TEST(BlockEncoding, DecodesAsTheGgufPackage) {
  for (const auto& [name, record] : read_golden("decode.bin")) {
    const auto values = decode(get(name), record.bytes);
    ASSERT_EQ(values.size(), record.values.size()) << name;
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(values[i]), std::bit_cast<std::uint32_t>(record.values[i]))
          << name << " element " << i << ": " << values[i] << " for " << record.values[i];
    }
  }
}

TEST(BlockEncoding, AgreesWithPeersOnMuchData) {
  const std::string file = read_file(NIBBLE_SOURCE_DIR "/src/encoding/testdata/hashes.txt");
  const auto values = hashed_values(std::size_t{1} << 17);
  std::istringstream lines(file);
  std::string what;
  std::string name;
  std::string expected;
  int n = 0;
  while (lines >> what >> name >> expected) {
    const EncodingInfo& info = get(name);
    Hash hash;
    if (what == "encode") {
      for (const std::byte b : encode(info, values)) hash.add(std::to_integer<std::uint32_t>(b));
    } else {
      std::vector<std::byte> bytes(bytes_of(info, std::size_t{1} << 16));
      for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(random_bits(12, 0, i));
      for (const float value : decode(info, bytes)) {
        hash.add(std::isnan(value) ? 0x7FC00000u : std::bit_cast<std::uint32_t>(value));
      }
    }
    EXPECT_EQ(format_text("{:016x}", hash.value), expected) << what << " " << name;
    ++n;
  }
  EXPECT_EQ(n, 14 + 25);
}

// What every fixed encoding owes, for a newcomer too.
class EveryEncoding : public testing::TestWithParam<const EncodingInfo*> {};

TEST_P(EveryEncoding, IsFoundByItsName) {
  const EncodingInfo& info = *GetParam();
  EXPECT_EQ(find(info.name), &info);
  EXPECT_EQ(&get(info.name), &info);
  EXPECT_NE(info.decode, nullptr);
  EXPECT_DOUBLE_EQ(info.bits_per_weight, 8.0 * info.block_bytes / info.block_elements);
}

TEST_P(EveryEncoding, RefusesOddSizes) {
  const EncodingInfo& info = *GetParam();
  const std::int64_t block = info.block_elements;
  EXPECT_EQ(row_bytes(info, 3 * block), static_cast<std::uint64_t>(3 * info.block_bytes));
  EXPECT_TRUE(fits(info, {5, 2 * block}));
  EXPECT_EQ(tensor_bytes(info, {5, 2 * block}), static_cast<std::uint64_t>(10 * info.block_bytes));
  if (block > 1) {
    EXPECT_FALSE(fits(info, {5, 2 * block + 1}));
    EXPECT_THROW(row_bytes(info, block - 1), Error);
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(2 * info.block_bytes));
  EXPECT_NO_THROW(validate(make_view(info, {2, block}, bytes)));
  EXPECT_THROW(validate(make_view(info, {3, block}, bytes)), Error);
  EXPECT_THROW(validate(make_view(info, {2, block}, std::span(bytes).first(bytes.size() - 1))), Error);
}

TEST_P(EveryEncoding, DecodesRowsWhereverTheyLie) {
  const EncodingInfo& info = *GetParam();
  const auto block = static_cast<std::size_t>(info.block_elements);
  std::vector<std::byte> bytes(static_cast<std::size_t>(3 * info.block_bytes) + 1);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37 % 61);
  const TensorView view = make_view(info, {3, info.block_elements}, std::span(bytes).subspan(1));
  const auto whole = decode(info, {bytes.begin() + 1, bytes.end()});
  std::vector<float> rows(2 * block);
  decode_rows(view, 1, 3, rows.data());
  EXPECT_EQ(std::memcmp(rows.data(), whole.data() + block, rows.size() * 4), 0);
}

// Largest error of one value of N(0, 1), relative to the largest magnitude of its block.
double error_bound(const EncodingInfo& info) {
  static const std::map<std::string, double> bounds = {
      {"f64", 0},        {"f32", 0},      {"f16", 5e-4},   {"bf16", 4e-3},  {"f8_e4m3", 0.07},
      {"f8_e5m2", 0.13}, {"q4_0", 0.13},  {"q4_1", 0.09},  {"q5_0", 0.07},  {"q5_1", 0.05},
      {"q8_0", 0.005},   {"q2_k", 0.5},   {"q3_k", 0.3},   {"q4_k", 0.12},  {"q5_k", 0.06},
      {"q6_k", 0.05},    {"iq4_nl", 0.2}, {"iq4_xs", 0.2}, {"mxfp4", 0.25}, {"nvfp4", 0.2}};
  const auto found = bounds.find(info.name);
  return found != bounds.end() ? found->second : -1;
}

TEST_P(EveryEncoding, RoundTripsWithinItsError) {
  const EncodingInfo& info = *GetParam();
  if (info.encode == nullptr) return;
  const auto values = random_values(4096, 7);
  const auto bytes = encode(info, values);
  const auto back = decode(info, bytes);
  const double bound = error_bound(info);
  if (bound < 0) {  // integers and scale formats: what was decoded encodes to the same again
    EXPECT_EQ(decode(info, encode(info, back)), back);
    return;
  }
  const auto step = std::max<std::size_t>(static_cast<std::size_t>(info.block_elements), 32);
  double worst = 0;
  for (std::size_t at = 0; at < values.size(); at += step) {
    double largest = 0;
    for (std::size_t i = at; i < at + step; ++i) largest = std::max(largest, std::fabs(static_cast<double>(values[i])));
    for (std::size_t i = at; i < at + step; ++i) {
      worst = std::max(worst, std::fabs(static_cast<double>(back[i]) - static_cast<double>(values[i])) / largest);
    }
  }
  EXPECT_LE(worst, bound);
  EXPECT_GE(worst, bound / 4) << "the bound is too loose to mean anything";
}

TEST_P(EveryEncoding, KeepsZeros) {
  const EncodingInfo& info = *GetParam();
  if (info.encode == nullptr || info.name == "f8_e8m0") return;
  const std::vector<float> zeros(512);
  for (const float value : decode(info, encode(info, zeros))) ASSERT_EQ(value, 0.0f);
}

// Block types want finite values (whoever quantizes checks); others must neither trap nor give different bytes each
// time.
TEST_P(EveryEncoding, TakesNonFiniteValues) {
  const EncodingInfo& info = *GetParam();
  if (info.encode == nullptr) return;
  auto values = random_values(1024, 3);
  values[5] = std::numeric_limits<float>::quiet_NaN();
  values[300] = std::numeric_limits<float>::infinity();
  values[600] = -std::numeric_limits<float>::infinity();
  values[900] = std::numeric_limits<float>::max();
  const auto bytes = encode(info, values);
  EXPECT_EQ(encode(info, values), bytes);
  if (info.name == "f32" || info.name == "f16" || info.name == "bf16" || info.name == "f64") {
    const auto back = decode(info, bytes);
    EXPECT_TRUE(std::isnan(back[5]));
    EXPECT_EQ(back[300], values[300]);
    EXPECT_EQ(back[600], values[600]);
  }
  // A block without a bad value is as it would be alone.
  const auto block = static_cast<std::size_t>(info.block_elements);
  const std::vector<float> last(values.end() - static_cast<std::ptrdiff_t>(std::min<std::size_t>(block, 64)),
                                values.end());
  if (block <= 64) {
    EXPECT_EQ(std::memcmp(encode(info, last).data(), bytes.data() + bytes.size() - bytes_of(info, last.size()),
                          bytes_of(info, last.size())),
              0);
  }
}

// Random bytes, among whose scales and numbers NaN and infinity are frequent, against what they decode to.
TEST_P(EveryEncoding, FindsRowsThatAreNotFinite) {
  const EncodingInfo& info = *GetParam();
  constexpr std::int64_t kRows = 200;
  for (const std::int64_t blocks : {1, 3}) {
    const std::int64_t cols = blocks * info.block_elements;
    std::vector<std::byte> bytes(static_cast<std::size_t>(kRows * blocks * info.block_bytes));
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<std::byte>(random_bits(9, static_cast<std::uint64_t>(blocks), i));
      if (i % 2 == 1 && random_bits(10, 0, i) % 4 == 0) bytes[i] |= std::byte{0x7F};  // of a little-endian exponent
    }
    const TensorView view = make_view(info, {kRows, cols}, bytes);
    std::vector<float> values(static_cast<std::size_t>(cols));
    for (std::int64_t row = 0; row < kRows; ++row) {
      decode_rows(view, row, row + 1, values.data());
      const bool finite = std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
      ASSERT_EQ(find_not_finite(view, row, row + 1), finite ? row + 1 : row) << info.name << " row " << row;
    }
  }
}

BlockFields random_fields(const BlockGrid& grid, std::uint64_t seed) {
  BlockFields fields;
  std::uint64_t index = 0;
  const auto draw = [&](int min, int max) {
    return min + static_cast<int>(random_bits(seed, 1, index++) % static_cast<std::uint64_t>(max - min + 1));
  };
  fields.d = f16_to_f32(static_cast<std::uint16_t>(draw(0, 0x7BFF) | draw(0, 1) << 15));
  if (grid.has_min) fields.dmin = f16_to_f32(static_cast<std::uint16_t>(draw(0, 0x7BFF)));
  for (int i = 0; i < grid.n_subs(); ++i) {
    fields.scale[i] = static_cast<std::int8_t>(draw(grid.scale_min, grid.scale_max));
    if (grid.has_min) fields.min[i] = static_cast<std::uint8_t>(draw(grid.min_max == 1 ? 1 : 0, grid.min_max));
  }
  for (int e = 0; e < grid.block; ++e) fields.code[e] = static_cast<std::int8_t>(draw(grid.code_min, grid.code_max));
  return fields;
}

TEST_P(EveryEncoding, PacksEveryField) {
  const EncodingInfo& info = *GetParam();
  if (info.grid == nullptr) return;  // plain or read only
  const BlockGrid& grid = *info.grid;
  ASSERT_EQ(grid.block, info.block_elements);
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const BlockFields fields = random_fields(grid, seed);
    std::vector<std::byte> bytes(static_cast<std::size_t>(info.block_bytes), std::byte{0xA5});
    grid.pack(fields, bytes.data());
    BlockFields back;
    grid.unpack(bytes.data(), back);
    ASSERT_EQ(back.d, fields.d);
    ASSERT_EQ(back.dmin, fields.dmin);
    ASSERT_EQ(std::memcmp(back.scale, fields.scale, static_cast<std::size_t>(grid.n_subs())), 0);
    ASSERT_EQ(std::memcmp(back.min, fields.min, static_cast<std::size_t>(grid.n_subs())), 0);
    ASSERT_EQ(std::memcmp(back.code, fields.code, static_cast<std::size_t>(grid.block)), 0);
    std::vector<std::byte> again(bytes.size());
    grid.pack(back, again.data());
    ASSERT_EQ(again, bytes);
    // The formula of the header, in the decoder's order.
    const auto values = decode(info, bytes);
    for (int e = 0; e < grid.block; ++e) {
      const int sub = e / grid.sub;
      const int level = grid.table != nullptr ? grid.table[fields.code[e]] : fields.code[e];
      const float product = fields.d * static_cast<float>(fields.scale[sub]) * static_cast<float>(level);
      const float offset = fields.dmin * static_cast<float>(fields.min[sub]);
      ASSERT_EQ(values[static_cast<std::size_t>(e)], product - offset) << e;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryEncoding, testing::ValuesIn(all_entries().begin(), all_entries().end()),
                         [](const auto& param) { return param.param->name; });

TEST(EncodingTable, RefusesUnknownNames) {
  EXPECT_EQ(find("q4_z"), nullptr);
  try {
    get("q4k");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), testing::HasSubstr("q4_k"));
  }
}

TEST(EncodingTable, RefusesSizesThatOverflow) {
  EXPECT_THROW(tensor_bytes(get("f64"), {std::int64_t{1} << 61}), Error);
}

}  // namespace
}  // namespace nibble::encoding
