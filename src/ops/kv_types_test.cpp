// What each type of cache makes of keys and values.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "ops/kv_layout.h"
#include "ops/ops.h"
#include "tensor/half.h"

namespace nibble::ops {
namespace {

constexpr int kHeads[] = {20, 40, 64, 80, 96, 128, 256, 576};
constexpr KvType kAllTypes[] = {KvType::kQ8_0, KvType::kInt8,  KvType::kFp8,        KvType::kInt4,     KvType::kInt8H,
                                KvType::kFp8H, KvType::kInt4H, KvType::kInt8Static, KvType::kFp8Static};
constexpr auto kTypes = std::span(kAllTypes).first<7>();  // that make their scales
constexpr float kScale = 0.02f;                           // for the others: 2.54 and 8.96 at most

std::vector<float> random_values(std::uint64_t stream, int n) {
  std::vector<float> out;
  for (int i = 0; i < n; ++i) out.push_back(random_normal(3, stream, static_cast<std::uint64_t>(i)));
  return out;
}

std::vector<Isa> machine_isas() {
  std::vector<Isa> list;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= machine_isa()) list.push_back(isa);
  }
  return list;
}

// One head of one sequence, every key stored as the value is.
struct Cache {
  Cache(const OpTable& table, KvType kind, int dim, int context)
      : ops(table.kv[static_cast<int>(kind)]),
        head_dim(dim),
        k_stride(key_block_bytes(kind, dim)),
        v_stride(value_block_bytes(kind, dim)),
        k(static_cast<std::size_t>(kv_blocks(context) * k_stride)),
        v(static_cast<std::size_t>(kv_blocks(context) * v_stride)) {
    std::ranges::fill(k.bytes(), std::byte{0xFF});
    std::ranges::fill(v.bytes(), std::byte{0xFF});
  }
  void store(int position, const float* x) {
    ops.store_k(k.data() + position / kKeyBlock * k_stride, position % kKeyBlock, x, head_dim, kScale);
    ops.store_v(v.data() + position / kKeyBlock * v_stride, position % kKeyBlock, x, head_dim, kScale);
  }
  // One query at `position`, one head.
  std::vector<float> attend(const std::vector<float>& q, int position, float scale, int window = 0) {
    std::vector<float> out(q.size());
    AlignedBuffer scratch(static_cast<std::size_t>(attention_scratch_floats(1, head_dim)) * sizeof(float));
    ops.attend({q.data(), head_dim, out.data(), head_dim, 1, 1, head_dim, position, window, scale, k.data(), k_stride,
                v.data(), v_stride, scratch.as<float>()});
    return out;
  }
  const KvOps& ops;
  int head_dim;
  std::int64_t k_stride, v_stride;
  AlignedBuffer k, v;
};

// With a window of one key, attention gives that key's value as it was rounded.
std::vector<float> rounded(const OpTable& table, KvType kind, const std::vector<float>& x) {
  const int dim = static_cast<int>(x.size());
  Cache cache(table, kind, dim, 4);
  for (int i = 0; i < 4; ++i) cache.store(i, i == 2 ? x.data() : random_values(9, dim).data());
  return cache.attend(random_values(8, dim), 2, 0.1f, 1);
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * static_cast<double>(a[i] - b[i]);
  return std::sqrt(sum);
}

class KvTypes : public testing::TestWithParam<Isa> {
 protected:
  const OpTable& ops() const { return choose_ops(GetParam()); }
};

TEST_P(KvTypes, NumbersAreWithinHalfAStep) {
  for (const int dim : kHeads) {
    const auto x = random_values(1, dim);
    for (const auto& [kind, group] : {std::pair(KvType::kQ8_0, 32), {KvType::kInt8, 64}, {KvType::kInt4, 32}}) {
      const auto got = rounded(ops(), kind, x);
      for (int begin = 0; begin < dim; begin += group) {
        const auto [least, most] = std::minmax_element(x.begin() + begin, x.begin() + std::min(dim, begin + group));
        const float magnitude = std::max(-*least, *most);
        const float step = kind == KvType::kInt4 ? (*most - *least) / 15 : magnitude / 127;
        for (int i = begin; i < std::min(dim, begin + group); ++i) {
          const auto at = static_cast<std::size_t>(i);
          EXPECT_NEAR(got[at], x[at], step / 2 + magnitude * 1e-3f) << kv_format(kind).name << ' ' << dim << ' ' << i;
        }
      }
    }
  }
}

