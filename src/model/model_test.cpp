#include "model/model.h"

#include <gtest/gtest.h>

#include <map>

#include "base/atomic_file.h"
#include "base/error.h"
#include "model/forward_test.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble::model {
namespace {

using TinyModel = TinyModelTest;

TEST_P(TinyModel, SameBitsForAnyNumberOfThreads) {
  for (const auto& [path, kv] : {std::pair(MathPath::kExact, KvType::kF32), {MathPath::kFast, KvType::kF16}}) {
    Runtime one(1), three(3);
    const auto expected = run_alone(one, *load(path, one), kv, tokens_);
    EXPECT_EQ(run_alone(three, *load(path, three), kv, tokens_), expected);
  }
}

// Codes flip where the same numbers are not the same bits, so types with codes are met by the fast path.
TEST_P(TinyModel, DecodingFromTheCacheEqualsOneBatch) {
  for (const auto& [path, kv] : {std::pair(MathPath::kExact, KvType::kF32),
                                 {MathPath::kFast, KvType::kF16},
                                 {MathPath::kFast, KvType::kInt8},
                                 {MathPath::kFast, KvType::kFp8},
                                 {MathPath::kFast, KvType::kInt4}}) {
    const auto model = load(path, runtime_, isa_of_any_batch());
    const Rows expected = run_alone(runtime_, *model, kv, tokens_);
    KvCache cache(model->spec(), kv, 1, 100);
    Rows got;
    const std::span<const TokenId> all = tokens_;
    for (std::size_t done = 0; done < all.size();) {
      const std::size_t n = std::min<std::size_t>(done == 0 ? 37 : done < 60 ? 1 : 13, all.size() - done);
      for (auto& row : forward_one(runtime_, *model, cache, {0, all.subspan(done, n), 0}))
        got.push_back(std::move(row));
      done += n;
    }
    EXPECT_EQ(cache.length(0), 100);
    EXPECT_LT(largest_difference(got, expected), 1e-4);
  }
}

TEST_P(TinyModel, BatchOfSequencesEqualsEachAlone) {
  const auto model = load(MathPath::kFast, runtime_, isa_of_any_batch());
  KvCache cache(model->spec(), KvType::kF16, 3, 100);
  const auto other = random_tokens(2, 70, model->spec().vocab);
  const std::span<const TokenId> a = tokens_, b = other;
  forward(runtime_, *model, cache, {{2, a.first(30), 30}});
  const auto together = forward(runtime_, *model, cache, {{1, b, 0}, {2, a.subspan(30), 0}, {0, a.first(1), 0}});
  const Rows alone_a = run_alone(runtime_, *model, KvType::kF16, a);
  EXPECT_LT(largest_difference(together[0], run_alone(runtime_, *model, KvType::kF16, b)), 1e-4);
  EXPECT_LT(largest_difference(together[1], Rows(alone_a.begin() + 30, alone_a.end())), 1e-4);
  EXPECT_LT(largest_difference(together[2], Rows(alone_a.begin(), alone_a.begin() + 1)), 1e-4);
}

// Tokens that came by tiles and tokens that did not differ by roundings alone.
TEST_P(TinyModel, BatchesOfEverySizeStayClose) {
  const auto model = load(MathPath::kFast, runtime_);
  KvCache cache(model->spec(), KvType::kF32, 1, 100);
  Rows one_by_one;
  for (std::size_t i = 0; i < tokens_.size(); ++i)
    one_by_one.push_back(forward_one(runtime_, *model, cache, {0, std::span(tokens_).subspan(i, 1), 0})[0]);
  const std::vector<double> sorted = differences(one_by_one, run_alone(runtime_, *model, KvType::kF32, tokens_));
  EXPECT_LT(sorted[sorted.size() / 2], 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Variants, TinyModel, ::testing::ValuesIn(testing::tiny_variants()),
                         [](const auto& variant) { return variant.param.name; });

// One model is enough for the rest.
class OneModel : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::write_tiny_model(folder_.path(), testing::tiny_variants()[0].config);
    source_ = ModelSource::open(folder_.path());
    model_ = Model::load(runtime_.context, source_, {MathPath::kFast, best_isa()});
  }
  testing::TemporaryFolder folder_;
  Runtime runtime_{2};
  std::shared_ptr<const ModelSource> source_;
  std::shared_ptr<const Model> model_;
};

TEST_F(OneModel, LongBatchesAreCutIntoParts) {
  const auto tokens = random_tokens(4, 1200, model_->spec().vocab);
  const std::span<const TokenId> all = tokens;
  KvCache cache(model_->spec(), KvType::kF16, 2, 1200);
  const auto together = forward(runtime_, *model_, cache, {{0, all.first(300), 250}, {1, all, 500}});
  ASSERT_EQ(together[0].size(), 50u);
  ASSERT_EQ(together[1].size(), 700u);
  KvCache fresh(model_->spec(), KvType::kF16, 1, 1200);
  Rows alone;
  for (std::size_t done = 0; done < 1200; done += 400) {
    for (auto& row : forward_one(runtime_, *model_, fresh, {0, all.subspan(done, 400), 0}))
      alone.push_back(std::move(row));
  }
  EXPECT_LT(largest_difference(together[1], Rows(alone.begin() + 500, alone.end())), 1e-4);
  EXPECT_LT(largest_difference(together[0], Rows(alone.begin() + 250, alone.begin() + 300)), 1e-4);
}

