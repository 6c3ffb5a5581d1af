// Quantized folders as logical tensors: the values that other code decodes, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "container/hf/scheme.h"
#include "container/test_files.h"
#include "encoding/activation.h"
#include "encoding/encoding.h"

namespace nibble::container {
namespace {

using testing::HasSubstr;

std::vector<float> decode(const TensorView& view) {
  std::vector<float> values(static_cast<std::size_t>(view.shape.elements()));
  encoding::decode_rows(view, 0, view.rows(), values.data());
  return values;
}

// Every tensor of `expected` bit by bit, decoded at once and row by row.
void expect_values(const CheckpointReader& reader, const CheckpointReader& expected) {
  for (const TensorEntry& entry : expected.tensors()) {
    const TensorView& view = reader.at(entry.name).view;
    EXPECT_EQ(view.shape, entry.view.shape) << entry.name;
    const std::vector<float> values = decode(view);
    ASSERT_EQ(values.size() * sizeof(float), entry.view.n_bytes());
    EXPECT_EQ(std::memcmp(values.data(), entry.view.data().data(), entry.view.n_bytes()), 0) << entry.name;
    std::vector<float> row(static_cast<std::size_t>(view.cols()));
    for (std::int64_t r = 0; r < view.rows(); ++r) {
      encoding::decode_rows(view, r, r + 1, row.data());
      EXPECT_EQ(std::memcmp(row.data(), values.data() + r * view.cols(), row.size() * sizeof(float)), 0);
    }
    reader.will_need(reader.at(entry.name));
    reader.drop(reader.at(entry.name));
    EXPECT_EQ(decode(view), values);
  }
}

TEST(QuantizedFolder, Fp8Blocks) {
  const auto reader = open(golden("fp8"));
  expect_values(*reader, *open(golden("fp8") / "expected.safetensors"));
  const TensorEntry& entry = reader->at("edges.weight");
  EXPECT_EQ(entry.view.encoding->name, "fp8-block16x24");
  EXPECT_EQ(entry.view.n_bytes(), 40 * 50 + 4 * 3 * 3u);
  EXPECT_EQ(reader->find("edges.weight_scale_inv"), nullptr);
  EXPECT_EQ(reader->find("stacked_scale_inv"), nullptr);
  EXPECT_EQ(reader->at("lm_head.weight").view.encoding->name, "bf16");
  EXPECT_NE(reader->find("exact.activation_scale"), nullptr);
  EXPECT_EQ(reader->tensors().size(), 8u);
  hf::refuse_unread(reader->config());
}

TEST(QuantizedFolder, Mxfp4) {
  const auto reader = open(golden("mxfp4"));
  expect_values(*reader, *open(golden("mxfp4") / "expected.safetensors"));
  const TensorEntry& entry = reader->at("model.layers.0.mlp.experts.gate_up_proj");
  EXPECT_EQ(entry.view.encoding->name, "mxfp4-hf");
  EXPECT_EQ(entry.view.shape, Shape({3, 6, 64}));
  EXPECT_EQ(entry.view.n_bytes(), 3 * 6 * 34u);
  EXPECT_EQ(reader->tensors().size(), 4u);  // and two biases
}

struct Raw {
  std::string name;
  std::string dtype;
  Shape shape;
};

// A folder of one file, or of one for each tensor; byte i of a tensor is i, and of scales "1.0f".
void write_folder(const TempFolder& folder, const std::string& quantization, const std::vector<Raw>& tensors,
                  bool shards = false) {
  folder.write("config.json", R"({"quantization_config":)" + quantization + "}");
  std::vector<PlannedTensor> plan;
  std::uint64_t largest = 0;
  for (const Raw& raw : tensors) plan.push_back({raw.name, &encoding::get(raw.dtype), raw.shape});
  for (const PlannedTensor& tensor : plan)
    largest = std::max(largest, encoding::tensor_bytes(*tensor.encoding, tensor.shape));
  std::filesystem::remove(folder / "model.safetensors");
  const auto writer = create_hf_weights(folder.path(), {}, plan, shards ? 1 : kShardBytes);
  for (std::size_t i = 0; i < plan.size(); ++i) {
    std::vector<std::byte> bytes(encoding::tensor_bytes(*plan[i].encoding, plan[i].shape));
    for (std::size_t k = 0; k < bytes.size(); ++k) bytes[k] = static_cast<std::byte>(k % 0x60);
    const float one = 1;
    if (tensors[i].dtype == "f32") {
      for (std::size_t k = 0; k + 4 <= bytes.size(); k += 4) std::memcpy(&bytes[k], &one, 4);
    }
    writer->write(i, 0, bytes);
  }
  writer->commit();
}

std::string type_of(const std::string& quantization, const std::vector<Raw>& tensors) {
  const TempFolder folder;
  write_folder(folder, quantization, tensors);
  const auto reader = open(folder.path());
  hf::refuse_unread(reader->config());
  return reader->at(tensors[0].name).view.encoding->name;
}

// How the inputs of the first tensor are rounded: "fp8-token", "fp8-tensor 1", "" for not at all.
std::string inputs_of(const std::string& quantization, const std::vector<Raw>& tensors) {
  const TempFolder folder;
  write_folder(folder, quantization, tensors);
  const auto reader = open(folder.path());
  const InputRounding& inputs = reader->at(tensors[0].name).view.inputs;
  EXPECT_EQ(reader->tensors().size(), 1u);  // what scales inputs is no tensor of its own
  if (inputs.activation == nullptr) return "";
  return inputs.activation->name + (inputs.scale != 0 ? format_text(" {}", inputs.scale) : "");
}

std::string fault_of(const std::string& quantization, const std::vector<Raw>& tensors) {
  const TempFolder folder;
  write_folder(folder, quantization, tensors);
  const std::string error = error_of([&] { hf::refuse_unread(open(folder.path())->config()); });
  EXPECT_EQ(error.find('\n'), std::string::npos);
  return error;
}

const std::string kBlock = R"({"quant_method":"fp8","weight_block_size":[128,128]})";
const std::string kWhole = R"({"quant_method":"fp8","weight_block_size":null})";
const Raw kWeight = {"a.weight", "f8_e4m3", {200, 150}};
const std::string kScale = "a.weight_scale_inv";

TEST(QuantizedFolder, Fp8Scales) {
  EXPECT_EQ(type_of(kBlock, {kWeight, {kScale, "f32", {2, 2}}}), "fp8-block128x128");
  EXPECT_EQ(type_of(kBlock, {kWeight, {kScale, "bf16", {2, 2}}}), "fp8-block128x128-bf16");
  EXPECT_EQ(type_of(kBlock, {kWeight, {kScale, "f8_e8m0", {2, 2}}}), "fp8-block128x128-e8m0");
  EXPECT_EQ(type_of(R"({"quant_method":"fp8","weight_block_size":[128,128],"scale_fmt":"ue8m0"})",
                    {kWeight, {kScale, "u8", {2, 2}}}),
            "fp8-block128x128-e8m0");
  EXPECT_EQ(type_of(kWhole, {kWeight, {kScale, "f32", {}}}), "fp8-tensor");
  EXPECT_EQ(type_of(kWhole, {kWeight, {kScale, "bf16", {1}}}), "fp8-tensor-bf16");
  EXPECT_EQ(type_of(R"({"quant_method":"fp8"})", {kWeight, {kScale, "f32", {200, 1}}}), "fp8-channel");
  EXPECT_EQ(type_of(R"({"quant_method":"fbgemm_fp8"})", {kWeight, {"a.weight_scale", "f32", {200, 1}}}), "fp8-channel");
  EXPECT_EQ(type_of(R"({"quant_method":"modelopt","quant_algo":"FP8"})",
                    {kWeight, {"a.weight_scale", "f32", {}}, {"a.input_scale", "f32", {}}}),
            "fp8-tensor");
}

TEST(QuantizedFolder, InputsOfFp8) {
  const std::string block = R"({"quant_method":"fp8","weight_block_size":[64,32],"activation_scheme":)";
  const Raw scale = {kScale, "f32", {4, 5}};
  EXPECT_EQ(inputs_of(kBlock, {kWeight, {kScale, "f32", {2, 2}}}), "fp8-g128");
  EXPECT_EQ(inputs_of(block + R"("dynamic"})", {kWeight, scale}), "fp8-g32");
  EXPECT_EQ(inputs_of(block + R"("dynamic","scale_fmt":"ue8m0"})", {kWeight, scale}), "fp8-g32-e8m0");
  for (const char* name : {"a.activation_scale", "a.input_scale"})
    EXPECT_EQ(inputs_of(block + R"("static"})", {kWeight, scale, {name, "f32", {}}}), "fp8-tensor 1") << name;
  EXPECT_EQ(inputs_of(kWhole, {kWeight, {kScale, "f32", {}}}), "fp8-token");
  EXPECT_EQ(inputs_of(R"({"quant_method":"fbgemm_fp8","activation_scale_ub":1200.0})",
                      {kWeight, {"a.weight_scale", "f32", {200, 1}}}),
            "fp8-token");
  const std::string modelopt = R"({"quant_method":"modelopt","quant_algo":"FP8"})";
  const Raw weight_scale = {"a.weight_scale", "f32", {}};
  EXPECT_EQ(inputs_of(modelopt, {kWeight, weight_scale, {"a.input_scale", "f32", {}}}), "fp8-tensor 1");

  EXPECT_THAT(fault_of(block + R"("none"})", {kWeight, scale}), HasSubstr("'fp8' with 'activation_scheme' none"));
  EXPECT_THAT(fault_of(block + R"("static"})", {kWeight, scale}),
              HasSubstr("tensor 'a.activation_scale' is not there, which scales inputs"));
  EXPECT_THAT(fault_of(block + R"("static"})", {kWeight, scale, {"a.activation_scale", "f32", {200}}}),
              HasSubstr("tensor 'a.activation_scale' is f32 of shape (200), not one number"));
  EXPECT_THAT(fault_of(modelopt, {kWeight, weight_scale}), HasSubstr("tensor 'a.input_scale' is not there"));
}

std::string compressed(const std::string& weights, const std::string& format = "float-quantized") {
  return R"({"quant_method":"compressed-tensors","format":")" + format +
         R"(","ignore":["lm_head"],"config_groups":{"group_0":{"targets":["Linear"],"weights":)" + weights + "}}}";
}

