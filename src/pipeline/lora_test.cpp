// Adapters through the commands: beside quantized bases, merged into files of every form.
#include "model/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/rng.h"
#include "container/checkpoint.h"
#include "encoding/encoding.h"
#include "model/source.h"
#include "nibble/evaluate.h"
#include "nibble/lora.h"
#include "nibble/quantize.h"
#include "pipeline/adapters.h"
#include "testing/logits.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using testing::TemporaryFolder;

const std::string kRoot = NIBBLE_SOURCE_DIR;
const std::string kBundled = kRoot + "/models/books-7m";

model::LoraAdapter adapter_of(const model::ModelSource& source, std::uint64_t seed, bool tables = false) {
  model::LoraAdapter adapter;
  std::uint64_t at = 0;
  for (const model::WeightSlot& slot : model::lora_spec(source).weights) {
    if (!model::takes_lora(slot) || (slot.layer < 0 && !tables)) continue;
    model::LoraPair pair = {slot.role, slot.layer, 2, 0.1, {}, {}};
    pair.a.resize(static_cast<std::size_t>(2 * slot.shape.cols()));
    pair.b.resize(static_cast<std::size_t>(2 * slot.shape.rows()));
    for (auto* half : {&pair.a, &pair.b}) {
      for (float& value : *half) value = static_cast<float>(random_bits(seed, 1, at++) % 2001) * 1e-3f - 1;
    }
    adapter.pairs.push_back(std::move(pair));
  }
  return adapter;
}

class LoraCommands : public ::testing::Test {
 protected:
  // A base of that type in a file or folder, and adapters of it: "a" as a folder, "b.gguf".
  void SetUp() override {
    const auto source = model::ModelSource::open(kBundled);
    model::save_lora(adapter_of(*source, 1), *source, folder_ / "a");
    model::save_lora(adapter_of(*source, 2), *source, folder_ / "b.gguf");
  }
  std::string quantized(const std::string& type, const std::string& name) const {
    QuantizeRequest request;
    request.input = kBundled;
    request.output = folder_ / name;
    request.type = type;
    request.method = "rtn";
    quantize_model(request);
    return request.output;
  }
  std::vector<std::string> adapters() const { return {folder_ / "a:0.5", folder_ / "b.gguf"}; }
  std::string merged(const std::string& base, const std::string& name, const std::string& type) const {
    ConvertRequest request;
    request.input = base;
    request.output = folder_ / name;
    request.type = type;
    request.adapters = adapters();
    convert_model(request);
    return request.output;
  }
  double perplexity(const std::string& model, const std::vector<std::string>& with) const {
    EvaluateRequest request;
    request.model = model;
    request.text = kRoot + "/text/books-eval.txt";
    request.context = 128;
    request.chunks = 3;
    request.exact = true;
    request.adapters = with;
    return json::parse(evaluate({}, request).json).at("perplexity_exact").as_number();
  }
  template <typename Body>
  static std::string message_of(Body&& body) {
    try {
      body();
    } catch (const Error& error) {
      return error.what();
    }
    return "(no error)";
  }

  TemporaryFolder folder_;
};

// What is added to a quantized base is added to its decoded numbers.
TEST_F(LoraCommands, BesideAQuantizedBaseAsMergedIntoItsNumbers) {
  for (const auto& [type, name] : {std::pair<std::string, std::string>("q4_k", "base.gguf"), {"nf4-dq", "base"}}) {
    SCOPED_TRACE(type);
    const std::string base = quantized(type, name);
    const double beside = perplexity(base, adapters()), without = perplexity(base, {});
    EXPECT_GT(std::abs(beside / without - 1), 0.01);
    EXPECT_NEAR(perplexity(merged(base, type + "-f32.gguf", "f32"), {}) / beside, 1, 1e-5);
    EXPECT_NEAR(perplexity(merged(base, type + "-f32", "f32"), {}) / beside, 1, 1e-5);
  }
}

// Straight into a quantized file it is the same file as by way of one in f32.
TEST_F(LoraCommands, MergedAndQuantizedInOneStep) {
  const auto quantize = [&](const std::string& input, const std::string& output, bool merge) {
    QuantizeRequest request;
    request.input = input;
    request.output = folder_ / output;
    request.type = "q4_k";
    if (merge) request.adapters = adapters();
    quantize_model(request);
    return container::open(request.output);
  };
  const auto once = quantize(kBundled, "once.gguf", true);
  const auto twice = quantize(merged(kBundled, "f32.gguf", "f32"), "twice.gguf", false);
  ASSERT_EQ(once->tensors().size(), twice->tensors().size());
  for (const container::TensorEntry& entry : once->tensors()) {
    const TensorView& other = twice->at(entry.name).view;
    EXPECT_EQ(entry.view.encoding, other.encoding);
    EXPECT_TRUE(std::ranges::equal(entry.view.data(), other.data())) << entry.name;
  }
}