TEST_P(KvTypes, Fp8IsE4m3TimesTheScaleOfTheHead) {
  for (const int dim : kHeads) {
    auto x = random_values(2, dim);
    for (int i = 0; i < dim; i += 3) x[static_cast<std::size_t>(i)] *= std::exp2(static_cast<float>(-i % 16));
    float largest = 0;
    for (const float v : x) largest = std::max(largest, std::abs(v));
    const float scale = f16_to_f32(f32_to_f16(largest / 1.75f)) / 256;
    const auto got = rounded(ops(), KvType::kFp8, x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float expected = f8_e4m3_to_f32(f32_to_f8_e4m3(std::clamp(x[i] * (1 / scale), -448.0f, 448.0f))) * scale;
      EXPECT_NEAR(got[i], expected, 1e-6f * std::abs(expected)) << dim << ' ' << i;
    }
  }
}

// compressed-tensors: scale * clamp(round(x / scale)), of integers -128 .. 127, halves to even; of E4M3 +-448.
TEST_P(KvTypes, FixedScalesHoldWhatIsBeyondThem) {
  const float scale = f16_to_f32(f32_to_f16(kScale)), fp8_scale = f16_to_f32(f32_to_f16(kScale * 256)) / 256;
  for (const int dim : kHeads) {
    auto x = random_values(5, dim);
    x[0] = 1e6f, x[1] = -1e6f, x[2] = 0, x[3] = 2.5f * scale, x[4] = -1e-9f, x[5] = -128 * scale;
    const auto integers = rounded(ops(), KvType::kInt8Static, x), floats = rounded(ops(), KvType::kFp8Static, x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(integers[i], std::clamp(std::nearbyint(x[i] / scale), -128.0f, 127.0f) * scale) << dim << ' ' << i;
      const float level = std::clamp(x[i] / fp8_scale, -448.0f, 448.0f);
      EXPECT_EQ(floats[i], f8_e4m3_to_f32(f32_to_f8_e4m3(level)) * fp8_scale) << dim << ' ' << i;
    }
    EXPECT_EQ(integers[5], -128 * scale);
  }
}

TEST_P(KvTypes, ZerosAndExtremesStayFinite) {
  for (const KvType kind : kTypes) {
    for (const float value : {0.0f, 1e-30f, 3e3f, -1e6f}) {
      const std::vector<float> x(64, value);
      const auto got = rounded(ops(), kind, x);
      for (const float v : got) {
        EXPECT_TRUE(std::isfinite(v)) << kv_format(kind).name << ' ' << value;
        if (std::abs(value) <= 3e3f) {
          EXPECT_NEAR(v, value, 1e-2f * std::abs(value) + 1e-6f) << kv_format(kind).name;
        }
      }
    }
  }
}

// An outlier in one dimension takes the steps of its whole group; rotated, it is shared out.
TEST_P(KvTypes, RotationSpreadsOutliers) {
  for (const int dim : {64, 96, 128, 256, 576}) {
    auto x = random_values(4, dim);
    x[5] = 40;
    const double plain = distance(rounded(ops(), KvType::kInt4, x), x);
    const double rotated = distance(rounded(ops(), KvType::kInt4H, x), x);
    EXPECT_LT(rotated, 0.75 * plain) << dim;
  }
}