TEST(QuantizedFolder, CompressedTensorsFloats) {
  const auto weights = [](const std::string& strategy) {
    return compressed(R"({"num_bits":8,"type":"float","symmetric":true,"strategy":)" + strategy + "}");
  };
  EXPECT_EQ(type_of(weights(R"("tensor")"), {kWeight, {"a.weight_scale", "f32", {1}}}), "fp8-tensor");
  EXPECT_EQ(type_of(weights(R"("channel")"), {kWeight, {"a.weight_scale", "bf16", {200, 1}}}), "fp8-channel-bf16");
  EXPECT_EQ(type_of(weights(R"("block","block_structure":[128,128])"), {kWeight, {"a.weight_scale", "f32", {2, 2}}}),
            "fp8-block128x128");
  EXPECT_EQ(type_of(weights(R"("group","group_size":50)"), {kWeight, {"a.weight_scale", "f32", {200, 3}}}),
            "fp8-block1x50");
  EXPECT_THAT(fault_of(weights(R"("channel")"), {kWeight, {"a.weight_scale", "f32", {150, 1}}}),
              HasSubstr("'a.weight_scale' of shape (150, 1) holds no scales of 'a.weight' of shape (200, 150): those "
                        "would be (200, 1)"));
  EXPECT_THAT(fault_of(weights(R"("token")"), {kWeight}), HasSubstr("'strategy' token"));
  EXPECT_THAT(fault_of(weights(R"("group","group_size":0)"), {kWeight}), HasSubstr("'group_size' 0"));
  EXPECT_THAT(fault_of(weights(R"("block","block_structure":[128])"), {kWeight}),
              HasSubstr("block_structure: 1 numbers instead of 2"));
  EXPECT_THAT(fault_of(compressed(R"({"num_bits":4,"type":"int"})", "pack-quantized"), {kWeight}),
              HasSubstr("tensor 'a.weight' is in f8_e4m3, but no group of the config is of floats"));
  EXPECT_THAT(fault_of(compressed(R"({"num_bits":4,"type":"float"})"), {kWeight}),
              HasSubstr("neither integers nor 8-bit floats"));
  EXPECT_THAT(fault_of(compressed(R"({"num_bits":4,"type":"float"})", "mxfp6-pack-quantized"), {kWeight}),
              HasSubstr("'compressed-tensors' with 'format' mxfp6-pack-quantized"));
  EXPECT_THAT(
      fault_of(compressed(R"({"num_bits":4,"type":"float","group_size":32})", "nvfp4-pack-quantized"), {kWeight}),
      HasSubstr("with 'format' nvfp4-pack-quantized and 4 bits in groups of 32"));
  EXPECT_THAT(fault_of(compressed(R"({"num_bits":9,"type":"int"})"), {kWeight}), HasSubstr("'num_bits' 9"));
  EXPECT_THAT(fault_of(compressed(R"({"num_bits":8,"type":"int","strategy":"block"})"), {kWeight}),
              HasSubstr("'strategy' block of weights"));
  EXPECT_THAT(fault_of(compressed(R"({"num_bits":8,"type":"int"},"input_activations":{"num_bits":3})"), {kWeight}),
              HasSubstr("'input_activations' of fixed int, tensor"));
  EXPECT_THAT(fault_of(R"({"quant_method":"compressed-tensors","format":"float-quantized"})", {kWeight}),
              HasSubstr("no member 'config_groups'"));
  EXPECT_THAT(
      fault_of(R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"FP8":["Linear"]}})",
               {kWeight}),
      HasSubstr("config_groups: FP8: a preset by name"));
}

