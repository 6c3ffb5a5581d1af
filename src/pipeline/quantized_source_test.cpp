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
#include "testing/tiny_model.h"

namespace nibble {
namespace {

using nibble::testing::TemporaryFolder;
using ::testing::Contains;
using ::testing::HasSubstr;

namespace fs = std::filesystem;

const fs::path kRoot = NIBBLE_SOURCE_DIR;
const fs::path kModel = kRoot / "models/books-7m";

// One tensor of a folder to be.
struct Piece {
  container::PlannedTensor tensor;
  std::vector<std::byte> bytes;
};

Piece copy_of(const container::TensorEntry& entry) {
  Piece piece;
  piece.tensor.name = entry.name;
  piece.tensor.encoding = entry.view.encoding;
  piece.tensor.shape = entry.view.shape;
  piece.bytes.assign(entry.view.data().begin(), entry.view.data().end());
  return piece;
}

std::vector<float> values_of(const TensorView& view) {
  std::vector<float> values(static_cast<std::size_t>(view.shape.elements()));
  encoding::decode_rows(view, 0, view.rows(), values.data());
  return values;
}

// A weight as E4M3 codes and scales of blocks.
std::vector<Piece> to_fp8(const container::TensorEntry& entry, std::int64_t height, std::int64_t width) {
  const std::int64_t rows = entry.view.rows(), cols = entry.view.cols(), across = (cols + width - 1) / width;
  const Shape tiles = {(rows + height - 1) / height, across};
  std::vector<float> weights = values_of(entry.view);
  std::vector<float> scales(static_cast<std::size_t>(tiles.elements()));
  const auto scale_at = [&](std::int64_t i) -> float& {
    return scales[static_cast<std::size_t>(i / cols / height * across + i % cols / width)];
  };
  for (std::int64_t i = 0; i < rows * cols; ++i)
    scale_at(i) = std::max(scale_at(i), std::fabs(weights[static_cast<std::size_t>(i)]) / 448);
  for (std::int64_t i = 0; i < rows * cols; ++i) weights[static_cast<std::size_t>(i)] /= scale_at(i);
  Piece code = {{entry.name, &encoding::get("f8_e4m3"), entry.view.shape}, std::vector<std::byte>(weights.size())};
  Piece scale = {{entry.name + "_scale_inv", &encoding::get("f32"), tiles}, std::vector<std::byte>(4 * scales.size())};
  code.tensor.encoding->encode(weights.data(), code.bytes.data(), rows * cols);
  std::memcpy(scale.bytes.data(), scales.data(), scale.bytes.size());
  return {code, scale};
}

// A weight as MXFP4 in Hugging Face's order, from GGUF's.
std::vector<Piece> to_mxfp4(const container::TensorEntry& entry) {
  const std::int64_t rows = entry.view.rows(), blocks = entry.view.cols() / 32;
  const std::vector<float> weights = values_of(entry.view);
  std::vector<std::byte> packed(static_cast<std::size_t>(rows * blocks * 17));
  encoding::get("mxfp4").encode(weights.data(), packed.data(), rows * blocks * 32);
  Piece code = {{entry.name + "_blocks", &encoding::get("u8"), {rows, blocks, 16}}, {}};
  Piece scale = {{entry.name + "_scales", &encoding::get("u8"), {rows, blocks}}, {}};
  for (const std::byte* block = packed.data(); block < packed.data() + packed.size(); block += 17) {
    scale.bytes.push_back(block[0]);
    for (int i = 1; i <= 16; i += 2) code.bytes.push_back((block[i] & std::byte{15}) | block[i + 1] << 4);
    for (int i = 1; i <= 16; i += 2) code.bytes.push_back(block[i] >> 4 | (block[i + 1] & std::byte{0xF0}));
  }
  return {code, scale};
}

// A model's folder with other weights: `convert` gives what stands for a tensor, or nothing when it stays.
template <typename Convert>
void write_copy(const fs::path& model, const fs::path& folder, json::Value quantization, Convert&& convert) {
  fs::create_directories(folder);
  for (const auto& file : fs::directory_iterator(model)) {
    if (file.path().extension() != ".safetensors") fs::copy(file.path(), folder / file.path().filename());
  }
  json::Value config = json::parse(read_file(model / "config.json"));
  config.set("quantization_config", std::move(quantization));
  write_file_atomically(folder / "config.json", json::dump(config));
  const auto reader = container::open(model);
  std::vector<Piece> all;
  for (const container::TensorEntry& entry : reader->tensors()) {
    std::vector<Piece> pieces = convert(entry);
    if (pieces.empty()) {
      pieces.push_back(copy_of(entry));
    }
    std::ranges::move(pieces, std::back_inserter(all));
  }
  std::vector<container::PlannedTensor> plan;
  for (const Piece& piece : all) plan.push_back(piece.tensor);
  const auto writer = container::create_hf_weights(folder, {}, plan, 3'000'000);
  for (std::size_t i = 0; i < all.size(); ++i) writer->write(i, 0, all[i].bytes);
  writer->commit();
}

class QuantizedSource : public ::testing::Test {
 protected:
  // Blocks of 96 leave partial ones at both edges of the model's matrices.
  void SetUp() override {
    write_copy(kModel, fp8_, json::Object{{"quant_method", "fp8"}, {"weight_block_size", json::Array{96, 96}}},
               [](const container::TensorEntry& entry) {
                 return entry.name.ends_with("_proj.weight") ? to_fp8(entry, 96, 96) : std::vector<Piece>();
               });
  }

