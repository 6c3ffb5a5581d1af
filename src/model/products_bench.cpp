// Speed of the f32 products that calibration and the solvers of the second order live on, at the shapes of a 1B llama,
// beside what the machine's fused multiply-adds give.
//   nibble_products_bench --benchmark_filter=gram/2048
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/exec_context.h"
#include "base/restart.h"
#include "base/rng.h"
#include "kernel/roofline.h"
#include "linalg/core.h"
#include "linalg/gemm.h"
#include "linalg/gram.h"

namespace {

using namespace nibble;

constexpr std::int64_t kTokens = 2048;  // that come in a call
constexpr std::int64_t kRows = 64;      // of a weight that a thread solves at once

struct Machine {
  ThreadPool pool;
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
};
Machine& machine() {
  static Machine all;
  return all;
}

std::vector<float> numbers(std::int64_t n) {
  std::vector<float> out(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = random_normal(1, 0, i % 65536);
  return out;
}

double measured_peak() {
  return kernel::measure_roofline(machine().pool, machine_isa(), std::uint64_t{1} << 24).f32_ops_per_s;
}

// Runs `work` on all threads; `operations` that count, of one run. The limit is measured before and behind it: a shared
// machine moves.
void measure(benchmark::State& state, double operations, const std::function<void()>& work) {
  const double before = measured_peak();
  for (auto _ : state) work();
  const double peak = (before + measured_peak()) / 2;
  using benchmark::Counter;
  const double all = operations * static_cast<double>(state.iterations());
  state.counters["GFLOPS"] = Counter(all / 1e9, Counter::kIsRate);
  state.counters["of_peak"] = Counter(all / peak, Counter::kIsRate);
  state.counters["peak"] = peak / 1e9;
}

// Sums of products of inputs: the lower triangle counts.
void run_gram(benchmark::State& state, std::int64_t n) {
  const std::vector<float> x = numbers(kTokens * n);
  std::vector<float> h(static_cast<std::size_t>(n * n));
  measure(state, static_cast<double>(kTokens * n * (n + 1)),
          [&] { linalg::add_gram(machine().context, kTokens, n, x.data(), h.data()); });
}

void run_cross(benchmark::State& state, std::int64_t n) {
  const std::vector<float> x = numbers(kTokens * n);
  std::vector<float> h(static_cast<std::size_t>(n * n));
  measure(state, 2.0 * static_cast<double>(kTokens * n * n),
          [&] { linalg::add_cross(machine().context, kTokens, n, n, x.data(), x.data(), h.data()); });
}

// A linear of the forward pass, (rows, cols), in panels as decoded weights come.
void run_forward(benchmark::State& state, std::int64_t rows, std::int64_t cols) {
  const std::vector<float> x = numbers(kTokens * cols), w = numbers(rows * cols);
  std::vector<float> out(static_cast<std::size_t>(kTokens * rows));
  const std::int64_t panel = std::clamp<std::int64_t>((1 << 20) / cols / 16 * 16, 16, 256);
  measure(state, 2.0 * static_cast<double>(kTokens * rows * cols), [&] {
    machine().pool.parallel_dynamic((rows + panel - 1) / panel, [&](std::int64_t i) {
      linalg::gemm_nt(kTokens, std::min(panel, rows - i * panel), cols, x.data(), cols, w.data() + i * panel * cols,
                      cols, out.data() + i * panel, rows);
    });
  });
}

// Errors of a block of 128 columns to the `n` later ones, each thread its own rows.
void run_spread(benchmark::State& state, std::int64_t n) {
  const std::int64_t threads = machine().pool.size();
  const std::vector<float> errors = numbers(threads * kRows * 128), factor = numbers(128 * n);
  std::vector<float> rest(static_cast<std::size_t>(threads * kRows * n));
  measure(state, 2.0 * static_cast<double>(threads * kRows * 128 * n), [&] {
    machine().pool.parallel_dynamic(threads, [&](std::int64_t i) {
      linalg::gemm_subtract(kRows, n, 128, errors.data() + i * kRows * 128, 128, factor.data(), n,
                            rest.data() + i * kRows * n, n);
    });
  });
}

void run_factor(benchmark::State& state, std::int64_t n) {
  std::vector<float> a(static_cast<std::size_t>(n * n), 0.5f);
  for (std::int64_t i = 0; i < n; ++i) a[static_cast<std::size_t>(i * n + i)] = 1;
  std::vector<float> work;
  measure(state, 2.0 / 3 * static_cast<double>(n) * static_cast<double>(n * n), [&] {
    work = a;
    if (!linalg::factor_of_inverse(n, work.data())) state.SkipWithError("not positive definite");
  });
}

void add(const std::string& name, const std::function<void(benchmark::State&)>& run) {
  benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime()->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  if (const char* core = linalg::better_core()) restart_with("OPENBLAS_CORETYPE", core, argv);
  for (const std::int64_t n : {2048, 8192}) {
    const std::string size = std::to_string(n);
    add("gram/" + size, [n](benchmark::State& state) { run_gram(state, n); });
    add("cross/" + size, [n](benchmark::State& state) { run_cross(state, n); });
    add("spread/" + size, [n](benchmark::State& state) { run_spread(state, n); });
    add("factor/" + size, [n](benchmark::State& state) { run_factor(state, n); });
  }
  add("forward/8192x2048", [](benchmark::State& state) { run_forward(state, 8192, 2048); });
  add("forward/2048x8192", [](benchmark::State& state) { run_forward(state, 2048, 8192); });
  benchmark::Initialize(&argc, argv);
  std::printf("# %d threads\n", machine().pool.size());
  benchmark::RunSpecifiedBenchmarks();
}