TEST(QuantizedFolder, InputsOfCompressedTensorsFloats) {
  const auto with_inputs = [](const std::string& inputs) {
    return compressed(R"({"num_bits":8,"type":"float"},"input_activations":{)" + inputs + "}");
  };
  const std::vector<Raw> whole = {kWeight, {"a.weight_scale", "f32", {1}}};
  EXPECT_EQ(inputs_of(with_inputs(R"("num_bits":8,"type":"float","dynamic":true)"), whole), "fp8-token");
  EXPECT_EQ(inputs_of(with_inputs(R"("type":"float","dynamic":true,"strategy":"tensor_group","group_size":64)"), whole),
            "fp8-g64");
  EXPECT_EQ(inputs_of(with_inputs(R"("num_bits":4,"type":"float","dynamic":"local")"), whole), "");
  EXPECT_EQ(inputs_of(compressed(R"({"num_bits":8,"type":"float"},"input_activations":null)"), whole), "");
  const auto fault_with = [&](const std::string& inputs) { return fault_of(with_inputs(inputs), whole); };
  EXPECT_THAT(fault_with(R"("type":"float","strategy":"token")"),
              HasSubstr("'input_activations' of fixed float, token"));
  EXPECT_THAT(fault_with(R"("type":"float","dynamic":true,"strategy":"channel")"),
              HasSubstr("'input_activations' of dynamic float, channel"));
  EXPECT_THAT(fault_with(R"("type":"float","symmetric":false,"dynamic":true,"strategy":"token")"),
              HasSubstr("'input_activations' of dynamic float, token"));
  EXPECT_THAT(fault_with(R"("type":"int","dynamic":true,"strategy":"token")"),
              HasSubstr("'input_activations' of integers beside weights of floats"));
  EXPECT_THAT(fault_with(R"("type":"float")"), HasSubstr("tensor 'a.input_scale' is not there, which scales inputs"));
}

