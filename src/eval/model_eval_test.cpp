// Evaluation of the bundled model: against itself, against a direct computation, and with weights rounded in memory.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/atomic_file.h"
#include "base/cpu.h"
#include "base/error.h"
#include "eval/energy.h"
#include "eval/layer_error.h"
#include "eval/measures.h"
#include "eval/requantize.h"
#include "eval/rounding_table.h"
#include "eval/score.h"
#include "eval/speed.h"
#include "eval/tensor_error.h"
#include "eval/token_score.h"
#include "eval/token_work.h"
#include "testing/program.h"
#include "testing/tiny_model.h"
#include "token/tokenizer.h"

namespace nibble::eval {
namespace {

using calib::TokenChunks;
using Kind = kernel::ProductKind;
using model::MathPath;
using SourcePtr = std::shared_ptr<const model::ModelSource>;

constexpr const char* kText =
    "It was a dark night, and the wind came over the moor from the sea. \"You had better stay here until the "
    "morning,\" "
    "said the old man, and he put another log on the fire. The traveller looked at the window, where the rain ran down "
    "the "
    "glass, and then at the face of his host; and he thought that he had never seen so much kindness in so few words. "
    "They "
    "sat for a long time without speaking, and the clock upon the wall was the only thing that seemed to be awake.";

class ModelEval : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    source_ = model::ModelSource::open(std::string(NIBBLE_SOURCE_DIR) + "/models/books-7m");
    tokenizer_ = token::make_tokenizer(source_->vocabulary());
    chunks_ = calib::chunk_text(*tokenizer_, kText, {.protocol = calib::Protocol::kLlamaCpp, .context = 24});
  }
  static void TearDownTestSuite() {
    source_.reset();
    tokenizer_.reset();
  }
  Contender contender(const SourcePtr& source, MathPath path = MathPath::kExact) {
    return {"contender", model::Model::load(context_, source, {.path = path, .isa = best_isa()}), model::KvType::kF32};
  }
  SourcePtr rounded(const char* encoding, method::Options options = {}) {
    return requantize(context_, source_, method::get("rtn"), encoding::get(encoding), options);
  }

  inline static SourcePtr source_;
  inline static std::unique_ptr<token::Tokenizer> tokenizer_;
  inline static TokenChunks chunks_;
  ThreadPool pool_{2};
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_{pool_, cancel_, progress_};
};

// The losses of both protocols, chunk by chunk and token by token.
std::vector<double> direct_losses(ExecContext& context, const model::Model& model, const TokenChunks& chunks) {
  std::vector<double> losses;
  for (std::int64_t i = 0; i < chunks.n_chunks; ++i) {
    model::KvCache cache(model.spec(), model::KvType::kF32, 1, chunks.context);
    const auto tokens = chunks.chunk(i);
    for (std::int64_t t = 0; t + 1 < chunks.context; ++t) {
      const model::Segment segment{0, tokens.subspan(static_cast<std::size_t>(t), 1), 0};
      model.forward(context, cache, {&segment, 1}, [&](std::size_t, std::int64_t, std::int64_t, const float* logits) {
        if (t < chunks.first_scored) return;
        const double log_sum = summarize_logits(logits, model.spec().vocab).log_sum;
        losses.push_back(log_sum - logits[tokens[static_cast<std::size_t>(t) + 1]]);
      });
    }
  }
  return losses;
}

TEST_F(ModelEval, BothProtocolsAgreeWithADirectComputation) {
  const std::vector<Contender> contenders = {contender(source_)};
  for (const calib::Protocol protocol : {calib::Protocol::kLlamaCpp, calib::Protocol::kWindow}) {
    const TokenChunks chunks = calib::chunk_text(*tokenizer_, kText, {protocol, 16, 4});
    const std::vector<double> expected = direct_losses(context_, *contenders[0].model, chunks);
    ASSERT_EQ(static_cast<std::int64_t>(expected.size()), chunks.scored());
    const ScoreTable table = score_chunks(context_, chunks, nullptr, contenders);
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(table.contenders[0].nll[i], expected[i], 2e-5) << i;
  }
}

