// What the types of the cache do to logits.
#include "model/kv_cache.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "model/forward_test.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble::model {
namespace {

using CachedModel = TinyModelTest;

TEST_P(CachedModel, SmallerCachesStayClose) {
  const auto model = load(MathPath::kFast, runtime_);
  const Rows expected = run_alone(runtime_, *model, KvType::kF32, tokens_);
  const double scale = largest_logit(expected);
  // Where scores of experts are all but equal, a token takes another one for any rounding.
  const auto difference = [&](KvType kv) {
    const std::vector<double> sorted = differences(run_alone(runtime_, *model, kv, tokens_), expected);
    return source_->spec().blocks[0].experts.count > 0 ? sorted[sorted.size() / 2] : sorted.back();
  };
  EXPECT_LT(difference(KvType::kF16), 0.005 * scale);
  EXPECT_LT(difference(KvType::kQ8_0), 0.08 * scale);
  if (source_->spec().blocks[0].latent.kv_rank > 0) return;  // LatentsTakeEveryType has them
  EXPECT_LT(difference(KvType::kInt8), 0.08 * scale);
  EXPECT_LT(difference(KvType::kFp8), 0.4 * scale);
  EXPECT_LT(difference(KvType::kInt4), 0.8 * scale);
}

// Those that rotate need heads of whole runs of sixteen; others are refused, and the estimate of memory refuses as
// well.
TEST_P(CachedModel, RotatedCachesStayClose) {
  const auto model = load(MathPath::kExact, runtime_);
  const BlockSpec& block = source_->spec().blocks[0];
  if (block.head_dim % 16 != 0) {
    EXPECT_THROW(KvCache(model->spec(), KvType::kInt4H, 1, 100), Error);
    EXPECT_THROW(kv_cache_bytes(model->spec(), KvType::kInt4H, 100), Error);
    return;
  }
  const Rows expected = run_alone(runtime_, *model, KvType::kF32, tokens_);
  const auto difference = [&](KvType kv) {
    const std::vector<double> sorted = differences(run_alone(runtime_, *model, kv, tokens_), expected);
    return block.experts.count > 0 ? sorted[sorted.size() / 2] : sorted.back();
  };
  const double scale = largest_logit(expected);
  EXPECT_LT(difference(KvType::kInt8H), 0.08 * scale);
  EXPECT_LT(difference(KvType::kFp8H), 0.4 * scale);
  EXPECT_LT(difference(KvType::kInt4H), 0.8 * scale);
}

// The exact path takes every type, and with it rounds keys and values as the fast path does.
TEST_P(CachedModel, ExactPathShowsTheCache) {
  const auto model = load(MathPath::kExact, runtime_);
  const Rows expected = run_alone(runtime_, *model, KvType::kF32, tokens_);
  double before = 0;
  for (const KvType kv : {KvType::kF16, KvType::kInt8, KvType::kInt4}) {
    const std::vector<double> sorted = differences(run_alone(runtime_, *model, kv, tokens_), expected);
    EXPECT_GT(sorted[sorted.size() / 2], 2 * before) << kv_type_name(kv);
    before = sorted[sorted.size() / 2];
  }
}

// Types with fixed scales: the model must have those of the very type.
TEST_P(CachedModel, FixedScalesComeWithTheModel) {
  const auto model = load(MathPath::kExact, runtime_);
  for (const KvType kv : {KvType::kInt8Static, KvType::kFp8Static}) {
    ModelSpec spec = model->spec();
    EXPECT_THROW(KvCache(spec, kv, 1, 100), Error);
    spec.kv_type = kv;
    EXPECT_EQ(default_kv_type(spec, MathPath::kExact), kv);
    EXPECT_THROW(KvCache(spec, kv, 1, 100), Error);  // without scales
    for (BlockSpec& block : spec.blocks) block.k_scale = block.v_scale = 0.1f;
    KvCache cache(spec, kv, 1, static_cast<std::int64_t>(tokens_.size()));
    EXPECT_EQ(cache.bytes(), kv_cache_bytes(model->spec(), kv, cache.context()));
    const KvType other = kv == KvType::kInt8Static ? KvType::kFp8Static : KvType::kInt8Static;
    EXPECT_THROW(KvCache(spec, other, 1, 100), Error);
    spec.blocks.back().v_scale = 1e-9f;
    EXPECT_THROW(KvCache(spec, kv, 1, 100), Error);
    const Rows expected = run_alone(runtime_, *model, KvType::kF32, tokens_);
    const std::vector<double> sorted = differences(forward(runtime_, *model, cache, {{0, tokens_, 0}})[0], expected);
    EXPECT_LT(sorted[sorted.size() / 2], 0.4 * largest_logit(expected));
    EXPECT_GT(sorted[sorted.size() / 2], 0);
  }
}

TEST_P(CachedModel, TruncatedSequencesGoOnAsIfNothingHadBeen) {
  for (const auto& [path, kv] : {std::pair(MathPath::kExact, KvType::kF32),
                                 {MathPath::kFast, KvType::kInt8},
                                 {MathPath::kFast, KvType::kFp8},
                                 {MathPath::kFast, KvType::kInt4}}) {
    const auto model = load(path, runtime_, isa_of_any_batch());
    const Rows expected = run_alone(runtime_, *model, kv, tokens_);
    KvCache cache(model->spec(), kv, 1, 100);
    const auto other = random_tokens(3, 90, model->spec().vocab);
    const std::span<const TokenId> all = tokens_;
    forward(runtime_, *model, cache, {{0, all.first(40), 40}});
    forward(runtime_, *model, cache, {{0, std::span<const TokenId>(other).first(60), 0}});
    cache.truncate(0, 40);
    const Rows got = forward(runtime_, *model, cache, {{0, all.subspan(40), 0}})[0];
    EXPECT_LT(largest_difference(got, Rows(expected.begin() + 40, expected.end())), 1e-4) << kv_type_name(kv);
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, CachedModel, ::testing::ValuesIn(testing::tiny_variants()),
                         [](const auto& variant) { return variant.param.name; });

// Rotated part and latent have scales of their own where both are whole scale groups, as in every published model.
// Dense blocks: whom a token is routed to would hide what the cache does.
TEST(LatentCache, TakesEveryType) {
  json::Value config = testing::tiny_config("deepseek_v2");
  config.set("first_k_dense_replace", config.get("num_hidden_layers", 0));
  config.set("qk_rope_head_dim", 64);
  config.set("kv_lora_rank", 64);
  const testing::TemporaryFolder folder;
  testing::write_tiny_model(folder.path(), config);
  Runtime runtime{2};
  const auto model = Model::load(runtime.context, ModelSource::open(folder.path()), {MathPath::kExact, best_isa()});
  const auto tokens = random_tokens(1, 100, model->spec().vocab);
  const auto run = [&](KvType kv) {
    KvCache cache(model->spec(), kv, 1, 100);
    return forward(runtime, *model, cache, {{0, tokens, 0}})[0];
  };
  const Rows expected = run(KvType::kF32);
  const double scale = largest_logit(expected);
  for (const auto& [kv, part] : {std::pair(KvType::kF16, 0.005),
                                 {KvType::kQ8_0, 0.08},
                                 {KvType::kInt8, 0.08},
                                 {KvType::kInt8H, 0.08},
                                 {KvType::kFp8, 0.4},
                                 {KvType::kFp8H, 0.4},
                                 {KvType::kInt4, 0.8},
                                 {KvType::kInt4H, 0.8}})
    EXPECT_LT(largest_difference(run(kv), expected), part * scale) << kv_type_name(kv);
}

}  // namespace
}  // namespace nibble::model
