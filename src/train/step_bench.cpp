// Speed of a training step: of a whole model with AdamW, of one block, and of the products in them alone, beside what
// the machine's fused multiply-adds give. Used by dev/compare_training_speed.py, too.
//   nibble_train_bench MODEL model|block [SEQUENCES [TOKENS [ROUNDS [f32|bf16x3|bf16]]]]
// A line a round: seconds of a step, its GFLOP/s (6 per weight and token, attention left out), tokens per second, share
// of the FMA peak, share of the peak of the products alone.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/error.h"
#include "base/restart.h"
#include "base/rng.h"
#include "kernel/roofline.h"
#include "linalg/core.h"
#include "linalg/gemm.h"
#include "train/language_loss.h"
#include "train/model_parameters.h"
#include "train/optimizer.h"

namespace {

using namespace nibble;

struct Shape2 {
  std::int64_t rows, cols;
};

double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The three products of each linear, forth and back.
double product_seconds(ExecContext& context, linalg::Precision precision, const std::vector<Shape2>& shapes,
                       std::int64_t n) {
  using linalg::Lies;
  std::int64_t most = 0, widest = 0;
  for (const Shape2& shape : shapes) {
    most = std::max(most, shape.rows * shape.cols);
    widest = std::max({widest, shape.rows, shape.cols});
  }
  std::vector<float> w(static_cast<std::size_t>(most), 0.5f), dw(w), x(static_cast<std::size_t>(n * widest), 0.5f),
      y(x);
  return seconds_of([&] {
    for (const auto& [rows, cols] : shapes) {
      linalg::multiply(context, precision, Lies::kAsIs, Lies::kTransposed, n, rows, cols, x.data(), cols, w.data(),
                       cols, false, y.data(), rows);
      linalg::multiply(context, precision, Lies::kAsIs, Lies::kAsIs, n, cols, rows, y.data(), rows, w.data(), cols,
                       false, x.data(), cols);
      linalg::multiply(context, precision, Lies::kTransposed, Lies::kAsIs, rows, cols, n, y.data(), rows, x.data(),
                       cols, false, dw.data(), cols);
    }
  });
}

}  // namespace

int main(int argc, char** argv) try {
  if (const char* core = linalg::better_core()) restart_with("OPENBLAS_CORETYPE", core, argv);
  if (argc < 3)
    fail(ErrorCode::kInvalidArgument, "usage: {} MODEL model|block [SEQUENCES [TOKENS [ROUNDS [f32|bf16x3|bf16]]]]",
         argv[0]);
  const bool whole = std::string(argv[2]) == "model";
  const auto number = [&](int i, int fallback) { return argc > i ? std::atoi(argv[i]) : fallback; };
  const train::Sequences sequences = {number(3, 8), number(4, 256)};
  const std::int64_t n = sequences.rows();
  ThreadPool pool;
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
  const auto source = model::ModelSource::open(argv[1]);
  const model::ModelSpec& spec = source->spec();
  train::ModelParameters<float> weights(*source, whole ? train::ModelParameters<float>::kAllLayers : 0);
  train::DecoderGraph<float> graph(spec);
  const linalg::Precision precision = linalg::parse_precision(argc > 6 ? argv[6] : "f32", best_isa());
  train::Tape<float> tape(context, best_isa(), precision);
  const auto optimizer = train::make_optimizer({});
  std::vector<token::TokenId> tokens;
  for (std::int64_t i = 0; i < n; ++i)
    tokens.push_back(static_cast<token::TokenId>(random_bits(1, 2, static_cast<std::uint64_t>(i)) %
                                                 static_cast<std::uint64_t>(spec.vocab)));
  const std::vector<std::uint8_t> learned(tokens.size(), 1);
  std::vector<float> states(static_cast<std::size_t>(n * spec.hidden)), dstates(states.size());
  for (std::size_t i = 0; i < states.size(); ++i) states[i] = random_normal(3, 0, i);
  std::vector<Shape2> shapes;
  double multiplied = 0;
  for (const model::WeightSlot& slot : spec.weights) {
    if (!model::is_matrix(slot.role) || slot.bias || (!whole && slot.layer != 0)) continue;
    if (slot.role == model::Role::kTokenEmbedding && !spec.tied) continue;
    shapes.push_back({slot.shape.rows(), slot.shape.cols()});
    multiplied += static_cast<double>(slot.shape.elements());
  }
  const double operations = 6 * multiplied * static_cast<double>(n);
  const auto step = [&] {
    for (train::Parameter* parameter : weights.trained()) parameter->zero_gradient();
    if (whole) {
      const train::TokenBatch batch = {sequences, tokens, learned};
      train::add_gradients<float>(tape, graph, weights, batch, static_cast<double>(batch.predictions()), {});
    } else {
      const train::Var x = tape.borrow(n, spec.hidden, states.data(), dstates.data());
      const train::Var y = graph.block(tape, weights, 0, x, sequences);
      tape.backward(train::squared_error(tape, y, states.data(), 1 / static_cast<double>(states.size())));
      tape.clear();
    }
    optimizer->step(context, weights.trained(), 1e-6);
  };
  step();
  for (int round = 0; round < number(5, 5); ++round) {
    const double s = seconds_of(step), products = product_seconds(context, precision, shapes, n);
    const double peak = kernel::measure_roofline(pool, machine_isa(), std::uint64_t{1} << 24).f32_ops_per_s;
    std::printf("%.4f s  %.1f GFLOP/s  %.0f tokens/s  %.3f of peak  products %.3f of peak  (%d threads, %zu MiB)\n", s,
                operations / s / 1e9, static_cast<double>(n) / s, operations / s / peak, operations / products / peak,
                pool.size(), tape.memory_bytes() >> 20);
    std::fflush(stdout);
  }
} catch (const nibble::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
