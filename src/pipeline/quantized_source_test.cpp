// Quantized Hugging Face folders through every command: a small model as FP8, against the same numbers as plain ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/exec_context.h"
#include "container/checkpoint.h"
#include "encoding/scaled.h"
#include "eval/tensor_error.h"
#include "json/json.h"
#include "nibble/evaluate.h"
#include "nibble/generate.h"
#include "nibble/inspect.h"
#include "nibble/quantize.h"
#include "testing/program.h"

namespace nibble {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using nibble::testing::TemporaryFolder;

namespace fs = std::filesystem;

const fs::path kRoot = NIBBLE_SOURCE_DIR;
const fs::path kModel = kRoot / "models/books-7m";

// A weight of the model as E4M3 codes and scales of blocks.
struct Fp8 {
  std::vector<std::byte> codes, scales;
};

Fp8 to_fp8(const TensorView& view, std::int64_t block) {
  const std::int64_t rows = view.rows(), cols = view.cols(), across = (cols + block - 1) / block;
  std::vector<float> weights(static_cast<std::size_t>(rows * cols));
  encoding::decode_rows(view, 0, rows, weights.data());
  std::vector<float> scales(static_cast<std::size_t>((rows + block - 1) / block * across));
  const auto scale_at = [&](std::int64_t i) -> float& {
    return scales[static_cast<std::size_t>(i / cols / block * across + i % cols / block)];
  };
  for (std::int64_t i = 0; i < rows * cols; ++i)
    scale_at(i) = std::max(scale_at(i), std::fabs(weights[static_cast<std::size_t>(i)]) / 448);
  for (std::int64_t i = 0; i < rows * cols; ++i) weights[static_cast<std::size_t>(i)] /= scale_at(i);
  Fp8 fp8 = {std::vector<std::byte>(weights.size()), std::vector<std::byte>(scales.size() * sizeof(float))};
  encoding::get("f8_e4m3").encode(weights.data(), fp8.codes.data(), rows * cols);
  std::memcpy(fp8.scales.data(), scales.data(), fp8.scales.size());
  return fp8;
}

class QuantizedSource : public ::testing::Test {
 protected:
  // Blocks of 96 leave partial ones at both edges of the model's matrices.
  void SetUp() override {
    fs::create_directories(fp8_);
    for (const auto& file : fs::directory_iterator(kModel)) {
      if (file.path().extension() != ".safetensors") fs::copy(file.path(), fp8_ / file.path().filename());
    }
    json::Value config = json::parse(read_file(kModel / "config.json"));
    config.set("quantization_config",
               json::Object{{"quant_method", "fp8"}, {"weight_block_size", json::Array{96, 96}}});
    write_file_atomically(fp8_ / "config.json", json::dump(config));
    const auto reader = container::open(kModel);
    std::vector<container::PlannedTensor> plan;
    std::vector<std::vector<std::byte>> contents;
    for (const container::TensorEntry& entry : reader->tensors()) {
      if (!entry.name.ends_with("_proj.weight")) {
        plan.push_back({entry.name, entry.view.encoding, entry.view.shape});
        contents.emplace_back(entry.view.data().begin(), entry.view.data().end());
        continue;
      }
      Fp8 fp8 = to_fp8(entry.view, 96);
      plan.push_back({entry.name, &encoding::get("f8_e4m3"), entry.view.shape});
      contents.push_back(std::move(fp8.codes));
      plan.push_back({entry.name + "_scale_inv", &encoding::get("f32"),
                      {(entry.view.rows() + 95) / 96, (entry.view.cols() + 95) / 96}});
      contents.push_back(std::move(fp8.scales));
    }
    const auto writer = container::create_hf_weights(fp8_, {}, plan, 3'000'000);
    for (std::size_t i = 0; i < plan.size(); ++i) writer->write(i, 0, contents[i]);
    writer->commit();
  }

  QuantizeReport convert(const std::string& output, const std::string& type) const {
    ConvertRequest request;
    request.input = fp8_;
    request.output = folder_ / output;
    request.type = type;
    return convert_model(request);
  }

  // The largest relative error of a weight of `candidate`.
  double worst_error(const fs::path& candidate) const {
    OwnedExecContext context(RunContext{});
    double worst = 0;
    for (const auto& error : eval::tensor_errors(*context, *model::ModelSource::open(fp8_),
                                                 *model::ModelSource::open(candidate)))
      worst = std::max(worst, error.relative_mse);
    return worst;
  }

