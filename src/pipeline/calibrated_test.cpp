// Quantizing with a calibration text, from end to end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "container/checkpoint.h"
#include "encoding/encoding.h"
#include "model/source.h"
#include "nibble/evaluate.h"
#include "nibble/quantize.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using testing::TemporaryFolder;

const std::string kModel = std::string(NIBBLE_SOURCE_DIR) + "/models/books-7m";
const std::string kText = std::string(NIBBLE_SOURCE_DIR) + "/text/books-calib.txt";

QuantizeRequest request(const std::string& input, const std::string& output, const std::string& type) {
  QuantizeRequest r;
  r.input = input;
  r.output = output;
  r.type = type;
  r.calib = kText;
  r.calib_tokens = 1024;
  r.calib_context = 64;
  return r;
}

// A tiny model whose rows divide by 256.
std::string tiny(const TemporaryFolder& folder, const std::string& type) {
  json::Value config = testing::tiny_config(type);
  config.set("hidden_size", 256);
  config.set("intermediate_size", 512);
  config.set("head_dim", 64);
  config.set("num_attention_heads", 4);
  config.set("num_key_value_heads", 2);
  testing::write_tiny_model(folder / type, config);
  return folder / type;
}

std::string message_of(const QuantizeRequest& r) {
  try {
    quantize_model(r);
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

std::vector<std::byte> data_of(const container::TensorEntry& entry) {
  return {entry.view.data().begin(), entry.view.data().end()};
}

// GGUF or folder, one thread or three: the same numbers.
TEST(CalibratedSlow, TheSameFromFolderAndFileForAnyThreads) {
  const TemporaryFolder folder;
  const std::string model = tiny(folder, "llama");
  ConvertRequest convert;
  convert.input = model;
  convert.output = folder / "f32.gguf";
  convert.type = "f32";
  convert_model(convert);
  quantize_model(request(model, folder / "a.gguf", "q4_k_m"), {.threads = 1});
  quantize_model(request(convert.output, folder / "b.gguf", "q4_k_m"), {.threads = 3});
  const auto a = container::open(folder / "a.gguf"), b = container::open(folder / "b.gguf");
  ASSERT_EQ(a->tensors().size(), b->tensors().size());
  int quantized = 0;
  for (const container::TensorEntry& entry : a->tensors()) {
    const container::TensorEntry& other = b->at(entry.name);
    EXPECT_EQ(entry.view.encoding, other.view.encoding) << entry.name;
    EXPECT_EQ(data_of(entry), data_of(other)) << entry.name;
    quantized += entry.view.encoding->family == encoding::Family::kBlock ? 1 : 0;
  }
  EXPECT_GE(quantized, 15);
}

// Experts, latent attention, parallel halves, transposed weights.
TEST(CalibratedSlow, EveryKindOfBlock) {
  for (const std::string type : {"qwen2_moe", "deepseek_v3", "phi", "gpt2", "gpt_oss"}) {
    SCOPED_TRACE(type);
    const TemporaryFolder folder;
    testing::write_tiny_model(folder / "model", testing::tiny_config(type));
    QuantizeRequest r = request(folder / "model", folder / "out.gguf", "q4_0");
    r.method = "gptq";
    const QuantizeReport report = quantize_model(r);
    int solved = 0;
    for (const TensorReport& tensor : report.tensors) {
      solved += tensor.method == "gptq" ? 1 : 0;
      if (tensor.method == "gptq") {
        EXPECT_LT(tensor.relative_mse, 0.1) << tensor.name;
      }
    }
    EXPECT_GE(solved, 6);
    EXPECT_NO_THROW(model::ModelSource::open(folder / "out.gguf"));
  }
}

// Blocks tuned behind their solvers, and what comes of them runs.
TEST(CalibratedSlow, BlocksAreTuned) {
  struct Case {
    std::string model, method, type;
  };
  for (const auto& [model, method, type] : {Case{"llama", "autoround", "q4_0"}, {"qwen2_moe", "absorb", "int3-g32"}}) {
    SCOPED_TRACE(model);
    const TemporaryFolder folder;
    testing::write_tiny_model(folder / "model", testing::tiny_config(model));
    const std::string output = folder / (type == "q4_0" ? "out.gguf" : "out");
    QuantizeRequest r = request(folder / "model", output, type);
    r.method = method;
    r.calib_tokens = 512;
    r.calib_context = 32;
    int tuned = 0;
    for (const TensorReport& tensor : quantize_model(r).tensors) {
      tuned += tensor.note.find("block tuned in") != std::string::npos ? 1 : 0;
      EXPECT_LT(tensor.relative_mse, 0.2) << tensor.name;
    }
    EXPECT_GE(tuned, 10);
    EXPECT_NO_THROW(model::ModelSource::open(output));
  }
}

double divergence(const std::string& model) {
  EvaluateRequest r;
  r.model = model;
  r.reference = kModel;
  r.text = std::string(NIBBLE_SOURCE_DIR) + "/text/books-eval.txt";
  r.context = 256;
  r.chunks = 8;
  r.exact = true;
  return json::parse(evaluate({}, r).json).at("kld_mean_exact").as_number();
}

TEST(CalibratedSlow, GptqIsBetterThanSearchOnText) {
  const TemporaryFolder folder;
  QuantizeRequest gptq = request(kModel, folder / "gptq.gguf", "q3_k_s");
  gptq.calib_tokens = 8192;
  gptq.calib_context = 256;
  QuantizeRequest search = gptq;
  search.output = folder / "search.gguf";
  search.method = "search";
  quantize_model(gptq);
  quantize_model(search);
  EXPECT_LT(divergence(folder / "gptq.gguf"), 0.9 * divergence(folder / "search.gguf"));
}

TEST(Calibrated, BadCalibrationIsTold) {
  const TemporaryFolder folder;
  const std::string model = tiny(folder, "llama");
  const auto with_text = [&](const std::string& text) {
    write_file_atomically(folder / "text.txt", text);
    QuantizeRequest r = request(model, folder / "out.gguf", "q4_0");
    r.calib = folder / "text.txt";
    return r;
  };
  EXPECT_THAT(message_of(with_text("")), ::testing::HasSubstr("text.txt"));
  EXPECT_THAT(message_of(with_text("a")), ::testing::HasSubstr("text.txt"));
  EXPECT_THAT(message_of(with_text("shorter than a sequence")), ::testing::HasSubstr("text.txt"));
  QuantizeRequest none = request(model, folder / "out.gguf", "q4_0");
  none.calib.clear();
  none.method = "gptq";
  EXPECT_THAT(message_of(none), ::testing::HasSubstr("--calib"));
  QuantizeRequest both = request(model, folder / "out.gguf", "q4_0");
  both.imatrix = folder / "some.gguf";
  EXPECT_THAT(message_of(both), ::testing::HasSubstr("not both"));
  // One text over and over: the gram is singular, and what helps is damping.
  std::string same;
  for (int i = 0; i < 200; ++i) same += "a";
  EXPECT_EQ(message_of(with_text(same)), "(no error)");
}

}  // namespace
}  // namespace nibble
