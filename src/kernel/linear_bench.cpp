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
#include "encoding/activation.h"
#include "encoding/affine.h"
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

// The fixed encodings and the usual ones of the other families.
std::vector<const encoding::EncodingInfo*> encodings() {
  std::vector<const encoding::EncodingInfo*> all;
  for (const encoding::EncodingInfo* info : encoding::all_entries()) {
    if (info->encode != nullptr) all.push_back(info);
  }
  for (const char* name :
       {"int4-g32", "int4-g128", "int4-g128-asym-f16", "int4-g128-gidx", "int8-g128", "int8-channel", "nf4",
        "kmeans4-channel", "kmeans4-g512", "kmeans3-channel", "kmeans2-channel", "fp8-channel", "fp8-block128x128",
        "fp8-channel-e5m2", "mxfp8", "mxfp4-hf", "nvfp4-hf", "nvfp4"}) {
    all.push_back(&encoding::get(name));
  }
  return all;
}

// Weights of a normal distribution; of the families of several parts, any codes.
Tensor make_weights(const encoding::EncodingInfo& info, std::int64_t rows, std::int64_t cols) {
  Tensor tensor = encoding::allocate(info, Shape{rows, cols});
  const std::span<std::byte> codes = tensor.mutable_part(PartRole::kCodes);
  if (info.encode != nullptr) {
    std::vector<float> values(static_cast<std::size_t>(rows * cols));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.02f * random_normal(1, 0, i);
    info.encode(values.data(), codes.data(), rows * cols);
    return tensor;
  }
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::byte>(random_bits(1, 0, i));
  if (info.family != encoding::Family::kAffine) {
    for (std::byte& code : codes) {  // 1.875 is the largest of FP8
      if (info.family == encoding::Family::kScaled && info.scaled.code != encoding::FloatCode::kE2m1)
        code &= std::byte{0xBF};
    }
    for (int i = 1; i < tensor.view().n_parts; ++i) {  // scales or centroids
      const Part part = tensor.view().parts[static_cast<std::size_t>(i)];
      const encoding::EncodingInfo& dtype = encoding::get(dtype_name(part.dtype));
      const std::span<std::byte> bytes = tensor.mutable_part(part.role);
      for (std::size_t at = 0; at < bytes.size(); at += static_cast<std::size_t>(dtype.block_bytes)) {
        const float value = part.role == PartRole::kCodebook ? 0.02f * random_normal(1, 1, at) : 0.02f;
        dtype.encode(&value, bytes.data() + at, 1);
      }
    }
    return tensor;
  }
  if (info.affine.group_index) {  // columns of a group lie as far apart as they can
    std::vector<std::int32_t> groups(static_cast<std::size_t>(cols));
    for (std::int64_t c = 0; c < cols; ++c)
      groups[static_cast<std::size_t>(c)] = static_cast<std::int32_t>(c % encoding::groups_per_row(info.affine, cols));
    std::memcpy(tensor.mutable_part(PartRole::kGroupIndex).data(), groups.data(), groups.size() * 4);
  }
  std::byte* scales = tensor.mutable_part(PartRole::kScales).data();
  std::byte* zeros = info.affine.symmetric ? nullptr : tensor.mutable_part(PartRole::kZeros).data();
  for (std::int64_t i = 0; i < encoding::scales_shape(info.affine, Shape{rows, cols}).elements(); ++i) {
    encoding::store_scale_zero(info.affine, {0.01f, 7}, scales, zeros, i);
  }
  return tensor;
}

// Packs one matrix and repeats it `copies` times.
AlignedBuffer packed_copies(const Bench& b, const MatrixInfo& matrix, std::int64_t copies) {
  const Tensor weights = make_weights(*b.encoding, 16, b.cols);
  std::vector<std::int32_t> row_map(static_cast<std::size_t>(b.rows));
  for (std::int64_t r = 0; r < b.rows; ++r) row_map[static_cast<std::size_t>(r)] = static_cast<std::int32_t>(r % 16);
  const std::uint64_t one = b.kernel->layout.bytes(matrix);
  AlignedBuffer packed(one * static_cast<std::uint64_t>(copies));
  b.kernel->layout.pack(weights.view(), row_map.data(), 0, b.rows, packed.data());
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
  InputRounding inputs;
  if (b.kernel->activation->needs_type)
    inputs.activation = &encoding::get_activation(
        b.kernel->activation->rounds(encoding::get_activation("int8-token")) ? "int8-token" : "int8-token-over3.3");
  b.kernel->activation->quantize(inputs, x.data(), b.cols, b.n, b.cols, activations.data());
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
  const auto bytes = static_cast<double>(encoding::tensor_bytes(*b.encoding, Shape{b.rows, b.cols}));
  const Roofline& limit = roofline(b.kernel->isa);
  const double ops = 2.0 * b.kernel->products * static_cast<double>(b.rows * b.cols * b.n);
  const double peak = peak_of(product_kind(*b.kernel), limit);
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
  const Tensor weights = make_weights(info, kRows, kCols);
  AlignedBuffer packed(kernel.layout.bytes({&info, kRows, kCols}));
  for (auto _ : state) kernel.layout.pack(weights.view(), nullptr, 0, kRows, packed.data());
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(weights.view().n_bytes()) * static_cast<double>(state.iterations()) / 1e9,
                         benchmark::Counter::kIsRate);
}

}  // namespace

int main(int argc, char** argv) {
  for (const LinearKernel* kernel : kernel::all_entries()) {
    if (kernel->isa > machine_isa()) continue;
    for (const encoding::EncodingInfo* info : encodings()) {
      if (!kernel->accepts(*info, 2048)) continue;
      const std::string pack_name = info->name + "/" + std::string(kernel->name) + "/pack";
      benchmark::RegisterBenchmark(pack_name.c_str(), [kernel, info](benchmark::State& state) {
        run_pack(state, *kernel, *info);
      })->Unit(benchmark::kMicrosecond);
      for (const auto& [rows, cols, n] : {std::array<std::int64_t, 3>{8192, 2048, 1},
                                          {2048, 8192, 1},
                                          {8192, 2048, 2},
                                          {8192, 2048, 3},
                                          {8192, 2048, 4},
                                          {8192, 2048, 5},
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
