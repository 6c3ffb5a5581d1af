// What tests of the forward pass share: logits of tiny models and how far apart they are.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "base/rng.h"
#include "model/model.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble::model {

using token::TokenId;

struct Runtime {
  explicit Runtime(int n_threads) : pool(n_threads) {}
  ThreadPool pool;
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
};

inline std::vector<TokenId> random_tokens(std::uint64_t stream, std::size_t n, std::int64_t vocab) {
  std::vector<TokenId> out(n);
  for (std::size_t i = 0; i < n; ++i)
    out[i] = static_cast<TokenId>(random_bits(9, stream, i) % static_cast<std::uint64_t>(vocab));
  return out;
}

using Rows = std::vector<std::vector<float>>;  // logits of each token of a segment

// Runs one batch; logits of each segment.
inline std::vector<Rows> forward(Runtime& runtime, const Model& model, KvCache& cache,
                                 const std::vector<Segment>& segments, ForwardObserver* observer = nullptr) {
  std::vector<Rows> out(segments.size());
  const auto vocab = static_cast<std::size_t>(model.spec().vocab);
  model.forward(
      runtime.context, cache, segments,
      [&](std::size_t segment, std::int64_t first, std::int64_t n, const float* logits) {
        EXPECT_EQ(first, segments[segment].logits_from + static_cast<std::int64_t>(out[segment].size()));
        for (std::int64_t i = 0; i < n; ++i) {
          const float* row = logits + static_cast<std::size_t>(i) * vocab;
          out[segment].emplace_back(row, row + vocab);
        }
      },
      observer);
  return out;
}

inline Rows forward_one(Runtime& runtime, const Model& model, KvCache& cache, const Segment& segment) {
  return std::move(forward(runtime, model, cache, {segment})[0]);
}

// The largest of each token, in ascending order.
inline std::vector<double> differences(const Rows& a, const Rows& b) {
  EXPECT_EQ(a.size(), b.size());
  std::vector<double> most(std::min(a.size(), b.size()));
  for (std::size_t i = 0; i < most.size(); ++i) {
    for (std::size_t j = 0; j < a[i].size(); ++j)
      most[i] = std::max(most[i], static_cast<double>(std::abs(a[i][j] - b[i][j])));
  }
  std::ranges::sort(most);
  return most;
}

inline double largest_difference(const Rows& a, const Rows& b) { return differences(a, b).back(); }

inline double largest_logit(const Rows& rows) {
  double most = 0;
  for (const auto& row : rows) most = std::max(most, static_cast<double>(std::abs(*std::ranges::max_element(row))));
  return most;
}

// The best set whose kernels give a token the same bits beside many others as alone: tiles of AMX take over where they
// are many.
inline Isa isa_of_any_batch() { return std::min(best_isa(), Isa::kAvx512); }

// A tiny model on disk and tokens for it.
class TinyModelTest : public ::testing::TestWithParam<testing::TinyVariant> {
 protected:
  void SetUp() override {
    testing::write_tiny_model(folder_.path(), GetParam().config);
    source_ = ModelSource::open(folder_.path());
    tokens_ = random_tokens(1, 100, source_->spec().vocab);
  }
  std::shared_ptr<const Model> load(MathPath path, Runtime& runtime, Isa isa = best_isa()) const {
    return Model::load(runtime.context, source_, {path, isa});
  }
  Rows run_alone(Runtime& runtime, const Model& model, KvType kv, std::span<const TokenId> tokens) const {
    KvCache cache(model.spec(), kv, 1, static_cast<std::int64_t>(tokens.size()));
    return forward(runtime, model, cache, {{0, tokens, 0}})[0];
  }

  testing::TemporaryFolder folder_;
  Runtime runtime_{2};
  std::shared_ptr<const ModelSource> source_;
  std::vector<TokenId> tokens_;
};

}  // namespace nibble::model
