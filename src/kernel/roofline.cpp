#include "kernel/roofline.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/aligned_buffer.h"
#include "kernel/roofline_isa.h"

namespace nibble::kernel {

namespace {

template <int kStreams>
std::uint64_t read_words(const std::uint8_t* data, std::int64_t n) {
  std::uint64_t sum[4] = {};
  const std::int64_t part = n / kStreams;
  for (std::int64_t i = 0; i < part; i += 32 / kStreams) {
    for (int j = 0; j < 4; ++j) {
      std::uint64_t word;
      std::memcpy(&word, data + part * (j % kStreams) + i + j / kStreams * 8, 8);
      sum[j] ^= word;
    }
  }
  return sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
}

constexpr int kChains = 8;

std::uint64_t int8_dot(std::int64_t rounds) {
  std::int32_t sum[kChains] = {};
  std::int8_t a[kChains];
  for (int j = 0; j < kChains; ++j) a[j] = static_cast<std::int8_t>(j - 3);
  for (std::int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : : "r"(a) : "memory");
    for (int j = 0; j < kChains; ++j) sum[j] += a[j] * a[kChains - 1 - j];
  }
  std::uint64_t total = 0;
  for (const std::int32_t s : sum) total += static_cast<std::uint32_t>(s);
  return total;
}

std::uint64_t f32_fma(std::int64_t rounds) {
  float sum[kChains];
  float a = 0.5f;
  for (int j = 0; j < kChains; ++j) sum[j] = static_cast<float>(j);
  for (std::int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : : "r"(&a) : "memory");
    for (float& s : sum) s = s * a + 1.0f;
  }
  float total = 0;
  for (const float s : sum) total += s;
  return static_cast<std::uint64_t>(total);
}

const RooflineLoops kRooflineScalar = {{read_words<1>, read_words<2>, read_words<4>},
                                       std::int64_t{kChains} * 2,
                                       int8_dot,
                                       std::int64_t{kChains} * 2,
                                       f32_fma};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Best rate of `work` per second over some repetitions of body(thread).
template <typename Body>
double best_rate(ThreadPool& pool, int repetitions, double work, Body&& body) {
  double best = 0;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    pool.run(body);
    best = std::max(best, work / seconds_since(start));
  }
  return best;
}

}  // namespace

Roofline measure_roofline(ThreadPool& pool, Isa isa, std::uint64_t buffer_bytes) {
  const RooflineLoops& loops = isa >= Isa::kAvx512 ? kRooflineAvx512
                               : isa == Isa::kAvx2 ? kRooflineAvx2
                                                   : kRooflineScalar;
  Roofline result;
  result.threads = pool.size();
  std::vector<std::uint64_t> sink(static_cast<std::size_t>(pool.size()) * 8);  // a cache line each

  const auto share = static_cast<std::int64_t>(buffer_bytes) / pool.size() / (4 * kReadGrain) * (4 * kReadGrain);
  AlignedBuffer buffer(static_cast<std::size_t>(share) * static_cast<std::size_t>(pool.size()));
  auto* data = buffer.as<std::uint8_t>();
  pool.run([&](int thread) { std::memset(data + thread * share, thread + 1, static_cast<std::size_t>(share)); });
  for (const auto read : loops.read) {
    const double rate = best_rate(pool, 4, static_cast<double>(buffer.size()), [&](int thread) {
      sink[static_cast<std::size_t>(thread) * 8] += read(data + thread * share, share);
    });
    result.read_bytes_per_s = std::max(result.read_bytes_per_s, rate);
  }

  constexpr std::int64_t kRounds = 2'000'000, kTileRounds = 200'000;
  const auto peak = [&](std::int64_t ops_per_round, std::uint64_t (*loop)(std::int64_t), std::int64_t rounds) {
    const double work = static_cast<double>(ops_per_round) * static_cast<double>(rounds) * pool.size();
    return best_rate(pool, 6, work, [&](int thread) { sink[static_cast<std::size_t>(thread) * 8] += loop(rounds); });
  };
  result.int8_ops_per_s = peak(loops.int8_ops_per_round, loops.int8_dot, kRounds);
  result.f32_ops_per_s = peak(loops.f32_ops_per_round, loops.f32_fma, kRounds);
  if (isa >= Isa::kAmx) {
    result.bf16_ops_per_s = peak(kTileOpsPerRound, bf16_tiles, kTileRounds);
    result.int8_tile_ops_per_s = peak(2 * kTileOpsPerRound, int8_tiles, kTileRounds);
  }
  asm volatile("" : : "r"(sink.data()) : "memory");
  return result;
}

ProductKind product_kind(const LinearKernel& kernel) {
  const std::string_view activations = kernel.activation->name;
  if (activations == "f32") return ProductKind::kF32;
  if (activations.starts_with("bf16")) return ProductKind::kBf16;
  return kernel.isa == Isa::kAmx ? ProductKind::kIntegerTiles : ProductKind::kInteger;
}

double peak_of(ProductKind kind, const Roofline& roofline) {
  switch (kind) {
    case ProductKind::kF32:
      return roofline.f32_ops_per_s;
    case ProductKind::kBf16:
      return roofline.bf16_ops_per_s;
    case ProductKind::kIntegerTiles:
      return roofline.int8_tile_ops_per_s;
    case ProductKind::kInteger:
      break;
  }
  return roofline.int8_ops_per_s;
}

Roofline better_of(const Roofline& a, const Roofline& b) {
  return {a.threads,
          std::max(a.read_bytes_per_s, b.read_bytes_per_s),
          std::max(a.int8_ops_per_s, b.int8_ops_per_s),
          std::max(a.f32_ops_per_s, b.f32_ops_per_s),
          std::max(a.bf16_ops_per_s, b.bf16_ops_per_s),
          std::max(a.int8_tile_ops_per_s, b.int8_tile_ops_per_s)};
}

}  // namespace nibble::kernel
