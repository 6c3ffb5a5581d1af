// The bundled model against figures of an independent program: the decoder as a whole, on real weights and text.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/atomic_file.h"
#include "model/model.h"

namespace nibble::model {
namespace {

const std::filesystem::path kRoot = NIBBLE_SOURCE_DIR;

struct Runtime {
  explicit Runtime(int n_threads = 2) : pool(n_threads) {}
  ThreadPool pool;
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
};

double nll(const float* logits, std::int64_t n, token::TokenId target) {
  const float top = *std::max_element(logits, logits + n);
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits[i] - top));
  return std::log(sum) + top - logits[target];
}

// llama.cpp's protocol: chunks of 256 tokens, the first of each replaced by BOS; tokens 129 .. 255 are scored.
double perplexity(const Model& model, Runtime& runtime, KvType kv, std::span<const token::TokenId> tokens,
                  int n_chunks) {
  constexpr std::int64_t kContext = 256, kFirst = kContext / 2;
  constexpr int kBatch = 6;
  KvCache cache(model.spec(), kv, kBatch, kContext);
  double sum = 0;
  std::int64_t count = 0;
  for (int begin = 0; begin < n_chunks; begin += kBatch) {
    const int n = std::min(kBatch, n_chunks - begin);
    std::vector<std::vector<token::TokenId>> chunks;
    std::vector<Segment> segments;
    for (int i = 0; i < n; ++i) {
      const auto* at = tokens.data() + (begin + i) * kContext;
      chunks.emplace_back(at, at + kContext)[0] = 1;
    }
    for (int i = 0; i < n; ++i) {
      cache.truncate(i, 0);
      segments.push_back({i, chunks[static_cast<std::size_t>(i)], kFirst});
    }
    model.forward(runtime.context, cache, segments,
                  [&](std::size_t s, std::int64_t first, std::int64_t rows, const float* logits) {
                    for (std::int64_t r = 0; r < rows && first + r + 1 < kContext; ++r) {
                      sum += nll(logits + r * model.spec().vocab, model.spec().vocab,
                                 chunks[s][static_cast<std::size_t>(first + r + 1)]);
                      ++count;
                    }
                  });
  }
  EXPECT_EQ(count, n_chunks * (kContext - kFirst - 1));
  return std::exp(sum / static_cast<double>(count));
}

class PerplexitySlow : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    source_ = ModelSource::open(kRoot / "models/books-7m");
    const auto tokenizer = token::make_tokenizer(source_->vocabulary());
    tokens_ = tokenizer->encode(read_file(kRoot / "text/books-eval.txt").substr(0, 300000));
    ASSERT_GE(tokens_.size(), 150u * 256);
  }
  static double run(MathPath path, KvType kv) {
    Runtime runtime;
    const auto model = Model::load(runtime.context, source_, {path, best_isa()});
    return perplexity(*model, runtime, kv, tokens_, 150);
  }
  static inline std::shared_ptr<const ModelSource> source_;
  static inline std::vector<token::TokenId> tokens_;
};

TEST_F(PerplexitySlow, ExactPathAgreesWithTheIndependentProgram) {
  EXPECT_NEAR(run(MathPath::kExact, KvType::kF32), 67.6433, 0.0005);
}

TEST_F(PerplexitySlow, FastPathStaysClose) { EXPECT_NEAR(run(MathPath::kFast, KvType::kF16), 67.6433, 0.0005 * 67.6); }

}  // namespace
}  // namespace nibble::model
