// Folders of integer weights through every command: written, read, run, measured, converted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/exec_context.h"
#include "container/checkpoint.h"
#include "encoding/encoding.h"
#include "eval/tensor_error.h"
#include "json/json.h"
#include "model/source.h"
#include "nibble/evaluate.h"
#include "nibble/generate.h"
#include "nibble/inspect.h"
#include "nibble/quantize.h"
#include "testing/program.h"

namespace nibble {
namespace {

using nibble::testing::TemporaryFolder;
using ::testing::Contains;
using ::testing::HasSubstr;

namespace fs = std::filesystem;

const fs::path kModel = fs::path(NIBBLE_SOURCE_DIR) / "models/books-7m";
const std::string kLinear = "model.layers.3.mlp.down_proj.weight";

class QuantizedFolders : public ::testing::Test {
 protected:
  QuantizeReport quantize(const fs::path& input, const std::string& output, const std::string& type,
                          const std::string& format = "") const {
    QuantizeRequest request;
    request.input = input;
    request.output = folder_ / output;
    request.type = type;
    request.format = format;
    request.method = "rtn";
    return quantize_model(request);
  }
  QuantizeReport convert(const std::string& input, const std::string& output, const std::string& type) const {
    ConvertRequest request;
    request.input = folder_ / input;
    request.output = folder_ / output;
    request.type = type;
    return convert_model(request);
  }
  std::string fault(const std::string& output, const std::string& type, const std::string& format = "") const {
    try {
      quantize(kModel, output, type, format);
    } catch (const Error& error) {
      EXPECT_FALSE(fs::exists(folder_ / output));
      return error.what();
    }
    ADD_FAILURE() << "no Error was thrown";
    return "";
  }
  double worst_error(const std::string& reference, const std::string& candidate) const {
    OwnedExecContext context(RunContext{});
    double worst = 0;
    for (const auto& error : eval::tensor_errors(*context, *model::ModelSource::open(folder_ / reference),
                                                 *model::ModelSource::open(folder_ / candidate)))
      worst = std::max(worst, error.relative_mse);
    return worst;
  }
  std::string type_of(const std::string& folder, const std::string& tensor = kLinear) const {
    return container::open(folder_ / folder)->at(tensor).view.encoding->name;
  }
  static const TensorReport& report_of(const QuantizeReport& report, const std::string& hf_name) {
    return *std::ranges::find(report.tensors, hf_name, &TensorReport::hf_name);
  }