TEST_F(ModelEval, ModelAgainstItselfIsAtNoDistance) {
  const Contender reference = contender(source_);
  const std::vector<Contender> contenders = {contender(source_)};
  const ScoreTable table = score_chunks(context_, chunks_, &reference, contenders);
  const Measures measures = measure(table.contenders[0], &table.reference);
  EXPECT_EQ(measures.distance->kld.mean, 0);
  EXPECT_EQ(measures.distance->kld_max, 0);
  EXPECT_EQ(measures.distance->top1.mean, 1);
  EXPECT_EQ(measures.distance->delta_p_rms, 0);
  EXPECT_EQ(measures.distance->ln_ppl_ratio.mean, 0);
  EXPECT_GT(measures.perplexity, 20);
  EXPECT_LT(measures.perplexity, 200);
}

TEST_F(ModelEval, StepsOfAnySizeGiveTheSameScores) {
  const Contender reference = contender(source_);
  const std::vector<Contender> contenders = {contender(rounded("int4-g64"))};
  const ScoreTable whole = score_chunks(context_, chunks_, &reference, contenders);
  // Room for the logits of five positions only, and two chunks a batch.
  const std::uint64_t row = static_cast<std::uint64_t>(source_->spec().vocab) * sizeof(float);
  const ScoreTable pieces =
      score_chunks(context_, chunks_, &reference, contenders, {.batch_tokens = 48, .logits_limit_bytes = 10 * row});
  ASSERT_EQ(pieces.contenders[0].kld.size(), whole.contenders[0].kld.size());
  for (std::size_t i = 0; i < whole.contenders[0].kld.size(); ++i) {
    EXPECT_NEAR(pieces.contenders[0].kld[i], whole.contenders[0].kld[i], 1e-5);
    EXPECT_NEAR(pieces.contenders[0].nll[i], whole.contenders[0].nll[i], 2e-5);
  }
}

TEST_F(ModelEval, TokensOutsideTheVocabularyAreRefused) {
  const std::vector<Contender> contenders = {contender(source_)};
  TokenChunks chunks = calib::cut_chunks(std::vector<token::TokenId>(16, 4096), -1, {.context = 16});
  EXPECT_THROW(score_chunks(context_, chunks, nullptr, contenders), Error);
}

TEST_F(ModelEval, TensorErrorsOfExactAndRoundedWeights) {
  for (const TensorError& error : tensor_errors(context_, *source_, *source_)) {
    EXPECT_EQ(error.relative_mse, 0) << error.name;
    EXPECT_EQ(error.snr_db, std::numeric_limits<double>::infinity());
    EXPECT_NEAR(error.cosine, 1, 1e-12);
  }
  const auto errors = tensor_errors(context_, *source_, *rounded("int8-channel"));
  std::size_t n_rounded = 0;
  for (const TensorError& error : errors) {
    if (error.encoding != "int8-channel") {
      EXPECT_EQ(error.relative_mse, 0) << error.name;
      continue;
    }
    ++n_rounded;
    // A row of 256 or 768 near-normal weights spans some 3 to 5 deviations: the step is about a thirtieth of one.
    EXPECT_GT(error.snr_db, 35) << error.name;
    EXPECT_LT(error.snr_db, 50) << error.name;
    EXPECT_GT(error.cosine, 0.9998);
    EXPECT_GT(error.max_abs, 0);
  }
  EXPECT_EQ(n_rounded, 8u * 7u);
}