TEST(QuantizedFolder, PartsInDifferentFiles) {
  const TempFolder folder;
  write_folder(folder, kBlock, {kWeight, {kScale, "f32", {2, 2}}, {"b.weight", "bf16", {2, 2}}}, true);
  const auto reader = open(folder.path());
  EXPECT_EQ(reader->files().size(), 3u);
  EXPECT_EQ(reader->tensors().size(), 2u);
  const TensorEntry& entry = reader->at("a.weight");
  const std::vector<float> values = decode(entry.view);
  reader->will_need(entry);
  reader->drop(entry);
  EXPECT_EQ(decode(entry.view), values);
}

TEST(QuantizedFolder, RefusesFp8ThatContradictsItself) {
  const auto with = [&](Raw scale) { return fault_of(kBlock, {kWeight, std::move(scale)}); };
  EXPECT_THAT(fault_of(kBlock, {kWeight}),
              HasSubstr("tensor 'a.weight' is in f8_e4m3, but its scales 'a.weight_scale_inv' are not there"));
  EXPECT_THAT(with({kScale, "f32", {2, 1}}), HasSubstr("those would be (2, 2)"));
  EXPECT_THAT(with({kScale, "f32", {4}}), HasSubstr("of shape (4)"));
  EXPECT_THAT(with({kScale, "f32", {0, 2}}), HasSubstr("of shape (0, 2)"));
  EXPECT_THAT(with({kScale, "f32", {}}), HasSubstr("of shape ()"));
  EXPECT_THAT(with({kScale, "i32", {2, 2}}), HasSubstr("'a.weight_scale_inv' is in i32"));
  EXPECT_THAT(with({kScale, "u8", {2, 2}}), HasSubstr("is in u8"));
  EXPECT_THAT(with({kScale, "f64", {2, 2}}), HasSubstr("is in f64"));
  EXPECT_THAT(fault_of(kBlock, {{"a.weight", "bf16", {200, 150}}, {kScale, "f32", {2, 2}}}),
              HasSubstr("'a.weight' is in bf16, but 'a.weight_scale_inv' scales f8_e4m3 numbers"));
  EXPECT_THAT(fault_of(kBlock, {{"a.weight", "i8", {200, 75}}}), HasSubstr("'a.weight' is in i8"));
  EXPECT_THAT(fault_of(kWhole, {kWeight, {kScale, "f32", {2, 2}}}), HasSubstr("those would be (1, 1) or (200, 1)"));
  for (const char* block : {"[0,128]", "[-1,128]", "[128]", "128", "[\"a\",1]", "[128,9999999999]", "{}"}) {
    EXPECT_THAT(fault_of(R"({"quant_method":"fp8","weight_block_size":)" + std::string(block) + "}",
                         {kWeight, {kScale, "f32", {2, 1}}}),
                testing::AnyOf(HasSubstr("weight_block_size"), HasSubstr("9999999999")));
  }
  EXPECT_THAT(fault_of(R"({"quant_method":"fp8","fmt":"e5m2"})", {kWeight}), HasSubstr("'fp8' with 'fmt' e5m2"));
  EXPECT_THAT(fault_of(R"({"quant_method":"modelopt","quant_algo":"NVFP4"})", {kWeight}),
              HasSubstr("'modelopt' with 'quant_algo' NVFP4: such quantized folders are not read"));
  EXPECT_THAT(fault_of(R"({"quant_method":"gptq"})", {kWeight}), HasSubstr("'quantization_config' of method 'gptq'"));
  EXPECT_THAT(fault_of("7", {kWeight}), HasSubstr("of method 'unknown'"));
}

