// Folders of W8A8 that llm-compressor wrote: weights and roundings of inputs as compressed-tensors has them, and what
// is written back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "container/hf/format.h"
#include "container/hf/scheme.h"
#include "container/test_files.h"
#include "encoding/activation.h"

namespace nibble::container {
namespace {

constexpr std::string_view kWeight = ".weight";
struct Golden {
  const char *name, *inputs;
};
constexpr Golden kFolders[] = {
    {"ct_w8a8", "int8-token"}, {"ct_w8a8_static", "int8-tensor"}, {"ct_w8a8_asym", "int8-tensor-asym"}};

std::vector<float> decode(const TensorView& view) {
  std::vector<float> values(static_cast<std::size_t>(view.shape.elements()));
  encoding::decode_rows(view, 0, view.rows(), values.data());
  return values;
}

// The number that a tensor of one holds.
double number_of(const TensorView& view) {
  if (view.encoding->name == "i8") return std::to_integer<std::int8_t>(view.data()[0]);
  float value;
  view.encoding->decode(view.data().data(), &value, 1);
  return static_cast<double>(value);
}

TEST(W8a8Folders, HaveTheWeightsThatThePackageDecodes) {
  for (const auto& [name, inputs] : kFolders) {
    SCOPED_TRACE(name);
    const auto reader = open(golden(name)), expected = open(golden(name) / "expected.safetensors");
    hf::refuse_unread(reader->config());
    EXPECT_EQ(reader->tensors().size(), 12u);  // seven linears, embedding, head and three norms
    int n = 0;
    for (const TensorEntry& entry : expected->tensors()) {
      if (!entry.name.ends_with(kWeight)) continue;
      ++n;
      const TensorView& view = reader->at(entry.name).view;
      EXPECT_EQ(view.encoding->name, "int8-channel-bf16");
      EXPECT_EQ(view.inputs.activation->name, inputs);
      EXPECT_EQ(decode(view), decode(entry.view)) << entry.name;
    }
    EXPECT_EQ(n, 7);
    EXPECT_EQ(reader->at("lm_head.weight").view.encoding->name, "bf16");
  }
}

TEST(W8a8Folders, RoundInputsAsThePackageDoes) {
  for (const auto& [name, inputs] : kFolders) {
    SCOPED_TRACE(name);
    const auto reader = open(golden(name)), expected = open(golden(name) / "expected.safetensors"),
               lying = open(golden(name) / "model.safetensors");
    for (const TensorEntry& entry : reader->tensors()) {
      const InputRounding& rounding = entry.view.inputs;
      if (rounding.activation == nullptr || !rounding.activation->is_static()) continue;
      const std::string module = hf::module_of(entry.name);
      EXPECT_EQ(rounding.scale, number_of(lying->at(module + ".input_scale").view)) << module;
      if (!rounding.activation->symmetric) {
        EXPECT_EQ(rounding.zero, number_of(lying->at(module + ".input_zero_point").view) + 128) << module;
        EXPECT_NE(rounding.zero, 128) << module;
      }
      const TensorView& x = expected->at(module + ".x").view;  // (3, cols)
      std::vector<float> values = decode(x);
      for (std::int64_t row = 0; row < x.rows(); ++row) {
        float* at = values.data() + row * x.cols();
        encoding::round_inputs(rounding, at, x.cols(), at);
      }
      EXPECT_EQ(values, decode(expected->at(module + ".rounded").view)) << module;
    }
  }
}

// What the package writes is written: tensors bit for bit, but fixed scales of inputs in f32, and the config.
TEST(W8a8Folders, AreWrittenAsTheyLie) {
  const hf::Format& format = *hf::find_format("compressed-tensors");
  for (const auto& [name, inputs] : kFolders) {
    SCOPED_TRACE(name);
    const auto reader = open(golden(name)), theirs = open(golden(name) / "model.safetensors");
    hf::QuantizedWeights weights;
    weights.kept = {"lm_head"};
    std::vector<PlannedTensor> plan;
    for (const TensorEntry& entry : reader->tensors()) {
      plan.push_back({entry.name, entry.view.encoding, entry.view.shape, entry.view.inputs.activation});
      if (plan.back().inputs != nullptr) weights.tensors.push_back(plan.back());
    }
    const json::Value config = format.config(weights);
    const json::Value& their_config = reader->config().at("quantization_config");
    const json::Value &group = config.at("config_groups").at("group_0"),
                      &their_group = their_config.at("config_groups").at("group_0");
    for (const char* side : {"weights", "input_activations"}) {
      for (const auto& [key, value] : their_group.at(side).as_object()) {
        if (key != "observer") {  // theirs is llm-compressor's, the presets have none
          EXPECT_EQ(json::dump(group.at(side).at(key)), json::dump(value)) << side << " " << key;
        }
      }
      EXPECT_EQ(group.at(side).find("observer"), nullptr);
    }
    EXPECT_EQ(group.at("format").as_string(), their_group.at("format").as_string());
    for (const char* key : {"format", "ignore", "quant_method", "quantization_status", "kv_cache_scheme"})
      EXPECT_EQ(json::dump(config.at(key)), json::dump(their_config.at(key))) << key;

    const TempFolder folder;
    folder.write("config.json", json::dump(json::Object{{"quantization_config", config}}));
    const auto writer = hf::create_quantized(folder.path(), {}, plan, format);
    for (std::size_t i = 0; i < plan.size(); ++i) writer->write_tensor(i, reader->tensors()[i].view);
    writer->commit();
    const auto ours = open(folder / "model.safetensors"), again = open(folder.path());
    EXPECT_EQ(ours->tensors().size(), theirs->tensors().size());
    for (const TensorEntry& entry : theirs->tensors()) {
      const TensorView& view = ours->at(entry.name).view;
      EXPECT_EQ(view.shape, entry.view.shape) << entry.name;
      if (entry.name.ends_with(".input_scale")) {
        EXPECT_EQ(number_of(view), number_of(entry.view)) << entry.name;
      } else {
        EXPECT_EQ(view.encoding, entry.view.encoding) << entry.name;
        EXPECT_TRUE(std::ranges::equal(view.data(), entry.view.data())) << entry.name;
      }
    }
    for (const PlannedTensor& tensor : weights.tensors)
      EXPECT_EQ(again->at(tensor.name).view.inputs, reader->at(tensor.name).view.inputs) << tensor.name;
  }
}

}  // namespace
}  // namespace nibble::container
