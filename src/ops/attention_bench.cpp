// Attention of every type of cache: one token over all keys and values of a 1B llama (16 blocks of 8 heads of 64, four
// query heads each) behind 8192 tokens, more than most caches hold; a tile of a prefill over one head.
//   nibble_ops_bench --benchmark_filter=avx512 --benchmark_repetitions=9 --benchmark_enable_random_interleaving=true
#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "ops/kv_layout.h"
#include "ops/ops.h"

namespace {

using namespace nibble;
using namespace nibble::ops;

constexpr int kHead = 64, kGroup = 4, kPositions = 8192, kDecodeHeads = 16 * 8;

struct Bench {
  Isa isa;
  KvType type;
  int n_heads, n_tokens;
};

std::vector<float> random_values(std::uint64_t stream, int n) {
  std::vector<float> out;
  for (int i = 0; i < n; ++i) out.push_back(random_normal(1, stream, static_cast<std::uint64_t>(i)));
  return out;
}

void run(benchmark::State& state, const Bench& bench) {
  const KvOps& kv = choose_ops(bench.isa).kv[static_cast<int>(bench.type)];
  const std::int64_t k_block = key_block_bytes(bench.type, kHead), v_block = value_block_bytes(bench.type, kHead);
  const std::int64_t blocks = kv_blocks(kPositions);
  AlignedBuffer k(static_cast<std::size_t>(bench.n_heads * blocks * k_block));
  AlignedBuffer v(static_cast<std::size_t>(bench.n_heads * blocks * v_block));
  const auto numbers = random_values(1, 2 * kPositions + kHead);
  for (std::int64_t at = 0; at < bench.n_heads * std::int64_t{kPositions}; ++at) {
    const float* key = numbers.data() + at % kPositions;
    kv.store_k(k.data() + at / kKeyBlock * k_block, at % kKeyBlock, key, kHead, 0.02f);
    kv.store_v(v.data() + at / kKeyBlock * v_block, at % kKeyBlock, key + kPositions, kHead, 0.02f);
  }
  const int rows = bench.n_tokens * kGroup;
  const auto q = random_values(2, rows * kHead);
  std::vector<float> out(q.size());
  AlignedBuffer scratch(static_cast<std::size_t>(attention_scratch_floats(rows, kHead)) * sizeof(float));
  for (auto _ : state) {
    for (int head = 0; head < bench.n_heads; ++head) {
      kv.attend({q.data(), kGroup * kHead, out.data(), kGroup * kHead, bench.n_tokens, kGroup, kHead,
                 kPositions - bench.n_tokens, 0, 0.125f, k.data() + head * blocks * k_block, k_block,
                 v.data() + head * blocks * v_block, v_block, scratch.as<float>()});
    }
    benchmark::DoNotOptimize(out.data());
  }
}

double least(const std::vector<double>& times) { return *std::ranges::min_element(times); }

}  // namespace

int main(int argc, char** argv) {
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (isa > machine_isa()) continue;
    for (int type = 0; type < kKvTypes; ++type) {
      for (const auto& [what, n_heads, n_tokens] :
           {std::tuple("decode", kDecodeHeads, 1), std::tuple("prefill", 1, kQueryRows / kGroup)}) {
        const Bench bench = {isa, static_cast<KvType>(type), n_heads, n_tokens};
        const std::string name = std::string(isa_name(isa)) + "/" + what + "/" + kKvFormats[type].name;
        benchmark::RegisterBenchmark(name.c_str(), [bench](benchmark::State& state) { run(state, bench); })
            ->Unit(benchmark::kMillisecond)
            ->ComputeStatistics("least", least);
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
