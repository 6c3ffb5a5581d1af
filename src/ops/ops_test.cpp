#include "ops/ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "ops/kv_layout.h"

namespace nibble::ops {
namespace {

std::vector<Isa> machine_isas() {
  std::vector<Isa> list;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= machine_isa()) list.push_back(isa);
  }
  return list;
}

std::vector<float> random_values(std::uint64_t stream, std::int64_t n, float scale = 1) {
  std::vector<float> out(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = scale * random_normal(7, stream, i);
  return out;
}

class Ops : public testing::TestWithParam<Isa> {
 protected:
  const OpTable& ops() const { return choose_ops(GetParam()); }
};

TEST_P(Ops, RmsNorm) {
  for (const std::int64_t n : {1, 15, 16, 17, 100, 2048}) {
    const auto x = random_values(1, n, 3);
    const auto weight = random_values(2, n);
    std::vector<float> out(static_cast<std::size_t>(n) + 1, -1.0f);
    ops().rms_norm(x.data(), weight.data(), 1e-5f, n, out.data());
    double sum = 0;
    for (const float v : x) sum += static_cast<double>(v) * v;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double expected = x[i] / std::sqrt(sum / static_cast<double>(n) + 1e-5) * weight[i];
      EXPECT_NEAR(out[i], expected, 1e-6 * std::abs(expected) + 1e-9) << n;
    }
    EXPECT_EQ(out.back(), -1.0f);
  }
}

TEST_P(Ops, LayerNorm) {
  for (const std::int64_t n : {1, 15, 16, 17, 100, 2048}) {
    auto x = random_values(1, n, 3);
    for (float& v : x) v += 5;
    const auto weight = random_values(2, n), bias = random_values(3, n);
    double mean = 0, square = 0;
    for (const float v : x) mean += static_cast<double>(v) / static_cast<double>(n);
    for (const float v : x) square += (v - mean) * (v - mean) / static_cast<double>(n);
    for (const float* b : {bias.data(), static_cast<const float*>(nullptr)}) {
      std::vector<float> out(static_cast<std::size_t>(n) + 1, -1.0f);
      ops().layer_norm(x.data(), weight.data(), b, 1e-5f, n, out.data());
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double expected = (x[i] - mean) / std::sqrt(square + 1e-5) * weight[i] + (b == nullptr ? 0.0f : b[i]);
        EXPECT_NEAR(out[i], expected, 4e-6 * (1 + std::abs(expected))) << n;
      }
      EXPECT_EQ(out.back(), -1.0f);
    }
  }
}

TEST_P(Ops, ActivationsAndCaps) {
  std::vector<float> x = random_values(5, 200, 3);
  for (const float end : {-1e30f, -100.0f, -20.0f, -8.0f, -1e-6f, 0.0f, 1e-6f, 8.0f, 100.0f, 1e30f}) x.push_back(end);
  const auto n = static_cast<std::int64_t>(x.size());
  const auto up = random_values(6, n, 4);
  const auto exact = [](Activation activation, double v) {
    const double tanh_form = std::tanh(std::sqrt(2 / std::numbers::pi) * (v + 0.044715 * v * v * v));
    switch (activation) {
      case Activation::kSilu:
        return v / (1 + std::exp(-v));
      case Activation::kGelu:
        return v * 0.5 * std::erfc(-v / std::numbers::sqrt2);
      case Activation::kGeluTanh:
        return std::abs(v) > 50 ? std::max(v, 0.0) : 0.5 * v * (1 + tanh_form);
      case Activation::kRelu:
        return std::max(v, 0.0);
      case Activation::kRelu2:
        return v > 0 ? v * v : 0.0;
      case Activation::kClampedSwish:
        return std::min(v, 7.0) / (1 + std::exp(-1.702 * std::min(v, 7.0)));
    }
    return 0.0;
  };
  for (int i = 0; i < kActivations; ++i) {
    const auto activation = static_cast<Activation>(i);
    auto plain = x, gate = x;
    ops().activate[i](plain.data(), n);
    ops().gate[i](gate.data(), up.data(), n);
    for (std::size_t j = 0; j < x.size(); ++j) {
      if (activation == Activation::kRelu2 && x[j] > 1e15f) continue;  // beyond f32
      const double expected = exact(activation, static_cast<double>(x[j]));
      EXPECT_NEAR(plain[j], expected, 1e-6 * std::abs(expected) + 3e-7) << i << ' ' << x[j];
      const bool clamped = activation == Activation::kClampedSwish;
      const float factor = clamped ? std::clamp(up[j], -7.0f, 7.0f) + 1 : up[j];
      EXPECT_FLOAT_EQ(gate[j], plain[j] * factor) << i << ' ' << x[j];
    }
  }
  auto capped = x, scaled = x;
  ops().softcap(capped.data(), 5.0f, n);
  ops().scale(scaled.data(), 1.5f, n);
  for (std::size_t j = 0; j < x.size(); ++j) {
    EXPECT_NEAR(capped[j], 5 * std::tanh(static_cast<double>(x[j]) / 5), 2e-6) << x[j];
    EXPECT_EQ(scaled[j], x[j] * 1.5f);
  }
}