  TemporaryFolder folder_;
};

TEST_F(QuantizedFolders, HoldWhatWasMadeInEveryFormat) {
  struct Case {
    const char *format, *type, *stored;
  };
  const Case cases[] = {{"compressed-tensors", "int4-g128", "int4-g128-bf16"},
                        {"compressed-tensors", "int3-channel-asym", "int3-channel-asym-bf16"},
                        {"compressed-tensors", "int8-tensor", "int8-tensor-bf16"},
                        {"gptq", "int4-g128", "int4-g128-f16"},
                        {"gptq", "int2-g64-asym", "int2-g64-asym-f16"},
                        {"gptq_v2", "int3-g128-asym", "int3-g128-asym-f16"},
                        {"awq", "int4-g64-asym", "int4-g64-asym-f16"},
                        {"fp8", "fp8-block128", "fp8-block128x128"},
                        {"fp8", "fp8-block128-e8m0", "fp8-block128x128-e8m0"},
                        {"compressed-tensors", "fp8-tensor", "fp8-tensor-bf16"},
                        {"compressed-tensors", "fp8-channel", "fp8-channel-bf16"},
                        {"compressed-tensors", "fp8-block64x32", "fp8-block64x32-bf16"},
                        {"compressed-tensors", "mxfp8", "mxfp8"},
                        {"compressed-tensors", "mxfp4", "mxfp4-hf"},
                        {"compressed-tensors", "nvfp4", "nvfp4-hf"},
                        {"nibble", "fp8-block128-e5m2", "fp8-block128x128-e5m2"},
                        {"nibble", "int5-tensor-asym", "int5-tensor-asym"},
                        {"nibble", "kmeans3-channel", "kmeans3-channel"}};
  for (const Case& each : cases) {
    SCOPED_TRACE(std::string(each.format) + " " + each.type);
    const std::string name = std::string(each.format) + each.type;
    const QuantizeReport report = quantize(kModel, name, each.type, each.format);
    EXPECT_EQ(report_of(report, kLinear).type, each.stored);
    EXPECT_GT(report_of(report, kLinear).snr_db, 4);
    EXPECT_EQ(report_of(report, "model.embed_tokens.weight").type, "bf16");
    EXPECT_EQ(type_of(name), each.stored);
    EXPECT_TRUE(fs::exists(folder_ / name + "/tokenizer.model"));
    convert(name, name + ".gguf", "f32");
    EXPECT_EQ(worst_error(name, name + ".gguf"), 0);
  }
  EXPECT_TRUE(fs::exists(folder_ / "gptqint4-g128/quantize_config.json"));
}

TEST_F(QuantizedFolders, RunAndAreMeasured) {
  quantize(kModel, "q", "int4-g64", "gptq");
  const InspectReport inspected = inspect_model({folder_ / "q"});
  EXPECT_EQ(inspected.notes.size(), 0u);
  EXPECT_LT(inspected.bits_per_weight, 7);
  GenerateRequest generate;
  generate.model = folder_ / "q";
  generate.prompt = "It was";
  generate.max_tokens = 8;
  std::string text;
  generate_text({}, generate, [&](std::string_view piece) { text += piece; });
  EXPECT_GT(text.size(), 8u);
  EvaluateRequest request;
  request.model = folder_ / "q";
  request.reference = kModel;
  request.tensors = true;
  const json::Value report = json::parse(evaluate({}, request).json);
  EXPECT_THAT(json::dump(report), HasSubstr("down_proj"));
}

TEST_F(QuantizedFolders, OfSmallFloatsAreMeasured) {
  for (const char* type : {"fp8-block128", "mxfp4", "nvfp4"}) {
    SCOPED_TRACE(type);
    quantize(kModel, type, type);
    EvaluateRequest request;
    request.model = folder_ / type;
    request.text = folder_ / "text";
    request.chunks = 1;
    request.context = 32;
    request.reference = kModel;
    write_file_atomically(request.text,
                          "The old man and the sea went out together, as they had done every morning of their "
                          "lives, and nobody in the village asked them why or when they would be back.");
    const json::Value report = json::parse(evaluate({}, request).json);
    EXPECT_THAT(json::dump(report), HasSubstr("perplexity"));
    EXPECT_EQ(inspect_model({folder_ / type}).notes.size(), 0u);
  }
}

// A block type of GGUF is one of several parts in a folder, and either becomes the other without loss.
TEST_F(QuantizedFolders, Mxfp4IsTheSameInBothForms) {
  const std::string rotated = "model.layers.0.self_attn.q_proj.weight";  // its rows lie in another order there
  quantize(kModel, "parts", "mxfp4");
  const QuantizeReport file = quantize(folder_ / "parts", "file.gguf", "mxfp4");
  const QuantizeReport again = quantize(folder_ / "file.gguf", "again", "mxfp4");
  const auto before = container::open(folder_ / "parts"), after = container::open(folder_ / "again");
  for (const std::string& name : {kLinear, rotated}) {
    EXPECT_EQ(report_of(file, name).type, "mxfp4");
    EXPECT_EQ(report_of(file, name).method, "repack");
    EXPECT_EQ(report_of(file, name).relative_mse, 0);
    EXPECT_EQ(report_of(again, name).method, "repack");
    const TensorView &a = before->at(name).view, &b = after->at(name).view;
    EXPECT_EQ(a.encoding->name, "mxfp4-hf");
    EXPECT_EQ(b.encoding, a.encoding);
    for (const PartRole role : {PartRole::kCodes, PartRole::kScales})
      EXPECT_TRUE(std::ranges::equal(a.part(role).bytes, b.part(role).bytes)) << name;
  }
}

// Of the one name a folder has nvfp4-hf, whose matrices have a scale each, and a file GGML's blocks, which do not.
TEST_F(QuantizedFolders, Nvfp4HasAFormOfItsOwnInFiles) {
  quantize(kModel, "parts", "nvfp4");
  EXPECT_EQ(container::open(folder_ / "parts")->at(kLinear).view.encoding->name, "nvfp4-hf");
  const QuantizeReport file = quantize(kModel, "file.gguf", "nvfp4");
  EXPECT_EQ(report_of(file, kLinear).type, "nvfp4");
  EXPECT_EQ(report_of(file, kLinear).method, "rtn");
  const auto written = container::open(folder_ / "file.gguf"), source = container::open(kModel);
  EXPECT_EQ(written->metadata().get_int("general.file_type"), 39);
  const TensorView &view = written->at("blk.3.ffn_down.weight").view, &weights = source->at(kLinear).view;
  std::vector<float> values(static_cast<std::size_t>(weights.shape.elements()));
  encoding::decode_rows(weights, 0, weights.rows(), values.data());
  std::vector<std::byte> expected(view.data().size());
  view.encoding->encode(values.data(), expected.data(), std::ssize(values));
  EXPECT_TRUE(std::ranges::equal(view.data(), expected));
  EvaluateRequest request;
  request.model = folder_ / "file.gguf";
  request.reference = kModel;
  request.text = fs::path(NIBBLE_SOURCE_DIR) / "text/books-eval.txt";
  request.chunks = 2;
  request.context = 64;
  const double kld = json::parse(evaluate({}, request).json).at("kld_mean").as_number();
  EXPECT_GT(kld, 1e-4);
  EXPECT_LT(kld, 2e-2);
}

TEST_F(QuantizedFolders, FilesWithScalesBesideAWeightAreRefused) {
  quantize(kModel, "file.gguf", "nvfp4");
  const auto file = container::open(folder_ / "file.gguf");
  std::vector<container::PlannedTensor> plan;
  for (const container::TensorEntry& entry : file->tensors())
    plan.push_back({entry.name, entry.view.encoding, entry.view.shape});
  plan.push_back({"blk.3.ffn_down.scale", &encoding::get("f32"), {1}});
  const auto writer = container::create_gguf(folder_ / "scaled.gguf", file->metadata(), plan);
  for (std::size_t i = 0; i + 1 < plan.size(); ++i) writer->write(i, 0, file->tensors()[i].view.data());
  const float scale = 0.5f;
  writer->write(plan.size() - 1, 0, std::as_bytes(std::span(&scale, 1)));
  writer->commit();
  EXPECT_NO_THROW(model::ModelSource::open(folder_ / "file.gguf"));
  try {
    model::ModelSource::open(folder_ / "scaled.gguf");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("'blk.3.ffn_down.weight' is scaled by 'blk.3.ffn_down.scale'"));
  }
}

TEST_F(QuantizedFolders, OfFp8TakeCodesOver) {
  quantize(kModel, "fp8", "fp8-block128", "fp8");
  const QuantizeReport again = quantize(folder_ / "fp8", "ct", "fp8-block128", "compressed-tensors");
  EXPECT_EQ(report_of(again, kLinear).method, "copy");
  EXPECT_EQ(type_of("ct"), "fp8-block128x128");
  EXPECT_EQ(worst_error("fp8", "ct"), 0);
}

TEST_F(QuantizedFolders, TakeCodesOverFromEachOther) {
  quantize(kModel, "gptq", "int4-g64-asym", "gptq");
  const QuantizeReport again = quantize(folder_ / "gptq", "ct", "int4-g64-asym", "compressed-tensors");
  EXPECT_EQ(report_of(again, kLinear).method, "copy");
  EXPECT_EQ(type_of("ct"), "int4-g64-asym-f16");
  EXPECT_EQ(worst_error("gptq", "ct"), 0);
  quantize(folder_ / "ct", "awq", "int4-g64-asym", "awq");
  EXPECT_EQ(worst_error("gptq", "awq"), 0);
}

TEST_F(QuantizedFolders, RefuseWhatCannotBe) {
  EXPECT_THAT(fault("x.gguf", "int4-g128"), HasSubstr("type 'int4-g128' cannot be written to '"));
  EXPECT_THAT(fault("x.gguf", "int4-g128"),
              HasSubstr("it can be written as: compressed-tensors, gptq, gptq_v2, awq, nibble (name a folder)"));
  EXPECT_THAT(fault("x.gguf", "fp8-channel"),
              HasSubstr("it can be written as: compressed-tensors, nibble (name a folder)"));
  EXPECT_THAT(fault("x", "fp8-block128-e5m2", "fp8"), HasSubstr("it can be written as: nibble"));
  EXPECT_THAT(fault("x", "fp8-block", "fp8"), HasSubstr("type 'fp8-block'"));
  EXPECT_THAT(fault("x", "q4_k_m"), HasSubstr("it can be written as: gguf (name a .gguf file)"));
  EXPECT_THAT(
      fault("x", "int5-g64", "gptq"),
      HasSubstr("type 'int5-g64' cannot be written as 'gptq'; it can be written as: compressed-tensors, nibble"));
  EXPECT_THAT(fault("x", "int4-g64", "exl3"), HasSubstr("no format 'exl3'; there are: gguf, fp8, compressed-tensors"));
  EXPECT_THAT(fault("x", "int4-g100", "awq"), HasSubstr("has no linears that 'awq' could hold as int4-g100-f16"));
  EXPECT_THAT(fault("x", "int4-g64-gidx", "awq"), HasSubstr("cannot be written as 'awq'"));
}

TEST_F(QuantizedFolders, NameTheTensorWithAScaleThatIsNone) {
  quantize(kModel, "q", "int4-g64", "gptq");
  const fs::path file = folder_ / "q/model.safetensors";
  std::string bytes = read_file(file);
  const auto reader = container::open(file);
  const container::TensorEntry& scales = reader->at("model.layers.3.mlp.down_proj.scales");
  const std::uint16_t nan = 0x7E00;
  std::memcpy(bytes.data() + scales.offset + 6, &nan, 2);
  write_file_atomically(file, bytes);
  GenerateRequest generate;
  generate.model = folder_ / "q";
  generate.prompt = "It was";
  try {
    generate_text({}, generate);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("tensor 'model.layers.3.mlp.down_proj.weight': row 3: the scale of group 0"));
  }
  try {
    convert("q", "x.gguf", "f16");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("row 3, column 0: the weight is NaN"));
  }
  std::string cut = bytes.substr(0, bytes.size() - 100);
  write_file_atomically(file, cut);
  EXPECT_THROW(inspect_model({folder_ / "q"}), Error);
}

