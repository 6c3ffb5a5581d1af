// Every architecture: a rotated model is the same function, or is refused for the one reason there is.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/format.h"
#include "base/rng.h"
#include "model/model.h"
#include "testing/program.h"
#include "testing/tiny_model.h"
#include "transform/fold.h"
#include "transform/rotate/rotation.h"
#include "transform/transform.h"

namespace nibble::transform {
namespace {

using model::ModelSource;
using model::Role;
using Source = std::shared_ptr<const ModelSource>;

const std::filesystem::path kData = std::filesystem::path(NIBBLE_SOURCE_DIR) / "src/model/testdata";
constexpr double kTolerance = 1e-5;  // of all logits: root mean square of the difference over that of the logits
constexpr double kWorst = 3e-5;      // of one, against itself and the root mean square of all: as of model/golden_test

// Norms behind a half, and of OPT's sizes the one with norms of sums.
bool is_refused(const model::ModelSpec& spec) {
  static const std::set<std::string> kArchitectures = {"gemma2", "gemma3", "olmo2"};
  return kArchitectures.contains(spec.arch) || (spec.arch == "opt" && spec.blocks[0].norm_sums);
}

class Rotate : public ::testing::TestWithParam<std::string> {
 protected:
  static std::vector<float> logits_of(const Source& source) {
    ThreadPool pool(2);
    CancelToken cancel;
    NullProgress progress;
    ExecContext context{pool, cancel, progress};
    std::vector<token::TokenId> tokens;
    for (std::size_t i = 0; i < 40; ++i)
      tokens.push_back(
          static_cast<token::TokenId>(random_bits(5, 0, i) % static_cast<std::uint64_t>(source->spec().vocab)));
    const auto loaded = model::Model::load(context, source, {model::MathPath::kExact, best_isa()});
    model::KvCache cache(loaded->spec(), model::KvType::kF32, 1, 40);
    std::vector<float> out;
    const model::Segment segment = {0, tokens, 0};
    loaded->forward(context, cache, {&segment, 1}, [&](std::size_t, std::int64_t, std::int64_t n, const float* logits) {
      out.insert(out.end(), logits, logits + n * source->spec().vocab);
    });
    return out;
  }

  static void expect_close(const std::vector<float>& got, const std::vector<float>& expected) {
    ASSERT_EQ(got.size(), expected.size());
    double square = 0, difference = 0, worst = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double reference = static_cast<double>(expected[i]), off = static_cast<double>(got[i]) - reference;
      square += reference * reference;
      difference += off * off;
    }
    const double scale = std::sqrt(square / static_cast<double>(expected.size()));
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double reference = static_cast<double>(expected[i]);
      worst = std::max(worst, std::abs(static_cast<double>(got[i]) - reference) / (std::abs(reference) + scale));
    }
    RecordProperty("relative_error", format_text("{:.2e}, worst {:.2e}", std::sqrt(difference / square), worst));
    EXPECT_LE(std::sqrt(difference / square), kTolerance);
    EXPECT_LE(worst, kWorst);
  }

  static void expect_same_function(const Source& source) {
    if (is_refused(source->spec())) return expect_refusal(source);
    const Source rotated = get("rotate").apply_model(source, 3);
    expect_close(logits_of(rotated), logits_of(source));
    expect_other_weights(*source, *rotated);
  }

  static void expect_refusal(const Source& source) {
    try {
      get("rotate").apply_model(source, 3);
      FAIL() << "was rotated";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_NE(std::string(error.what()).find("scales the residual stream channel by channel"), std::string::npos);
    }
  }

  // All but what neither reads nor writes the stream; norms of it are 1.
  static void expect_other_weights(const ModelSource& source, const ModelSource& rotated) {
    const float one = source.spec().norm_add_one ? 1.0f : 0.0f;
    for (std::size_t i = 0; i < source.spec().weights.size(); ++i) {
      const model::WeightSlot& slot = source.spec().weights[i];
      const bool norm = slot.role == Role::kAttnNorm || slot.role == Role::kFfnNorm || slot.role == Role::kOutputNorm;
      if (slot.bias || (!norm && slot.shape.rank() < 2)) continue;
      const bool inner = slot.role == Role::kAttnQB || slot.role == Role::kAttnKB;
      const bool narrow = source.spec().embedding_size() != source.spec().hidden &&
                          (slot.role == Role::kTokenEmbedding || slot.role == Role::kOutput);
      const std::vector<float> before = read_weight(source, i), after = read_weight(rotated, i);
      EXPECT_EQ(before == after, inner || narrow) << slot.hf_name;
      if (!norm) continue;
      for (const float value : after) ASSERT_EQ(value + one, 1) << slot.hf_name;
    }
  }
};

class RotateVariants : public Rotate {};

TEST_P(RotateVariants, LeavesTheLogitsAsTheyAre) {
  const testing::TemporaryFolder folder;
  const auto variants = testing::tiny_variants();
  const auto variant = std::ranges::find(variants, GetParam(), &testing::TinyVariant::name);
  testing::write_tiny_model(folder.path(), variant->config);
  expect_same_function(ModelSource::open(folder.path()));
}

class RotateGolden : public Rotate {};

TEST_P(RotateGolden, LeavesTheLogitsAsTheyAre) {
  for (const char* file : {"", "model.gguf"}) {
    const auto path = *file == 0 ? kData / GetParam() : kData / GetParam() / file;
    if (std::filesystem::exists(path)) expect_same_function(ModelSource::open(path));
  }
}

std::vector<std::string> variants() {
  std::vector<std::string> out;
  for (const testing::TinyVariant& variant : testing::tiny_variants()) out.push_back(variant.name);
  return out;
}

std::vector<std::string> golden() {
  std::vector<std::string> names;
  for (const auto& folder : std::filesystem::directory_iterator(kData)) {
    if (std::filesystem::exists(folder.path() / "config.json")) names.push_back(folder.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

const auto name_of = [](const auto& test) {
  std::string name = test.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
};
INSTANTIATE_TEST_SUITE_P(Variants, RotateVariants, ::testing::ValuesIn(variants()), name_of);
INSTANTIATE_TEST_SUITE_P(Models, RotateGolden, ::testing::ValuesIn(golden()), name_of);

}  // namespace
}  // namespace nibble::transform