TEST_F(ModelEval, ErrorsOverDepthStartFromNothing) {
  const Contender reference = contender(source_);
  for (const LayerError& error : layer_errors(context_, chunks_, reference, contender(source_))) {
    EXPECT_EQ(error.relative_error, 0) << error.layer;
  }
  const auto errors = layer_errors(context_, chunks_, reference, contender(rounded("int4-g128")));
  ASSERT_EQ(errors.size(), 9u);
  EXPECT_EQ(errors[0].layer, -1);
  EXPECT_EQ(errors[0].relative_error, 0);  // the embedding is not rounded
  for (std::size_t i = 1; i < errors.size(); ++i) {
    EXPECT_GT(errors[i].relative_error, 0.005) << i;
    EXPECT_LT(errors[i].relative_error, 0.5) << i;
    EXPECT_LT(errors[i].cosine, 1);
  }
}

TEST_F(ModelEval, RoundingRulesOrderAsTheyShould) {
  const TokenChunks chunks = calib::chunk_text(*tokenizer_, kText, {calib::Protocol::kLlamaCpp, 32, 2});
  const RoundingTable table =
      rounding_table(context_, source_, chunks, {.target = &encoding::get("int4-g128"), .draws = 2, .isa = best_isa()});
  ASSERT_EQ(table.stochastic.size(), 2u);
  const double nearest = table.nearest.distance->kld.mean;
  EXPECT_GT(nearest, 0);
  for (const Measures& draw : table.stochastic) {
    EXPECT_GT(draw.distance->kld.mean, nearest);
    EXPECT_LT(draw.distance->kld.mean, table.floor.distance->kld.mean);
    EXPECT_LT(draw.distance->kld.mean, table.ceil.distance->kld.mean);
  }
  EXPECT_NE(table.stochastic[0].distance->kld.mean, table.stochastic[1].distance->kld.mean);
  EXPECT_THROW(rounding_table(context_, source_, chunks, {.target = &encoding::get("int4-g128"), .draws = 0}), Error);
}

TEST_F(ModelEval, EnergyFollowsTheConstants) {
  const EnergyConstants constants;
  EXPECT_DOUBLE_EQ(mac_cost(encoding::get("f32"), constants).arithmetic, 4.6);
  EXPECT_DOUBLE_EQ(mac_cost(encoding::get("f16"), constants).arithmetic, 1.5);
  // 8 x 8 bits and one f32 multiply-add per 32 weights; q4_k: half the product.
  EXPECT_DOUBLE_EQ(mac_cost(encoding::get("q8_0"), constants).arithmetic, 0.2 + 0.1 + 4.6 / 32);
  EXPECT_DOUBLE_EQ(mac_cost(encoding::get("q4_k"), constants).arithmetic, 0.1 + 0.1 + 4.6 / 32);
  const TokenEnergy f32 = token_energy(*source_, &encoding::get("f32"), model::KvType::kF16, 256);
  const TokenEnergy q8 = token_energy(*source_, &encoding::get("q8_0"), model::KvType::kF16, 256);
  EXPECT_NEAR(f32.weights_dram, 7344384 * 640.0, 1e-3 * f32.weights_dram);  // 32 bits a weight, norms in bf16
  EXPECT_NEAR(q8.weights_dram / f32.weights_dram, 8.5 / 32, 1e-3);
  EXPECT_EQ(f32.kv_dram, q8.kv_dram);
  EXPECT_LT(q8.arithmetic, f32.arithmetic);
}

TEST_F(ModelEval, SpeedOfShortRuns) {
  const auto model = model::Model::load(context_, source_, {.path = MathPath::kFast, .isa = best_isa()});
  SpeedTrial trial(context_, *model, {.prompt = 8, .generate = 2, .depth = 600, .batch = 3});
  EXPECT_EQ(trial.decoded_tokens(), 6);
  for (int i = 0; i < 2; ++i) {
    EXPECT_GT(trial.prefill(), 0);
    EXPECT_GT(trial.decode(), 0);
  }
  EXPECT_THROW(SpeedTrial(context_, *model, {.prompt = 0, .generate = 0}), Error);
  EXPECT_THROW(SpeedTrial(context_, *model, {.batch = 0}), Error);
  const Rate rate = make_rate(10, {2.0, 1.0, 5.0});
  EXPECT_DOUBLE_EQ(rate.median_tok_s, 5);
  EXPECT_DOUBLE_EQ(rate.min_tok_s, 2);
  EXPECT_DOUBLE_EQ(rate.max_tok_s, 10);
}