TEST_P(Ops, AddProductsSumsRowsAndLeavesTheRestAlone) {
  constexpr std::int64_t kStride = 150;
  for (const std::int64_t n : {1, 15, 16, 64, 79, 150}) {
    for (const std::int64_t rank : {0, 1, 4, 7}) {
      const auto factors = random_values(1, 8), b = random_values(2, 8 * kStride);
      auto out = random_values(3, kStride + 1);
      const auto before = out;
      ops().add_products(factors.data(), rank, b.data(), kStride, n, out.data());
      for (std::int64_t i = 0; i <= kStride; ++i) {
        const auto at = static_cast<std::size_t>(i);
        auto expected = static_cast<double>(before[at]);
        for (std::int64_t k = 0; k < rank && i < n; ++k)
          expected += static_cast<double>(b[static_cast<std::size_t>(k * kStride + i)]) *
                      static_cast<double>(factors[static_cast<std::size_t>(k)]);
        EXPECT_NEAR(out[at], expected, 2e-5) << n << ' ' << rank << ' ' << i;
        if (i >= n || rank == 0) {
          EXPECT_EQ(out[at], before[at]);
        }
      }
    }
  }
}

TEST_P(Ops, RotateTurnsPairs) {
  for (const std::int64_t pairs : {1, 3, 16, 40}) {
    auto x = random_values(3, 2 * pairs + 1);
    const auto before = x;
    const auto angle = random_values(4, pairs);
    std::vector<float> cos, sin;
    for (const float a : angle) {
      cos.push_back(std::cos(a));
      sin.push_back(std::sin(a));
    }
    ops().rotate(x.data(), cos.data(), sin.data(), pairs);
    for (std::size_t i = 0; i < angle.size(); ++i) {
      const std::size_t j = i + static_cast<std::size_t>(pairs);
      EXPECT_NEAR(x[i], before[i] * cos[i] - before[j] * sin[i], 1e-6);
      EXPECT_NEAR(x[j], before[j] * cos[i] + before[i] * sin[i], 1e-6);
    }
    EXPECT_EQ(x.back(), before.back());
  }
}

TEST_P(Ops, AddAndSiluGate) {
  for (const std::int64_t n : {1, 16, 77}) {
    auto x = random_values(5, n, 10);
    const auto y = random_values(6, n);
    const auto before = x;
    ops().add(x.data(), y.data(), n);
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(x[i], before[i] + y[i]);
    auto gate = before;
    ops().gate[0](gate.data(), y.data(), n);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double expected = before[i] / (1 + std::exp(-static_cast<double>(before[i]))) * y[i];
      EXPECT_NEAR(gate[i], expected, 1e-6 * std::abs(expected) + 1e-12);
    }
  }
}

TEST_P(Ops, SiluGateAtTheEnds) {
  std::vector<float> gate = {-1e30f, -200, -100, -88, -87, -1e-20f, 0, 1e-20f, 87, 100, 1e30f};
  const auto before = gate;
  const std::vector<float> up(gate.size(), 1.0f);
  ops().gate[0](gate.data(), up.data(), static_cast<std::int64_t>(gate.size()));
  for (std::size_t i = 0; i < gate.size(); ++i) {
    if (before[i] < -80) {
      EXPECT_LT(std::abs(gate[i]), std::abs(before[i]) * 1e-33f) << before[i];
    } else {
      const double expected = before[i] / (1 + std::exp(-static_cast<double>(before[i])));
      EXPECT_NEAR(gate[i], expected, 1e-6 * std::abs(expected)) << before[i];
    }
  }
}

// ---- attention
// -------------------------------------------------------------------------------------------------------
struct Case {
  int head_dim, group, n_tokens;
  std::int64_t first, window;
  float softcap = 0, slope = 0;  // head h of the group has slope * (h + 1)
  float sink = 0;                // and sink * (h - 1); 0: none
  bool chunked = false;
};