TEST(QuantizedFolder, RefusesMxfp4ThatContradictsItself) {
  const std::string config = R"({"quant_method":"mxfp4"})";
  const Raw blocks = {"x_blocks", "u8", {2, 4, 3, 16}};
  const Raw scales = {"x_scales", "u8", {2, 4, 3}};
  EXPECT_EQ(type_of(config, {{"y.weight", "bf16", {2, 4}}, blocks, scales}), "bf16");
  EXPECT_THAT(fault_of(config, {blocks}), HasSubstr("'x_blocks' is there without 'x_scales'"));
  EXPECT_THAT(fault_of(config, {scales}), HasSubstr("'x_scales' is there without 'x_blocks'"));
  EXPECT_THAT(fault_of(config, {blocks, {"x_scales", "u8", {2, 3, 4}}}),
              HasSubstr("'x_scales' has shape (2, 3, 4), those of 'x_blocks' would be (2, 4, 3)"));
  EXPECT_THAT(fault_of(config, {blocks, {"x_scales", "f32", {2, 4, 3}}}), HasSubstr("'x_scales' is in f32"));
  EXPECT_THAT(fault_of(config, {{"x_blocks", "i8", {2, 4, 3, 16}}, scales}), HasSubstr("'x_blocks' is in i8"));
  EXPECT_THAT(fault_of(config, {{"x_blocks", "u8", {2, 4, 3, 32}}, scales}), HasSubstr("(..., rows, blocks, 16)"));
  EXPECT_THAT(fault_of(config, {{"x_blocks", "u8", {3, 16}}, {"x_scales", "u8", {3}}}), HasSubstr("(..., rows"));
  EXPECT_THAT(fault_of(config, {blocks, scales, {"x", "bf16", {2, 4, 96}}}), HasSubstr("'x' is there beside"));
}

}  // namespace
}  // namespace nibble::container