// --- bridges

TEST_F(QuantizedFolders, BecomeBlocksOfGgufWithoutLoss) {
  const auto bridge = [&](const std::string& format, const std::string& type, const std::string& block) {
    SCOPED_TRACE(format + " " + type + " to " + block);
    const std::string name = format + type;
    quantize(kModel, name, type, format);
    const QuantizeReport report = quantize(folder_ / name, name + block + ".gguf", block);
    const TensorReport& linear = report_of(report, kLinear);
    EXPECT_EQ(linear.method, "repack");
    EXPECT_EQ(linear.type, block);
    EXPECT_EQ(report_of(report, "model.layers.0.self_attn.q_proj.weight").method, "repack");
    return linear;
  };
  EXPECT_EQ(bridge("gptq", "int4-g64", "q4_0").relative_mse, 0);
  EXPECT_EQ(bridge("compressed-tensors", "int4-g128", "q4_0").relative_mse, 0);
  EXPECT_EQ(bridge("compressed-tensors", "int8-channel", "q8_0").relative_mse, 0);
  EXPECT_EQ(bridge("nibble", "int5-channel-f16", "q5_0").relative_mse, 0);
  // Minima are rounded to f16.
  const TensorReport rounded = bridge("awq", "int4-g64-asym", "q4_1");
  EXPECT_GT(rounded.relative_mse, 0);
  EXPECT_LT(rounded.relative_mse, 1e-6);
  EXPECT_THAT(rounded.note, HasSubstr("minima rounded to f16"));
  // Scales of f32, too.
  EXPECT_THAT(bridge("nibble", "int8-tensor", "q8_0").note, HasSubstr("scales rounded to f16"));
}