// Weights that are numbers, yet too large to compute with.
TEST_F(ModelEval, OverflowIsNoMeasurement) {
  const testing::TemporaryFolder folder;
  testing::write_tiny_model(folder.path(), testing::tiny_config("llama"));
  const std::string name = "model.layers.0.input_layernorm.weight";
  const std::uint64_t at = model::ModelSource::open(folder.path())->reader().at(name).offset;
  std::string bytes = read_file(folder / "model.safetensors");
  const float huge = 3e38f;
  for (std::uint64_t i = 0; i < 8; ++i) std::memcpy(bytes.data() + at + i * sizeof(huge), &huge, sizeof(huge));
  write_file_atomically(folder / "model.safetensors", bytes);
  const Contender overflowing = contender(model::ModelSource::open(folder.path()));
  const auto refusal = [&](auto body) -> std::string {
    try {
      body();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kFormat);
      return error.what();
    }
    return "no error";
  };
  SpeedTrial trial(context_, *overflowing.model, {.prompt = 8, .generate = 2, .kv = model::KvType::kF32});
  for (double (SpeedTrial::*measure)() : {&SpeedTrial::prefill, &SpeedTrial::decode}) {
    const std::string text = refusal([&] { (trial.*measure)(); });
    EXPECT_NE(text.find("NaN or infinite"), std::string::npos) << text;
  }
  TokenChunks chunks = chunks_;
  for (token::TokenId& id : chunks.tokens) id %= 200;
  const std::string text = refusal([&] { layer_errors(context_, chunks, overflowing, overflowing); });
  EXPECT_NE(text.find("after block 0 are not finite"), std::string::npos) << text;
}

TEST_F(ModelEval, WorkOfAToken) {
  const TokenWork work = token_work(*source_, best_isa(), 1);
  const model::ModelSpec& spec = source_->spec();
  EXPECT_EQ(work.body[Kind::kInteger] + work.head[Kind::kInteger], 0);  // f32 kernels for a model in 16 bits
  EXPECT_EQ(work.head[Kind::kF32], static_cast<double>(spec.vocab * spec.hidden));
  EXPECT_EQ(work.weight_bytes, 2 * (work.body[Kind::kF32] + work.head[Kind::kF32]));
  const kernel::Roofline roofline{1, 1, 1, 4};
  EXPECT_DOUBLE_EQ(prefill_limit_seconds(work, 3, roofline), 2 * prefill_macs(work, 3) / 4);
}

TEST(TokenWork, CountsTheExpertsThatATokenUses) {
  nibble::testing::TemporaryFolder folder;
  nibble::testing::write_tiny_model(folder.path(), nibble::testing::tiny_config("qwen3_moe"));
  const auto source = model::ModelSource::open(folder.path());
  const TokenWork work = token_work(*source, best_isa(), 1);
  // Two blocks of four experts of 64, two used: three matrices of 96 columns each, in 16 bits.
  const double one = 3 * 64 * 96;
  EXPECT_EQ(work.expert_bytes, 2 * 4 * one * 2);
  EXPECT_EQ(work.expert_share, 0.5);
  EXPECT_EQ(work.body[Kind::kF32], work.weight_bytes / 2 - work.head[Kind::kF32] + 2 * 2 * one);
  EXPECT_EQ(step_bytes(work, 1), work.weight_bytes + work.expert_bytes / 2);
  EXPECT_EQ(step_bytes(work, 2), work.weight_bytes + work.expert_bytes * 0.75);
}

}  // namespace
}  // namespace nibble::eval