  TemporaryFolder folder_;
  fs::path fp8_ = folder_ / "fp8";
};

TEST_F(QuantizedSource, ConvertsExactly) {
  const QuantizeReport gguf = convert("f32.gguf", "f32");
  EXPECT_EQ(worst_error(folder_ / "f32.gguf"), 0);
  EXPECT_THAT(gguf.notes, ::testing::IsEmpty());
  convert("plain", "f32");
  EXPECT_EQ(worst_error(folder_ / "plain"), 0);
  EXPECT_EQ(container::open(folder_ / "plain")->config().find("quantization_config"), nullptr);
  EXPECT_EQ(container::open(folder_ / "plain")->at("model.layers.0.mlp.up_proj.weight").view.encoding->name, "f32");
}

TEST_F(QuantizedSource, QuantizesAsThePlainNumbersDo) {
  convert("plain", "f32");
  QuantizeRequest request;
  for (const char* type : {"q8_0", "q4_k_m"}) {
    request.type = type;
    request.input = fp8_;
    request.output = folder_ / "a.gguf";
    const QuantizeReport report = quantize_model(request);
    EXPECT_THAT(report.notes, Contains(HasSubstr("quantized already (fp8-block96x96)")));
    request.input = folder_ / "plain";
    request.output = folder_ / "b.gguf";
    quantize_model(request);
    const auto a = container::open(folder_ / "a.gguf"), b = container::open(folder_ / "b.gguf");
    for (const container::TensorEntry& entry : b->tensors()) {
      const auto bytes = entry.view.data(), others = a->at(entry.name).view.data();
      EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), others.begin(), others.end())) << entry.name;
    }
  }
}

TEST_F(QuantizedSource, IsEvaluatedAndRun) {
  convert("plain", "f32");
  write_file_atomically(folder_ / "text.txt", read_file(kRoot / "text/books-calib.txt").substr(0, 20000));
  EvaluateRequest request;
  request.model = fp8_;
  request.text = folder_ / "text.txt";
  request.reference = folder_ / "plain";
  request.context = 32;
  request.chunks = 4;
  request.exact = true;
  request.tensors = true;
  request.energy = true;
  const json::Value report = json::parse(evaluate({}, request).json);
  EXPECT_EQ(report.at("kld_mean_exact").as_number(), 0);
  EXPECT_LT(report.at("kld_mean").as_number(), 1e-5);
  EXPECT_LT(report.at("bits_per_weight").as_number(), 10.5);  // and the embedding in bf16

  GenerateRequest generate;
  generate.prompt = "It was a";
  generate.max_tokens = 8;
  generate.temperature = 0;
  std::string text, plain;
  generate.model = fp8_;
  generate_text({}, generate, [&](std::string_view piece) { text += piece; });
  generate.model = folder_ / "plain";
  generate_text({}, generate, [&](std::string_view piece) { plain += piece; });
  EXPECT_EQ(text, plain);
}

TEST_F(QuantizedSource, IsInspected) {
  const InspectReport report = inspect_model({fp8_.string()});
  const auto found = std::ranges::find(report.tensors, "model.layers.0.mlp.up_proj.weight", &InspectedTensor::name);
  ASSERT_NE(found, report.tensors.end());
  EXPECT_EQ(found->type, "fp8-block96x96");
  EXPECT_EQ(found->bytes, static_cast<std::uint64_t>(found->shape[0] * found->shape[1]) +
                              static_cast<std::uint64_t>(4 * ((found->shape[0] + 95) / 96) * ((found->shape[1] + 95) / 96)));
  EXPECT_EQ(report.parameters, inspect_model({kModel.string()}).parameters);
}

TEST_F(QuantizedSource, NamesTheWeightThatIsNoNumber) {
  const auto reader = container::open(fp8_);
  const container::TensorEntry& entry = reader->at("model.layers.1.mlp.up_proj.weight");
  const fs::path file = reader->files()[static_cast<std::size_t>(entry.shard)];
  std::string bytes = read_file(file);
  bytes[entry.offset + 3 * static_cast<std::uint64_t>(entry.view.cols()) + 5] = '\x7F';
  write_file_atomically(file, bytes);
  const auto message = [&](auto&& call) {
    try {
      call();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message([&] { convert("out.gguf", "f32"); }), HasSubstr("blk.1.ffn_up.weight', row 3, column 5: the weight is NaN"));
  GenerateRequest generate;
  generate.model = fp8_;
  generate.prompt = "It";
  EXPECT_THAT(message([&] { generate_text({}, generate); }),
              HasSubstr("'model.layers.1.mlp.up_proj.weight': row 3 holds a weight or a scale that is NaN"));
}

}  // namespace
}  // namespace nibble
