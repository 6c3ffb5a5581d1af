#include "calib/collect.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/rng.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble::calib {
namespace {

class Collected : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    testing::write_tiny_model(folder_.path(), testing::tiny_config(GetParam()));
    source_ = model::ModelSource::open(folder_.path());
    chunks_.context = 24;
    chunks_.n_chunks = 3;
    for (std::size_t i = 0; i < 72; ++i) {
      const std::uint64_t bits = random_bits(5, 0, i);
      chunks_.tokens.push_back(static_cast<token::TokenId>(bits % static_cast<std::uint64_t>(source_->spec().vocab)));
    }
  }
  Imatrix collect(int n_threads, std::int64_t batch_tokens) const {
    ThreadPool pool(n_threads);
    CancelToken cancel;
    NullProgress progress;
    ExecContext context{pool, cancel, progress};
    const auto model = model::Model::load(context, source_, {model::MathPath::kExact, best_isa()});
    return collect_imatrix(context, *model, chunks_, batch_tokens);
  }

  testing::TemporaryFolder folder_;
  std::shared_ptr<const model::ModelSource> source_;
  TokenChunks chunks_;
};

TEST_P(Collected, EveryLinearIsThereAsPlanned) {
  const Imatrix imatrix = collect(2, 48), planned = planned_imatrix(source_->spec(), chunks_);
  ASSERT_EQ(imatrix.entries.size(), planned.entries.size());
  for (const auto& [name, entry] : imatrix.entries) {
    SCOPED_TRACE(name);
    ASSERT_NE(planned.find(name), nullptr);
    EXPECT_EQ(entry.sums.size(), planned.find(name)->sums.size());
    EXPECT_EQ(entry.counts.size(), planned.find(name)->counts.size());
    EXPECT_GT(std::accumulate(entry.sums.begin(), entry.sums.end(), 0.0), 0);
  }
}

TEST_P(Collected, TheSameForAnyThreadsAndBatches) {
  const Imatrix one = collect(1, 24), three = collect(3, 72);
  for (const auto& [name, entry] : one.entries) {
    EXPECT_EQ(three.find(name)->counts, entry.counts) << name;
    for (std::size_t i = 0; i < entry.sums.size(); ++i)
      EXPECT_NEAR(three.find(name)->sums[i], entry.sums[i], 1e-4 * (1 + entry.sums[i])) << name;
  }
}

// Each token enters as many experts as it is routed to, with the input that the router saw.
TEST_P(Collected, ExpertsShareTheTokens) {
  const model::ExpertSpec& experts = source_->spec().blocks[0].experts;
  if (experts.count == 0) GTEST_SKIP() << "no experts";
  const Imatrix imatrix = collect(2, 48);
  const ImatrixEntry& router = *imatrix.find("blk.0.ffn_gate_inp.weight");
  const ImatrixEntry& gate = *imatrix.find("blk.0.ffn_gate_exps.weight");
  EXPECT_EQ(imatrix.find("blk.0.ffn_up_exps.weight")->sums, gate.sums);
  EXPECT_EQ(imatrix.find("blk.0.ffn_down_exps.weight")->counts, gate.counts);
  EXPECT_EQ(std::accumulate(gate.counts.begin(), gate.counts.end(), std::int64_t{0}), router.counts[0] * experts.used);
  const std::size_t cols = router.sums.size();
  for (std::size_t c = 0; c < cols; ++c) {
    double sum = 0;
    for (std::size_t at = c; at < gate.sums.size(); at += cols) sum += gate.sums[at];
    EXPECT_NEAR(sum, router.sums[c] * experts.used, 1e-9 * sum);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Collected, ::testing::Values("llama", "qwen2_moe", "mixtral"),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace nibble::calib