TEST_F(QuantizedFolders, AreMadeOfBlocksOfGgufWithoutLoss) {
  quantize(kModel, "q4_0.gguf", "q4_0");
  for (const char* format : {"gptq", "compressed-tensors", "awq"}) {
    SCOPED_TRACE(format);
    const QuantizeReport report = quantize(folder_ / "q4_0.gguf", format, "int4-g32", format);
    EXPECT_EQ(report_of(report, kLinear).method, "repack");
    EXPECT_EQ(report_of(report, kLinear).relative_mse, 0);
    EXPECT_EQ(report_of(report, "model.layers.0.self_attn.q_proj.weight").relative_mse, 0);
    EXPECT_TRUE(fs::exists(folder_ / format + "/tokenizer.model"));
    // And back to the same bytes.
    quantize(folder_ / format, std::string(format) + ".gguf", "q4_0");
    const auto before = container::open(folder_ / "q4_0.gguf"),
               after = container::open(folder_ / (std::string(format) + ".gguf"));
    const auto a = before->at("blk.3.ffn_down.weight").view.data(), b = after->at("blk.3.ffn_down.weight").view.data();
    EXPECT_TRUE(std::ranges::equal(a, b));
  }
}

// Columns whose groups are listed are no blocks: quantized again, and that is said.
TEST_F(QuantizedFolders, AreQuantizedAgainWhereNothingElseIsPossible) {
  quantize(kModel, "q", "int4-g48-asym", "nibble");
  const QuantizeReport report = quantize(folder_ / "q", "q.gguf", "q4_1");
  EXPECT_EQ(report_of(report, kLinear).method, "rtn");
  EXPECT_THAT(report.notes, Contains(HasSubstr("quantized already (int4-g48-asym)")));
}

}  // namespace
}  // namespace nibble