// Keys are rounded as values are, and nothing else is lost: what is attended is what double gives of the rounded
// numbers.
TEST_P(KvTypes, AttentionIsThatOfTheRoundedNumbers) {
  constexpr int kKeys = 70;
  for (const KvType kind : kAllTypes) {
    for (const int dim : kHeads) {
      if (!kv_can_keep(kv_format(kind), dim)) continue;
      Cache cache(ops(), kind, dim, kKeys);
      const auto q = random_values(10, dim);
      const float scale = 2 / std::sqrt(static_cast<float>(dim));
      std::vector<double> expected(q.size());
      double total = 0;
      for (int i = 0; i < kKeys; ++i) {
        const auto x = random_values(static_cast<std::uint64_t>(20 + i), dim);
        cache.store(i, x.data());
        const auto kept = rounded(ops(), kind, x);
        double score = 0;
        for (std::size_t d = 0; d < q.size(); ++d) score += static_cast<double>(q[d]) * kept[d];
        const double weight = std::exp(score * scale);
        total += weight;
        for (std::size_t d = 0; d < q.size(); ++d) expected[d] += weight * kept[d];
      }
      const auto got = cache.attend(q, kKeys - 1, scale);
      for (std::size_t d = 0; d < q.size(); ++d)
        ASSERT_NEAR(got[d], expected[d] / total, 1e-5) << kv_format(kind).name << ' ' << dim << ' ' << d;
    }
  }
}

TEST_P(KvTypes, EveryIsaRoundsAndAttendsTheSame) {
  for (const KvType kind : kAllTypes) {
    for (const int dim : kHeads) {
      if (!kv_can_keep(kv_format(kind), dim)) continue;
      std::vector<std::vector<float>> results;
      for (const OpTable* table : {&scalar_ops(), &ops()}) {
        Cache cache(*table, kind, dim, 150);
        for (int i = 0; i < 150; ++i) cache.store(i, random_values(static_cast<std::uint64_t>(20 + i), dim).data());
        results.push_back(cache.attend(random_values(10, dim), 149, 1 / std::sqrt(static_cast<float>(dim))));
      }
      for (std::size_t i = 0; i < results[0].size(); ++i)
        ASSERT_NEAR(results[0][i], results[1][i], 5e-6) << kv_format(kind).name << ' ' << dim << ' ' << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, KvTypes, testing::ValuesIn(machine_isas()),
                         [](const auto& isa) { return std::string(isa_name(isa.param)); });

TEST(KvLayout, BytesOfAPosition) {
  const auto bytes = [](KvType type, int dim) {
    EXPECT_EQ(key_block_bytes(type, dim) % 64, 0);
    EXPECT_EQ(value_block_bytes(type, dim) % 64, 0);
    return static_cast<double>(key_block_bytes(type, dim) + value_block_bytes(type, dim)) / kKeyBlock / 2;
  };
  EXPECT_EQ(bytes(KvType::kF16, 64), 128);
  EXPECT_EQ(bytes(KvType::kQ8_0, 64), 68);
  EXPECT_EQ(bytes(KvType::kInt8, 64), 66);
  EXPECT_EQ(bytes(KvType::kFp8, 64), 66);
  EXPECT_EQ(bytes(KvType::kInt4, 64), 40);
  EXPECT_EQ(bytes(KvType::kInt8, 128), 132);
  EXPECT_EQ(bytes(KvType::kFp8, 128), 130);
  EXPECT_EQ(bytes(KvType::kInt4H, 128), 80);
  EXPECT_EQ(bytes(KvType::kInt8Static, 128), 130);
  EXPECT_EQ(bytes(KvType::kFp8Static, 64), 66);
  EXPECT_EQ(bytes(KvType::kInt4, 80), (52 + 60) / 2.0);  // values are padded to 96
}

TEST(KvLayout, GivenScalesAreHalves) {
  EXPECT_TRUE(kv_takes_scale(KvType::kInt8Static, 1e-5f));
  EXPECT_FALSE(kv_takes_scale(KvType::kInt8Static, 5e-7f));
  EXPECT_TRUE(kv_takes_scale(KvType::kFp8Static, 5e-7f));
  EXPECT_TRUE(kv_takes_scale(KvType::kInt8Static, 300));
  EXPECT_FALSE(kv_takes_scale(KvType::kFp8Static, 300));
}

TEST(KvLayout, RotationAsksForRunsOfSixteen) {
  EXPECT_TRUE(kv_can_keep(kv_format(KvType::kInt4H), 80));
  EXPECT_FALSE(kv_can_keep(kv_format(KvType::kInt4H), 72));
  EXPECT_TRUE(kv_can_keep(kv_format(KvType::kInt4), 72));
  EXPECT_FALSE(kv_can_keep(kv_format(KvType::kInt4), kMostHead + 1));
}

}  // namespace
}  // namespace nibble::ops
