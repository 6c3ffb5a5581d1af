// Speed of every kernel at the shapes of a 1B llama, beside what the machine can do: decode (one token) over more
// weights than the caches hold, prefill (512 tokens) of one matrix.
//   nibble_kernel_bench --benchmark_filter='q4_0/blocks/avx512'
#include <benchmark/benchmark.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "kernel/linear.h"
#include "kernel/roofline.h"

namespace {

using namespace nibble;
using namespace nibble::kernel;

ThreadPool& pool() {
  static ThreadPool threads;
  return threads;
}

const Roofline& roofline(Isa isa) {
  static std::map<Isa, Roofline> measured;
  auto found = measured.find(isa);
  if (found == measured.end()) {
    found = measured.emplace(isa, measure_roofline(pool(), isa)).first;
    std::printf("# %s, %d threads: read %.1f GB/s, int8 %.0f GOPS, f32 %.0f GOPS\n", std::string(isa_name(isa)).c_str(),
                found->second.threads, found->second.read_bytes_per_s / 1e9, found->second.int8_ops_per_s / 1e9,
                found->second.f32_ops_per_s / 1e9);
  }
  return found->second;
}

struct Bench {
  const LinearKernel* kernel;
  const encoding::EncodingInfo* encoding;
  std::int64_t rows;
  std::int64_t cols;
  std::int64_t n;
};

// Packs one matrix and repeats it `copies` times.
AlignedBuffer packed_copies(const Bench& b, const MatrixInfo& matrix, std::int64_t copies) {
  std::vector<float> values(static_cast<std::size_t>(b.cols * 16));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.02f * random_normal(1, 0, i);
  std::vector<std::byte> bytes(encoding::row_bytes(*b.encoding, b.cols) * 16);
  b.encoding->encode(values.data(), bytes.data(), b.cols * 16);
  std::vector<std::int32_t> row_map(static_cast<std::size_t>(b.rows));
  for (std::int64_t r = 0; r < b.rows; ++r) row_map[static_cast<std::size_t>(r)] = static_cast<std::int32_t>(r % 16);
  const std::uint64_t one = b.kernel->layout.bytes(matrix);
  AlignedBuffer packed(one * static_cast<std::uint64_t>(copies));
  b.kernel->layout.pack(make_view(*b.encoding, Shape{16, b.cols}, bytes), row_map.data(), 0, b.rows, packed.data());
  for (std::int64_t i = 1; i < copies; ++i) {
    std::memcpy(packed.data() + one * static_cast<std::uint64_t>(i), packed.data(), one);
  }
  return packed;
}

void run(benchmark::State& state, const Bench& b) {
  const MatrixInfo matrix{b.encoding, b.rows, b.cols};
  const std::uint64_t one = b.kernel->layout.bytes(matrix);
  const std::int64_t copies = b.n == 1 ? static_cast<std::int64_t>((std::uint64_t{1} << 30) / one) + 1 : 1;
  const AlignedBuffer packed = packed_copies(b, matrix, copies);
  std::vector<float> x(static_cast<std::size_t>(b.n * b.cols));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = random_normal(2, 0, i);
  AlignedBuffer activations(b.kernel->activation->row_bytes(b.cols) * static_cast<std::uint64_t>(b.n));
  b.kernel->activation->quantize(x.data(), b.cols, b.n, b.cols, activations.data());
  std::vector<float> out(static_cast<std::size_t>(b.n * b.rows));
  std::int64_t at = 0;
  for (auto _ : state) {
    const std::byte* weights = packed.data() + one * static_cast<std::uint64_t>(at);
    at = (at + 1) % copies;
    pool().parallel_for(b.rows, b.kernel->layout.row_block, [&](std::int64_t begin, std::int64_t end) {
      b.kernel->compute(matrix, weights, activations.data(), b.n, begin, end, out.data(), b.rows);
    });
  }
  const auto calls = static_cast<double>(state.iterations());
  const double bytes = static_cast<double>(encoding::row_bytes(*b.encoding, b.cols)) * static_cast<double>(b.rows);
  const double ops = 2.0 * static_cast<double>(b.rows) * static_cast<double>(b.cols) * static_cast<double>(b.n);
  const Roofline& limit = roofline(b.kernel->isa);
  const double peak = b.kernel->activation->name == "f32" ? limit.f32_ops_per_s : limit.int8_ops_per_s;
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(bytes * calls / 1e9, Counter::kIsRate);
  state.counters["of_read"] = Counter(bytes * calls / limit.read_bytes_per_s, Counter::kIsRate);
  state.counters["GOPS"] = Counter(ops * calls / 1e9, Counter::kIsRate);
  state.counters["of_peak"] = Counter(ops * calls / peak, Counter::kIsRate);
}

// Packing as at load, one thread: bytes of the file per second.
void run_pack(benchmark::State& state, const LinearKernel& kernel, const encoding::EncodingInfo& info) {
  constexpr std::int64_t kRows = 2048;
  constexpr std::int64_t kCols = 2048;
  std::vector<float> values(static_cast<std::size_t>(kCols));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.02f * random_normal(1, 0, i);
  const std::uint64_t stride = encoding::row_bytes(info, kCols);
  std::vector<std::byte> bytes(stride * kRows);
  for (std::uint64_t r = 0; r < kRows; ++r) info.encode(values.data(), bytes.data() + r * stride, kCols);
  const TensorView view = make_view(info, Shape{kRows, kCols}, bytes);
  AlignedBuffer packed(kernel.layout.bytes({&info, kRows, kCols}));
  for (auto _ : state) kernel.layout.pack(view, nullptr, 0, kRows, packed.data());
  state.counters["GB/s"] = benchmark::Counter(
      static_cast<double>(bytes.size()) * static_cast<double>(state.iterations()) / 1e9, benchmark::Counter::kIsRate);
}

}  // namespace

int main(int argc, char** argv) {
  for (const LinearKernel* kernel : kernel::all_entries()) {
    if (kernel->isa > machine_isa()) continue;
    for (const encoding::EncodingInfo* info : encoding::all_entries()) {
      if (info->encode == nullptr || !kernel->accepts(*info, 2048)) continue;
      const std::string pack_name = info->name + "/" + std::string(kernel->name) + "/pack";
      benchmark::RegisterBenchmark(pack_name.c_str(), [kernel, info](benchmark::State& state) {
        run_pack(state, *kernel, *info);
      })->Unit(benchmark::kMicrosecond);
      for (const auto& [rows, cols, n] : {std::array<std::int64_t, 3>{8192, 2048, 1},
                                          {2048, 8192, 1},
                                          {8192, 2048, 8},
                                          {8192, 2048, 512},
                                          {2048, 8192, 512}}) {
        const std::string name = info->name + "/" + std::string(kernel->name) + "/" + std::to_string(rows) + "x" +
                                 std::to_string(cols) + "/" + std::to_string(n);
        const Bench bench{kernel, info, rows, cols, n};
        benchmark::RegisterBenchmark(name.c_str(), [bench](benchmark::State& state) { run(state, bench); })
            ->UseRealTime()
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