class Recorder : public ForwardObserver {
 public:
  void linear_input(ExecContext& context, int layer, std::span<const Role> roles, const float* x, std::int64_t n,
                    std::int64_t cols) override {
    for (const Role role : roles) {
      auto& sums = inputs[{layer, role}];
      sums.resize(static_cast<std::size_t>(cols));
      context.pool.parallel_for(cols, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t c = begin; c < end; ++c) {
          for (std::int64_t t = 0; t < n; ++t) sums[static_cast<std::size_t>(c)] += std::abs(x[t * cols + c]);
        }
      });
    }
  }
  void block_output(ExecContext&, int layer, const float* x, std::int64_t n, std::int64_t hidden) override {
    outputs[layer].insert(outputs[layer].end(), x, x + n * hidden);
  }
  std::map<std::pair<int, Role>, std::vector<double>> inputs;
  std::map<int, std::vector<float>> outputs;
};

TEST_F(OneModel, ObserversSeeEveryLinearAndBlock) {
  const auto tokens = random_tokens(5, 40, model_->spec().vocab);
  KvCache cache(model_->spec(), KvType::kF32, 1, 40);
  Recorder recorder;
  const auto seen = forward(runtime_, *model_, cache, {{0, tokens, 30}}, &recorder)[0];
  const int layers = model_->spec().n_layers();
  EXPECT_EQ(recorder.inputs.size(), static_cast<std::size_t>(layers) * 7 + 1);
  for (const auto& [key, sums] : recorder.inputs) {
    const WeightSlot* slot = model_->spec().find(key.second, key.first);
    ASSERT_NE(slot, nullptr);
    EXPECT_EQ(static_cast<std::int64_t>(sums.size()), slot->shape.cols());
    for (const double sum : sums) EXPECT_GT(sum, 0);
  }
  ASSERT_EQ(recorder.outputs.size(), static_cast<std::size_t>(layers) + 1);
  for (const auto& [layer, x] : recorder.outputs)
    EXPECT_EQ(x.size(), 40u * static_cast<std::size_t>(model_->spec().hidden));
  std::vector<float> embedding(static_cast<std::size_t>(model_->spec().hidden));
  source_->read_rows(0, tokens[7], tokens[7] + 1, embedding.data());
  const auto row = recorder.outputs[-1].begin() + 7 * model_->spec().hidden;
  EXPECT_TRUE(std::equal(embedding.begin(), embedding.end(), row));
  // Watching changes nothing but, where the last block has fewer tokens without it, roundings.
  cache.truncate(0, 0);
  EXPECT_LT(largest_difference(forward(runtime_, *model_, cache, {{0, tokens, 30}})[0], seen), 1e-3);
}

TEST_F(OneModel, RefusesWhatIsOutOfRange) {
  KvCache cache(model_->spec(), KvType::kF16, 2, 16);
  const auto tokens = random_tokens(6, 17, model_->spec().vocab);
  const std::span<const TokenId> all = tokens;
  const TokenId bad[] = {3, static_cast<TokenId>(model_->spec().vocab)};
  const TokenId negative[] = {-1};
  const std::vector<std::vector<Segment>> batches = {
      {{0, all, 0}}, {{2, all.first(1), 0}}, {{-1, all.first(1), 0}},
      {{0, bad, 0}}, {{0, negative, 0}},     {{0, all.first(2), 0}, {0, all.first(2), 0}}};
  for (const auto& batch : batches) {
    try {
      forward(runtime_, *model_, cache, batch);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << error.what();
    }
    EXPECT_EQ(cache.length(0), 0);
  }
  forward(runtime_, *model_, cache, {{0, all.first(16), 16}});
  EXPECT_THROW(forward(runtime_, *model_, cache, {{0, all.first(1), 0}}), Error);
  EXPECT_EQ(cache.length(0), 16);
  EXPECT_THROW(cache.truncate(0, 17), Error);
  EXPECT_THROW(KvCache(model_->spec(), KvType::kF16, 0, 16), Error);
  ModelSpec other = model_->spec();
  other.blocks[0].head_dim *= 2;
  KvCache foreign(other, KvType::kF16, 1, 16);
  EXPECT_THROW(forward(runtime_, *model_, foreign, {{0, all.first(1), 0}}), Error);
  EXPECT_TRUE(forward(runtime_, *model_, cache, {{1, {}, 0}})[0].empty());
}

