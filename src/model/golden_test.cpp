// The decoder against logits that transformers computed for tiny models of each architecture (testdata/,
// dev/golden/models.py).

#include "testing/golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "kernel/linear.h"
#include "model/model.h"
#include "model/rope.h"

namespace nibble::model {
namespace {

const std::filesystem::path kData = std::filesystem::path(NIBBLE_SOURCE_DIR) / "src/model/testdata";

constexpr double kTolerance = 3e-5;

struct Golden {
  std::vector<token::TokenId> tokens;
  std::vector<float> logits;  // (tokens, vocab)
};

class GoldenModel : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    source_ = ModelSource::open(kData / GetParam());
    const nibble::testing::GoldenFile file(kData / GetParam() / "golden.safetensors");
    golden_ = {file.values<token::TokenId>("tokens"), file.values<float>("logits")};
    ASSERT_EQ(golden_.tokens.size(), 80u);
  }

  // Logits of all tokens: the first `n_prompt` as one batch, the rest one by one from the cache.
  std::vector<float> run(const LoadOptions& options, KvType kv, std::size_t n_prompt) {
    const auto model = Model::load(context_, source_, options);
    const auto vocab = static_cast<std::size_t>(model->spec().vocab);
    KvCache cache(model->spec(), kv, 1, 80);
    std::vector<float> out;
    const auto sink = [&](std::size_t, std::int64_t, std::int64_t n, const float* logits) {
      out.insert(out.end(), logits, logits + static_cast<std::size_t>(n) * vocab);
    };
    const std::span<const token::TokenId> tokens = golden_.tokens;
    const Segment prompt = {0, tokens.first(n_prompt), 0};
    model->forward(context_, cache, {&prompt, 1}, sink);
    for (std::size_t i = n_prompt; i < tokens.size(); ++i) {
      const Segment one = {0, tokens.subspan(i, 1), 0};
      model->forward(context_, cache, {&one, 1}, sink);
    }
    return out;
  }

  bool inputs_are_rounded() const {
    const auto n = source_->spec().weights.size();
    for (std::size_t i = 0; i < n; ++i) {
      if (source_->weight(i).view.inputs.activation != nullptr) return true;
    }
    return false;
  }

  // Against the logit and the root mean square of all of them.
  void expect_close(const std::vector<float>& got, double tolerance) const {
    ASSERT_EQ(got.size(), golden_.logits.size());
    double square = 0;
    for (const float x : golden_.logits) square += static_cast<double>(x) * x;
    const double scale = std::sqrt(square / static_cast<double>(got.size()));
    const auto vocab = static_cast<std::size_t>(source_->spec().vocab);
    std::vector<double> worst(got.size() / vocab);  // of each token
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double reference = static_cast<double>(golden_.logits[i]);
      double& most = worst[i / vocab];
      most = std::max(most, std::abs(static_cast<double>(got[i]) - reference) / (std::abs(reference) + scale));
    }
    std::ranges::sort(worst);
    // Where a cache is rounded, a token whose scores of experts are all but equal takes another one.
    const bool routed = source_->spec().blocks.back().experts.count > 0 && tolerance > kTolerance;
    const double error = routed ? worst[worst.size() * 9 / 10] : worst.back();
    RecordProperty("relative_error", format_text("{:.2e}", error));
    // Of inputs that are rounded, one that lies between two codes may become either, and moves what follows.
    if (inputs_are_rounded()) {
      EXPECT_LE(worst[worst.size() / 2], tolerance);
    }
    EXPECT_LE(error, inputs_are_rounded() ? 5e-3 : tolerance);
  }

  ThreadPool pool_{2};
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_{pool_, cancel_, progress_};
  std::shared_ptr<const ModelSource> source_;
  Golden golden_;
};

TEST_P(GoldenModel, ExactPath) {
  for (const Isa isa : {Isa::kScalar, best_isa()})
    expect_close(run({MathPath::kExact, isa}, KvType::kF32, 80), kTolerance);
}

TEST_P(GoldenModel, CachedDecode) {
  const RopeSpec& rope = source_->spec().rope;
  const bool changes = rope.original_context < static_cast<std::int64_t>(golden_.tokens.size());
  if (!rope_is_fixed(rope) && changes) GTEST_SKIP() << "frequencies change with the length";
  expect_close(run({MathPath::kExact, best_isa()}, KvType::kF32, 64), kTolerance);
}

// Does a kernel round the inputs of some weight to 8 bits, be it for many tokens only?
bool rounds_inputs(const ModelSource& source, Isa isa) {
  for (std::size_t i = 0; i < source.spec().weights.size(); ++i) {
    const StoredRows& weight = source.weight(i);
    if (weight.entry == nullptr || weight.view.encoding->family == encoding::Family::kPlain) continue;
    for (const auto choose : {kernel::choose_linear, kernel::choose_wide}) {
      const auto* format =
          choose(*weight.view.encoding, weight.cols(), isa, weight.has_even_groups(), weight.view.inputs.activation)
              .activation;
      if (format->name != "f32") return true;
    }
  }
  return false;
}

TEST_P(GoldenModel, FastPath) {
  if (!rounds_inputs(*source_, Isa::kScalar))
    expect_close(run({MathPath::kFast, Isa::kScalar}, KvType::kF32, 80), kTolerance);
  // Rows of 32 numbers leave little to average rounding over.
  if (rounds_inputs(*source_, best_isa()))
    return expect_close(run({MathPath::kFast, best_isa()}, KvType::kF16, 80), 0.1);
  if (inputs_are_rounded()) return expect_close(run({MathPath::kFast, best_isa()}, KvType::kF32, 80), kTolerance);
  expect_close(run({MathPath::kFast, best_isa()}, KvType::kF16, 80), 2e-2);
}

// llama.cpp's own conversion of the model, where there is one: another row order, rope factors as a tensor, other
// names. It drops the window, so only the tokens before that matters are compared.
TEST_P(GoldenModel, ConvertedByLlamaCpp) {
  const auto path = kData / GetParam() / "model.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no GGUF file of this case";
  std::size_t n = golden_.tokens.size();
  for (const BlockSpec& block : source_->spec().blocks) {
    if (block.window > 0) n = std::min(n, static_cast<std::size_t>(block.window));
  }
  source_ = ModelSource::open(path);
  golden_.tokens.resize(n);
  golden_.logits.resize(n * static_cast<std::size_t>(source_->spec().vocab));
  expect_close(run({MathPath::kExact, best_isa()}, KvType::kF32, n), kTolerance);
  expect_close(run({MathPath::kFast, best_isa()}, KvType::kF16, n), 2e-2);
}

std::vector<std::string> cases() {
  std::vector<std::string> names;
  for (const auto& folder : std::filesystem::directory_iterator(kData)) {
    if (std::filesystem::exists(folder.path() / "golden.safetensors")) names.push_back(folder.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenModel, ::testing::ValuesIn(cases()), [](const auto& name) { return name.param; });

}  // namespace
}  // namespace nibble::model