struct Head {
  Head(const OpTable& table, KvType kind, int dim, std::int64_t context)
      : ops(table.kv[static_cast<int>(kind)]),
        head_dim(dim),
        k_stride(key_block_bytes(kind, dim) + 64),  // heads lie apart
        v_stride(value_block_bytes(kind, dim) + 128),
        k(static_cast<std::size_t>(kv_blocks(context) * k_stride)),
        v(static_cast<std::size_t>(kv_blocks(context) * v_stride)) {
    std::ranges::fill(k.bytes(), std::byte{0xFF});  // NaN where nothing was stored
    std::ranges::fill(v.bytes(), std::byte{0xFF});
  }
  void store(std::int64_t position, const float* key, const float* value) {
    ops.store_k(k.data() + position / kKeyBlock * k_stride, position % kKeyBlock, key, head_dim, 0);
    ops.store_v(v.data() + position / kKeyBlock * v_stride, position % kKeyBlock, value, head_dim, 0);
  }
  std::vector<float> attend(const Case& c, const std::vector<float>& q) {
    const std::int64_t stride = std::int64_t{c.group} * c.head_dim;
    std::vector<float> out(q.size());
    AlignedBuffer scratch(static_cast<std::size_t>(attention_scratch_floats(c.n_tokens * c.group, c.head_dim)) * 4);
    const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    std::vector<float> slopes;
    for (int h = 1; h <= c.group; ++h) slopes.push_back(c.slope * static_cast<float>(h));
    std::vector<float> sinks;
    for (int h = 0; h < c.group; ++h) sinks.push_back(c.sink * static_cast<float>(h - 1));
    ops.attend({q.data(), stride, out.data(), stride, c.n_tokens, c.group, c.head_dim, c.first, c.window, scale,
                k.data(), k_stride, v.data(), v_stride, scratch.as<float>(), c.softcap,
                c.slope == 0 ? nullptr : slopes.data(), c.chunked, c.sink == 0 ? nullptr : sinks.data()});
    return out;
  }
  const KvOps& ops;
  int head_dim;
  std::int64_t k_stride, v_stride;
  AlignedBuffer k, v;
};

// Softmax attention in double.
std::vector<double> reference(const Case& c, const std::vector<float>& q, const std::vector<float>& keys,
                              const std::vector<float>& values) {
  std::vector<double> out(q.size());
  const auto dim = static_cast<std::size_t>(c.head_dim);
  for (std::size_t row = 0; row < q.size() / dim; ++row) {
    const std::int64_t position = c.first + static_cast<std::int64_t>(row) / c.group;
    std::int64_t begin = c.window > 0 ? std::max<std::int64_t>(0, position - c.window + 1) : 0;
    if (c.chunked) begin = position / c.window * c.window;
    std::vector<double> score;
    for (std::int64_t key = begin; key <= position; ++key) {
      double sum = 0;
      for (std::size_t d = 0; d < dim; ++d)
        sum += static_cast<double>(q[row * dim + d]) * keys[static_cast<std::size_t>(key) * dim + d];
      sum /= std::sqrt(static_cast<double>(dim));
      if (c.softcap > 0) sum = c.softcap * std::tanh(sum / c.softcap);
      const auto slope =
          static_cast<double>(c.slope) * static_cast<double>(row % static_cast<std::size_t>(c.group) + 1);
      score.push_back(sum + slope * static_cast<double>(key - position));
    }
    double top = *std::ranges::max_element(score), total = 0;
    if (c.sink != 0) {
      const auto sink = static_cast<double>(c.sink) * static_cast<double>(static_cast<int>(row) % c.group - 1);
      top = std::max(top, sink);
      total = std::exp(sink - top);
    }
    for (double& s : score) total += s = std::exp(s - top);
    for (std::size_t i = 0; i < score.size(); ++i) {
      for (std::size_t d = 0; d < dim; ++d) {
        out[row * dim + d] += score[i] / total * values[(static_cast<std::size_t>(begin) + i) * dim + d];
      }
    }
  }
  return out;
}

constexpr Case kCases[] = {{64, 4, 1, 0, 0},
                           {64, 4, 1, 200, 0},
                           {64, 1, 70, 0, 0},
                           {128, 2, 9, 130, 0},
                           {80, 3, 5, 61, 0},
                           {20, 5, 3, 127, 0},
                           {64, 2, 40, 100, 33},
                           {6, 1, 13, 0, 4},
                           {64, 4, 16, 64, 64},
                           {32, 1, 1, 255, 1},
                           {64, 2, 70, 3, 0, 1.5f},
                           {32, 3, 66, 20, 0, 0, 0.25f},
                           {20, 2, 5, 100, 40, 2.0f, 0.1f},
                           {64, 4, 1, 0, 0, 0, 0, 3},
                           {64, 8, 1, 150, 0, 0, 0, 30},
                           {32, 3, 70, 30, 20, 0, 0, 2},
                           {32, 2, 90, 10, 40, 0, 0, 0, true},
                           {64, 1, 1, 127, 128, 0, 0, 0, true},
                           {64, 1, 1, 128, 128, 0, 0, 0, true},
                           {96, 2, 7, 60, 0},
                           {112, 1, 3, 64, 0},
                           {256, 2, 5, 90, 30},
                           {576, 5, 2, 63, 0}};

