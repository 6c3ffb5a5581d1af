// Every architecture: a rotated model is the same function, or is refused for the one reason there is.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/format.h"
#include "testing/logits.h"
#include "testing/program.h"
#include "testing/tiny_model.h"
#include "transform/fold.h"
#include "transform/rotate/rotated_rows.h"
#include "transform/rotate/rotation.h"
#include "transform/transform.h"

namespace nibble::transform {
namespace {

using model::ModelSource;
using model::Role;
using Source = std::shared_ptr<const ModelSource>;

const std::filesystem::path kData = std::filesystem::path(NIBBLE_SOURCE_DIR) / "src/model/testdata";
constexpr double kTolerance = 1e-5;
constexpr double kWorst = 3e-5;  // as of model/golden_test.cpp

// Norms behind a half, and of OPT's sizes the one with norms of sums.
bool is_refused(const model::ModelSpec& spec) {
  static const std::set<std::string> kArchitectures = {"gemma2", "gemma3", "olmo2"};
  return kArchitectures.contains(spec.arch) || (spec.arch == "opt" && spec.blocks[0].norm_sums);
}

class Rotate : public ::testing::TestWithParam<std::string> {
 protected:
  static void expect_same_function(const Source& source) {
    if (is_refused(source->spec())) return expect_refusal(source);
    if (rounds_inputs(*source)) GTEST_SKIP() << "inputs in another basis are rounded to other numbers";
    const Source rotated = choose("rotate").transform->apply_model(source, 3, "");
    const testing::LogitsError error = testing::compare_logits(testing::logits_of(rotated), testing::logits_of(source));
    RecordProperty("relative_error", format_text("{:.2e}, worst {:.2e}", error.relative, error.worst));
    EXPECT_LE(error.relative, kTolerance);
    EXPECT_LE(error.worst, kWorst);
    expect_other_weights(*source, *rotated);
    const Source online = choose("rotate:online").transform->apply_model(source, 3, "online");
    const testing::LogitsError mixed = testing::compare_logits(testing::logits_of(online), testing::logits_of(source));
    RecordProperty("online_relative_error", format_text("{:.2e}, worst {:.2e}", mixed.relative, mixed.worst));
    EXPECT_LE(mixed.relative, kTolerance);
    EXPECT_LE(mixed.worst, kWorst);
  }

  static bool rounds_inputs(const ModelSource& source) {
    for (std::size_t i = 0; i < source.spec().weights.size(); ++i) {
      if (source.weight(i).view.inputs.activation != nullptr) return true;
    }
    return false;
  }

  static void expect_refusal(const Source& source) {
    try {
      choose("rotate").transform->apply_model(source, 3, "");
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

TEST(Rotation, IsOrthogonalAndKeepsTheMeanWhereItShould) {
  using rotate::Rotation;
  for (const std::int64_t n : {16, 96, 86}) {
    for (const Rotation::Kind kind : {Rotation::Kind::kPlain, Rotation::Kind::kAny, Rotation::Kind::kKeepsMean}) {
      SCOPED_TRACE(n);
      const Rotation rotation(n, kind, 9);
      const auto size = static_cast<std::size_t>(n);
      std::vector<float> columns(size * size), rows, ones(size, 1.0f);
      for (std::size_t i = 0; i < size; ++i) columns[i * (size + 1)] = 1;
      rows = columns;
      rotation.rotate_rows(1, n, columns.data());  // R
      rotation.rotate_runs(n, rows.data());        // Rᵀ: each row R e_i
      double worst = 0;
      for (std::size_t i = 0; i < size; ++i) {
        for (std::size_t j = 0; j < size; ++j) {
          EXPECT_NEAR(columns[i * size + j], rows[j * size + i], 1e-6);
          double product = i == j ? -1 : 0;
          for (std::size_t c = 0; c < size; ++c)
            product += static_cast<double>(columns[i * size + c]) * columns[j * size + c];
          worst = std::max(worst, std::abs(product));
        }
      }
      EXPECT_LT(worst, 2e-6);
      rotation.rotate_runs(1, ones.data());
      double off = 0;
      for (const float value : ones) off = std::max(off, std::abs(static_cast<double>(value) - 1));
      EXPECT_EQ(off < 1e-5, kind == Rotation::Kind::kKeepsMean) << off;
    }
  }
}

TEST(Rotation, OneOutlierIsSpreadEvenly) {
  std::vector<float> x(4096);
  x[77] = 64;
  rotate::Rotation(4096, rotate::Rotation::Kind::kAny, 1).rotate_runs(1, x.data());
  for (const float value : x) EXPECT_NEAR(std::abs(value), 1, 1e-6);
}

// Rows read one by one are those that are read together, whatever was read in between.
TEST(RotatedRows, AreTheSameHoweverTheyAreRead) {
  const testing::TemporaryFolder folder;
  testing::write_tiny_model(folder.path(), testing::tiny_config("qwen2_moe"));
  const Source rotated = choose("rotate").transform->apply_model(ModelSource::open(folder.path()), 3, "");
  for (std::size_t slot = 0; slot < rotated->spec().weights.size(); ++slot) {
    const Shape& shape = rotated->spec().weights[slot].shape;
    const std::vector<float> whole = read_weight(*rotated, slot);
    std::vector<float> single(whole.size());
    for (std::int64_t row = shape.rows() - 1; row >= 0; --row)
      rotated->read_rows(slot, row, row + 1, single.data() + row * shape.cols());
    EXPECT_EQ(single, whole) << rotated->spec().weights[slot].hf_name;
  }
}

TEST(RotatedRows, DependOnTheSeedAlone) {
  const testing::TemporaryFolder folder;
  testing::write_tiny_model(folder.path(), testing::tiny_config("llama"));
  const Source source = ModelSource::open(folder.path());
  const auto query = [&](std::uint64_t seed) {
    const Source rotated = choose("rotate").transform->apply_model(source, seed, "");
    return read_weight(*rotated, slot_index(rotated->spec(), Role::kAttnQ, 0));
  };
  EXPECT_EQ(query(1), query(1));
  EXPECT_NE(query(1), query(2));
}

TEST(MatrixCache, KeepsWhatFitsAndMakesTheRestAnew) {
  rotate::MatrixCache cache(3 * 8 * sizeof(float));
  int made = 0;
  const auto get_matrix = [&](std::int64_t index) {
    return cache.get({&cache, index}, 8, [&](float* to) {
      std::fill_n(to, 8, static_cast<float>(index));
      ++made;
    });
  };
  for (const std::int64_t index : {0, 1, 2, 0}) EXPECT_EQ((*get_matrix(index))[7], static_cast<float>(index));
  EXPECT_EQ(made, 3);
  const auto held = get_matrix(0);
  get_matrix(3);  // the oldest, 1, goes
  get_matrix(2);
  EXPECT_EQ(made, 4);
  get_matrix(1);
  EXPECT_EQ(made, 5);
  get_matrix(4);
  get_matrix(5);
  EXPECT_EQ((*held)[0], 0);
  cache.forget(&cache);
  get_matrix(5);
  EXPECT_EQ(made, 8);
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