TEST_F(OneModel, BringsItsTokenizer) {
  const auto tokenizer = token::make_tokenizer(source_->vocabulary());
  const std::string text = "caf\xC3\xA9 1\n";
  std::vector<TokenId> expected;
  for (const char c : text) expected.push_back(static_cast<unsigned char>(c));
  EXPECT_EQ(tokenizer->encode(text), expected);
  EXPECT_EQ(tokenizer->decode(expected), text);
  EXPECT_EQ(tokenizer->vocabulary().eos, 257);
}

TEST_F(OneModel, CancelsBetweenBlocks) {
  KvCache cache(model_->spec(), KvType::kF16, 1, 16);
  const auto tokens = random_tokens(7, 4, model_->spec().vocab);
  runtime_.cancel.cancel();
  EXPECT_THROW(forward(runtime_, *model_, cache, {{0, tokens, 0}}), Error);
  EXPECT_EQ(cache.length(0), 0);
}

TEST_F(OneModel, EveryIsaComputesTheSame) {
  const auto tokens = random_tokens(8, 50, model_->spec().vocab);
  Rows expected;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa > machine_isa()) continue;
    const auto model = Model::load(runtime_.context, source_, {MathPath::kExact, isa});
    KvCache cache(model->spec(), KvType::kF32, 1, 50);
    const Rows got = forward(runtime_, *model, cache, {{0, tokens, 0}})[0];
    if (expected.empty()) expected = got;
    EXPECT_LT(largest_difference(got, expected), 1e-4);
  }
}

// Every path of loading, every weight: linears, a norm, an embedding that is looked up in the file, an untied head.
TEST(LoadErrors, NameTheTensorThatHoldsNaN) {
  testing::TemporaryFolder folder;
  json::Value config = testing::tiny_config("llama");
  config.set("tie_word_embeddings", false);
  testing::write_tiny_model(folder.path(), config);
  const std::filesystem::path file = folder.path() / "model.safetensors";
  const std::string sound = read_file(file);
  Runtime runtime(2);
  const auto error_with_nan_in = [&](const std::string& name, std::size_t value_bytes, const LoadOptions& options) {
    const auto source = ModelSource::open(folder.path());
    const TensorView& view = source->reader().at(name).view;
    const auto row = static_cast<std::uint64_t>(view.shape.rank() > 1 ? 5 * view.cols() : 0);
    const std::uint64_t at = source->reader().at(name).offset + (row + 3) * value_bytes;
    std::string bytes = sound;
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), value_bytes, '\x7F');  // 0x7F7F...: large, a number
    bytes[at + value_bytes - 2] = '\xFF';                                               // 0x7FFF...: NaN
    write_file_atomically(file, bytes);
    try {
      Model::load(runtime.context, ModelSource::open(folder.path()), options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kFormat);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  std::vector<LoadOptions> paths = {{MathPath::kExact, best_isa()}};
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= machine_isa()) paths.push_back({MathPath::kFast, isa});
  }
  for (const LoadOptions& path : paths) {
    for (const char* name : {"model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight", "lm_head.weight"}) {
      const std::string text = error_with_nan_in(name, 2, path);
      EXPECT_NE(text.find(folder.path().string() + ": tensor '" + name + "': row 5 "), std::string::npos) << text;
      EXPECT_NE(text.find("NaN"), std::string::npos) << text;
    }
    const std::string text = error_with_nan_in("model.norm.weight", 4, path);
    EXPECT_NE(text.find("tensor 'model.norm.weight' holds a value that is NaN"), std::string::npos) << text;
  }
}

TEST(ModelSourceErrors, NameTheTensor) {
  testing::TemporaryFolder folder;
  json::Value config = testing::tiny_variants()[0].config;
  testing::write_tiny_model(folder.path(), config);
  const auto error_of = [&](const char* key, const json::Value& value) {
    json::Value changed = config;
    changed.set(key, value);
    write_file_atomically(folder.path() / "config.json", json::dump(changed));
    try {
      ModelSource::open(folder.path());
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(error_of("intermediate_size", 192).find("model.layers.0.mlp.gate_proj.weight"), std::string::npos);
  EXPECT_NE(error_of("num_hidden_layers", 3).find("model.layers.2."), std::string::npos);
  EXPECT_NE(error_of("model_type", "gizmo").find("gizmo"), std::string::npos);
  for (const char* scheme : {"hqq", "aqlm", "eetq", "modelopt"}) {
    const std::string text = error_of("quantization_config", json::Object{{"quant_method", scheme}});
    EXPECT_NE(text.find("'quantization_config' of method '" + std::string(scheme) + "'"), std::string::npos) << text;
  }
  EXPECT_NE(error_of("quantization_config", json::Object{}).find("of method 'unknown'"), std::string::npos);
  EXPECT_EQ(error_of("quantization_config", json::Value()), "no error");
  EXPECT_EQ(error_of("quantization_config", json::Object{{"quant_method", "fp8"}}), "no error");  // its plain tensors
  EXPECT_NE(error_of("attention_bias", true).find("bias"), std::string::npos);
}

}  // namespace
}  // namespace nibble::model