TEST_P(Ops, AttentionAgreesWithDouble) {
  // About half more than what normal keys and values lose.
  const std::pair<KvType, double> kinds[] = {{KvType::kF32, 2e-6},    {KvType::kF16, 1e-3},  {KvType::kQ8_0, 0.025},
                                             {KvType::kInt8, 0.025},  {KvType::kFp8, 0.11},  {KvType::kInt4, 0.33},
                                             {KvType::kInt8H, 0.025}, {KvType::kFp8H, 0.11}, {KvType::kInt4H, 0.33}};
  for (const auto& [kind, tolerance] : kinds) {
    for (const Case& c : kCases) {
      if (!kv_can_keep(kv_format(kind), c.head_dim)) continue;
      const std::int64_t context = c.first + c.n_tokens;
      const auto keys = random_values(10, context * c.head_dim);
      const auto values = random_values(11, context * c.head_dim);
      const auto q = random_values(12, std::int64_t{c.n_tokens} * c.group * c.head_dim);
      Head head(ops(), kind, c.head_dim, context);
      for (std::int64_t i = 0; i < context; ++i)
        head.store(i, &keys[static_cast<std::size_t>(i * c.head_dim)],
                   &values[static_cast<std::size_t>(i * c.head_dim)]);
      const auto out = head.attend(c, q);
      const auto expected = reference(c, q, keys, values);
      for (std::size_t i = 0; i < out.size(); ++i) {
        ASSERT_NEAR(out[i], expected[i], tolerance * (1 + std::abs(expected[i])))
            << kv_format(kind).name << ' ' << c.head_dim << ' ' << c.first << ' ' << i;
      }
    }
  }
}

TEST_P(Ops, AttentionDoesNotDependOnTheBatch) {
  for (int kind = 0; kind < kKvTypes; ++kind) {
    const Case whole = {48, 3, 90, 50, 77};
    const std::int64_t context = whole.first + whole.n_tokens;
    const auto keys = random_values(13, context * whole.head_dim);
    const auto q = random_values(14, std::int64_t{whole.n_tokens} * whole.group * whole.head_dim);
    Head head(ops(), static_cast<KvType>(kind), whole.head_dim, context);
    for (std::int64_t i = 0; i < context; ++i) {
      const float* key = &keys[static_cast<std::size_t>(i * whole.head_dim)];
      head.store(i, key, key);
    }
    const auto together = head.attend(whole, q);
    const std::int64_t per_token = std::int64_t{whole.group} * whole.head_dim;
    for (int t = 0; t < whole.n_tokens; ++t) {
      const Case one = {48, 3, 1, whole.first + t, 77};
      const auto begin = static_cast<std::ptrdiff_t>(t * per_token);
      const std::vector<float> q_one(q.begin() + begin, q.begin() + begin + per_token);
      const auto alone = head.attend(one, q_one);
      for (std::size_t i = 0; i < alone.size(); ++i)
        ASSERT_EQ(alone[i], together[static_cast<std::size_t>(begin) + i]) << t;
    }
  }
}

TEST_P(Ops, AttentionOverHugeScores) {
  const Case c = {16, 1, 4, 60, 0};
  const auto keys = random_values(15, 64 * 16, 100);
  const auto values = random_values(16, 64 * 16);
  const auto q = random_values(17, 4 * 16, 100);
  Head head(ops(), KvType::kF32, 16, 64);
  for (std::size_t i = 0; i < 64; ++i) head.store(static_cast<std::int64_t>(i), &keys[i * 16], &values[i * 16]);
  const auto out = head.attend(c, q);
  const auto expected = reference(c, q, keys, values);
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], expected[i], 2e-3);
}

INSTANTIATE_TEST_SUITE_P(Isas, Ops, testing::ValuesIn(machine_isas()),
                         [](const auto& isa) { return std::string(isa_name(isa.param)); });

TEST(OpsAcrossIsas, VectorPathsGiveTheSameBits) {
  if (machine_isa() < Isa::kAvx512) GTEST_SKIP() << "needs both vector instruction sets";
  const Case c = {80, 2, 20, 70, 0};
  const auto keys = random_values(18, 90 * 80);
  const auto q = random_values(19, 40 * 80);
  std::vector<std::vector<float>> results;
  for (const OpTable* table : {&avx2_ops(), &avx512_ops()}) {
    Head head(*table, KvType::kF16, 80, 90);
    for (std::size_t i = 0; i < 90; ++i) head.store(static_cast<std::int64_t>(i), &keys[i * 80], &keys[i * 80]);
    results.push_back(head.attend(c, q));
    auto x = q;
    table->rms_norm(q.data(), q.data(), 1e-6f, 77, x.data());
    table->gate[0](x.data(), q.data(), 1000);
    results.back().insert(results.back().end(), x.begin(), x.end());
  }
  EXPECT_EQ(results[0], results[1]);
}

}  // namespace
}  // namespace nibble::ops