// The type of a merged model is the base's 16-bit one unless one is asked for.
TEST_F(LoraCommands, WithoutATypeInSixteenBits) {
  for (const std::string name : {"merged", "merged.gguf"}) {
    const auto reader = container::open(merged(kBundled, name, ""));
    const auto matrix = std::ranges::find_if(reader->tensors(), [](const auto& t) { return t.view.shape.rank() == 2; });
    EXPECT_EQ(matrix->view.encoding->name, "bf16");
  }
}

// An embedding that is the head, too, changes alone: the merged model has a head of its own.
TEST_F(LoraCommands, ATiedEmbeddingIsUntied) {
  const auto source = model::ModelSource::open(kBundled);
  model::LoraAdapter tables = adapter_of(*source, 3, true);
  std::erase_if(tables.pairs, [](const auto& pair) { return pair.role != model::Role::kTokenEmbedding; });
  for (model::LoraPair& pair : tables.pairs) pair.scale = 0.1;
  model::save_lora(tables, *source, folder_ / "tables");
  const std::vector<std::string> with = {folder_ / "tables"};
  const double beside = perplexity(kBundled, with);
  EXPECT_GT(std::abs(beside / perplexity(kBundled, {}) - 1), 0.01);
  for (const std::string name : {"untied", "untied.gguf"}) {
    ConvertRequest request;
    request.input = kBundled;
    request.output = folder_ / name;
    request.type = "f32";
    request.adapters = with;
    convert_model(request);
    EXPECT_FALSE(model::ModelSource::open(request.output)->spec().tied);
    EXPECT_NEAR(perplexity(request.output, {}) / beside, 1, 1e-5);
  }
}

TEST_F(LoraCommands, ADescriptionAndTheOtherForm) {
  LoraRequest request{folder_ / "a", kBundled, folder_ / "a.gguf", true};
  EXPECT_THAT(describe_lora(request).text, HasSubstr("attn_q"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "a.gguf"));
  request.dry_run = false;
  const json::Value report = json::parse(describe_lora(request).json);
  EXPECT_EQ(report.at("pairs").as_int(), 56);
  EXPECT_EQ(container::open(folder_ / "a.gguf")->metadata().get_string("adapter.type"), "lora");
  EXPECT_NEAR(perplexity(kBundled, {folder_ / "a"}) / perplexity(kBundled, {folder_ / "a.gguf"}), 1, 1e-6);
}

// What is said of a size is that of what is added: of one number 0.5 * 2 * 3.
TEST_F(LoraCommands, TheSizeOfWhatIsAdded) {
  const auto source = model::ModelSource::open(kBundled);
  model::LoraAdapter one;
  const model::WeightSlot& slot = *source->spec().find(model::Role::kAttnV, 0);
  model::LoraPair pair = {slot.role, 0, 2, 0.5, {}, {}};
  pair.a.assign(static_cast<std::size_t>(2 * slot.shape.cols()), 0.0f);
  pair.b.assign(static_cast<std::size_t>(2 * slot.shape.rows()), 0.0f);
  pair.a[0] = 2;
  pair.b[0] = 3;
  one.pairs.push_back(pair);
  model::save_lora(one, *source, folder_ / "one");
  const json::Value report = json::parse(describe_lora({folder_ / "one", kBundled, {}, false}).json);
  const double expected = 3 / std::sqrt(static_cast<double>(slot.shape.elements()));
  EXPECT_NEAR(report.at("weights").as_array()[0].at("rms").as_number(), expected, 1e-9);
}

TEST_F(LoraCommands, ScalesStandBehindTheLastColon) {
  const auto source = model::ModelSource::open(kBundled);
  const auto scale = [&](const std::string& text) {
    return pipeline::load_adapters({{text}}, *source)[0].pairs[0].scale;
  };
  EXPECT_NEAR(scale(folder_ / "a"), 0.1, 1e-7);
  EXPECT_NEAR(scale(folder_ / "a:-2"), -0.2, 1e-7);
  std::filesystem::copy(folder_ / "a", folder_ / "a:3");  // the name of a folder is no scale
  EXPECT_NEAR(scale(folder_ / "a:3"), 0.1, 1e-7);
  EXPECT_NEAR(scale(folder_ / "a:3:0.5"), 0.05, 1e-7);
  EXPECT_THAT(message_of([&] { scale(folder_ / "a:inf"); }), HasSubstr("the scale of an adapter is a number"));
  EXPECT_THAT(message_of([&] { scale(folder_ / "none"); }), HasSubstr("none"));
}

TEST_F(LoraCommands, ARotatedBaseIsRefused) {
  QuantizeRequest request;
  request.input = kBundled;
  request.output = folder_ / "rotated";
  request.type = "int8-channel";
  request.method = "rtn";
  request.transforms = {"rotate:online"};
  quantize_model(request);
  EXPECT_THAT(message_of([&] { perplexity(request.output, adapters()); }), HasSubstr("are rotated"));
  EXPECT_THAT(message_of([&] { merged(request.output, "no", "f32"); }), HasSubstr("are rotated"));
}

}  // namespace
}  // namespace nibble