  QuantizeReport convert(const std::string& output, const std::string& type) const {
    ConvertRequest request;
    request.input = fp8_;
    request.output = folder_ / output;
    request.type = type;
    return convert_model(request);
  }

  // The largest relative error of a weight of `candidate`.
  double worst_error(const fs::path& candidate) const { return worst_error(fp8_, candidate); }
  static double worst_error(const fs::path& reference, const fs::path& candidate) {
    OwnedExecContext context(RunContext{});
    double worst = 0;
    for (const auto& error :
         eval::tensor_errors(*context, *model::ModelSource::open(reference), *model::ModelSource::open(candidate)))
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

// A tensor of each expert, with scales of its own.
TEST_F(QuantizedSource, ExpertsAreStacked) {
  const fs::path plain = folder_ / "moe", model = folder_ / "moe-fp8";
  nibble::testing::write_tiny_model(plain, nibble::testing::tiny_config("qwen3_moe"), {});
  write_copy(plain, model, json::Object{{"quant_method", "fp8"}, {"weight_block_size", json::Array{48, 40}}},
             [](const container::TensorEntry& entry) {
               const bool expert = entry.name.find(".experts.") != std::string::npos;
               return expert ? to_fp8(entry, 48, 40) : std::vector<Piece>();
             });
  ConvertRequest request;
  request.input = model;
  request.type = "f32";
  for (const char* output : {"moe.gguf", "moe-plain"}) {
    request.output = folder_ / output;
    convert_model(request);
    EXPECT_EQ(worst_error(model, request.output), 0) << output;
  }
  EXPECT_GT(worst_error(plain, model), 1e-5);
  EXPECT_LT(worst_error(plain, model), 1e-2);
}

// Fixed scales of their inputs, too: the largest counts for all.
TEST_F(QuantizedSource, ExpertsShareTheScaleOfInputs) {
  const fs::path plain = folder_ / "moe", path = folder_ / "moe-fp8";
  nibble::testing::write_tiny_model(plain, nibble::testing::tiny_config("qwen3_moe"), {});
  float scale = 0.5f, last = 0;
  write_copy(
      plain, path,
      json::Object{
          {"quant_method", "fp8"}, {"activation_scheme", "static"}, {"weight_block_size", json::Array{48, 40}}},
      [&](const container::TensorEntry& entry) {
        if (entry.name.find(".experts.") == std::string::npos) return std::vector<Piece>();
        std::vector<Piece> pieces = to_fp8(entry, 48, 40);
        const std::string module = entry.name.substr(0, entry.name.rfind('.'));
        pieces.push_back({{module + ".activation_scale", &encoding::get("f32"), Shape()}, std::vector<std::byte>(4)});
        std::memcpy(pieces.back().bytes.data(), &scale, 4);
        last = scale;
        scale *= 0.75f;
        return pieces;
      });
  EXPECT_LT(last, 0.1f);
  const auto source = model::ModelSource::open(path);
  int stacks = 0;
  for (std::size_t i = 0; i < source->spec().weights.size(); ++i) {
    const model::StoredRows& weight = source->weight(i);
    if (weight.parts.size() < 2 || weight.view.inputs.activation == nullptr) continue;
    ++stacks;
    float most = 0, least = HUGE_VALF;
    for (const container::TensorEntry* part : weight.parts) {
      most = std::max(most, part->view.inputs.scale);
      least = std::min(least, part->view.inputs.scale);
    }
    EXPECT_LT(least, most);
    EXPECT_EQ(weight.view.inputs.scale, most);
    std::int64_t begin = weight.view.rows(), end = begin + 1;
    EXPECT_EQ(weight.part_of(begin, end).view.inputs.scale, most);
  }
  EXPECT_GE(stacks, 3);
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
  // The weights are the same, but inputs are rounded to FP8, too.
  for (const char* path : {"kld_mean_exact", "kld_mean"}) {
    EXPECT_GT(report.at(path).as_number(), 1e-5) << path;
    EXPECT_LT(report.at(path).as_number(), 1e-3) << path;
  }
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
  EXPECT_EQ(found->bytes,
            static_cast<std::uint64_t>(found->shape[0] * found->shape[1]) +
                static_cast<std::uint64_t>(4 * ((found->shape[0] + 95) / 96) * ((found->shape[1] + 95) / 96)));
  EXPECT_EQ(report.parameters, inspect_model({kModel.string()}).parameters);
}

// Not one bit of a weight that is MXFP4 already is lost on the way to GGUF's form, whatever the rows' order there.
TEST_F(QuantizedSource, Mxfp4IsRepacked) {
  const fs::path model = folder_ / "mxfp4";
  write_copy(kModel, model, json::Object{{"quant_method", "mxfp4"}}, [](const container::TensorEntry& entry) {
    const bool packed = entry.name.ends_with("q_proj.weight") || entry.name.ends_with("up_proj.weight");
    return packed ? to_mxfp4(entry) : std::vector<Piece>();
  });
  QuantizeRequest request;
  request.input = model;
  request.output = folder_ / "out.gguf";
  request.type = "mxfp4";
  const QuantizeReport report = quantize_model(request);
  EXPECT_THAT(report.notes, ::testing::IsEmpty());
  int repacked = 0;
  for (const TensorReport& tensor : report.tensors) {
    const bool packed = tensor.hf_name.ends_with("q_proj.weight") || tensor.hf_name.ends_with("up_proj.weight");
    EXPECT_EQ(tensor.method == "repack", packed) << tensor.name;
    if (!packed) continue;
    EXPECT_EQ(tensor.type, "mxfp4");
    EXPECT_EQ(tensor.source_type, "mxfp4-hf");
    EXPECT_EQ(tensor.relative_mse, 0);
    ++repacked;
  }
  EXPECT_EQ(repacked, 16);
  OwnedExecContext context(RunContext{});
  const auto source = model::ModelSource::open(model), output = model::ModelSource::open(request.output);
  for (const auto& error : eval::tensor_errors(*context, *source, *output)) {
    const bool packed = error.name.ends_with("q_proj.weight") || error.name.ends_with("up_proj.weight");
    if (!packed) continue;
    EXPECT_EQ(error.max_abs, 0) << error.name;
    EXPECT_EQ(error.encoding, "mxfp4");
  }
  const auto blocks = container::open(request.output);
  const auto before = container::open(model);
  const TensorView& view = before->at("model.layers.3.mlp.up_proj.weight").view;
  std::vector<std::byte> row(static_cast<std::size_t>(view.cols() / 32 * 17));
  const auto data = blocks->at("blk.3.ffn_up.weight").view.data();
  for (std::int64_t r = 0; r < view.rows(); ++r) {
    encoding::repack_row(view, r, row.data());
    EXPECT_EQ(std::memcmp(row.data(), data.data() + static_cast<std::size_t>(r) * row.size(), row.size()), 0) << r;
  }
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
  EXPECT_THAT(message([&] { convert("out.gguf", "f32"); }),
              HasSubstr("blk.1.ffn_up.weight', row 3, column 5: the weight is NaN"));
  GenerateRequest generate;
  generate.model = fp8_;
  generate.prompt = "It";
  EXPECT_THAT(message([&] { generate_text({}, generate); }),
              HasSubstr("'model.layers.1.mlp.up_proj.weight': row 3 holds a weight or a scale that is NaN"));
}

}  // namespace
}  // namespace nibble
