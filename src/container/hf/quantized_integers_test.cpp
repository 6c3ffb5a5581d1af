// Folders of integer weights: the values that the packages which define them decode, what is written back, and what is
// refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "container/hf/format.h"
#include "container/hf/raw_folder_test.h"
#include "container/hf/scheme.h"
#include "container/test_files.h"
#include "encoding/affine.h"

namespace nibble::container {
namespace {

using testing::HasSubstr;

std::vector<float> decode(const TensorView& view) {
  std::vector<float> values(static_cast<std::size_t>(view.shape.elements()));
  encoding::decode_rows(view, 0, view.rows(), values.data());
  return values;
}

// Every tensor of `expected` bit by bit.
void expect_values(const CheckpointReader& reader, const CheckpointReader& expected) {
  EXPECT_EQ(reader.tensors().size(), expected.tensors().size());
  for (const TensorEntry& entry : expected.tensors()) {
    const TensorView& view = reader.at(entry.name).view;
    ASSERT_EQ(view.shape, entry.view.shape) << entry.name;
    reader.drop(reader.at(entry.name));
    EXPECT_EQ(decode(view), decode(entry.view)) << entry.name;
    std::vector<float> row(static_cast<std::size_t>(view.cols()));
    encoding::decode_rows(view, view.rows() - 1, view.rows(), row.data());
    const std::vector<float> all = decode(view);
    EXPECT_TRUE(std::equal(row.begin(), row.end(), all.end() - view.cols())) << entry.name;
    encoding::validate(view);
  }
}

std::string type_of(const CheckpointReader& reader, std::string_view tensor) {
  return reader.at(tensor).view.encoding->name;
}

constexpr const char* kFolders[] = {"gptq_v1", "gptq_act",   "gptq_v2", "gptq_mixed",
                                    "awq",     "auto_round", "ct_pack", "ct_int"};

TEST(QuantizedIntegers, HaveTheValuesThatOthersDecode) {
  for (const char* name : kFolders) {
    SCOPED_TRACE(name);
    const auto reader = open(golden(name));
    hf::refuse_unread(reader->config());
    expect_values(*reader, *open(golden(name) / "expected.safetensors"));
  }
}

TEST(QuantizedIntegers, AreOfTheTypesThatTheirFilesSay) {
  const auto first = open(golden("gptq_v1"));
  EXPECT_EQ(type_of(*first, "a.weight"), "int4-g32-f16");
  EXPECT_EQ(type_of(*first, "b.weight"), "int4-g32-f16");
  EXPECT_EQ(type_of(*first, "head.weight"), "f16");
  const auto ordered = open(golden("gptq_act"));
  EXPECT_EQ(type_of(*ordered, "a.weight"), "int4-g16-gidx-asym-f16");
  EXPECT_EQ(type_of(*ordered, "b.weight"), "int4-g16-gidx-asym-f16");
  const auto mixed = open(golden("gptq_mixed"));
  EXPECT_EQ(type_of(*mixed, "layers.0.a.weight"), "int2-g64-asym-f16");
  EXPECT_EQ(type_of(*mixed, "layers.0.b.weight"), "int8-channel-asym-f16");
  EXPECT_EQ(type_of(*mixed, "layers.1.a.weight"), "int3-g16-asym-f16");
  const auto packed = open(golden("ct_pack"));
  EXPECT_EQ(type_of(*packed, "m0.weight"), "int4-g32-bf16");
  EXPECT_EQ(type_of(*packed, "m1.weight"), "int3-channel-asym-f16");
  EXPECT_EQ(type_of(*packed, "m2.weight"), "int2-g16-asym");
  EXPECT_EQ(type_of(*packed, "m4.weight"), "int6-tensor-asym-bf16");
  EXPECT_EQ(type_of(*open(golden("ct_int")), "m2.weight"), "int4-channel-bf16");  // bytes, but of its group
}

// a: 16 outputs, 64 inputs, 4 bits, groups of 32.
TEST(QuantizedIntegers, RefuseGptqThatContradictsItself) {
  const auto fault = [](auto change) { return fault_after("gptq_v1", change); };
  EXPECT_THAT(fault([](RawFolder& f) { f.erase("a.scales"); }),
              HasSubstr("tensor 'a.qweight' is there without 'a.scales'"));
  EXPECT_THAT(fault([](RawFolder& f) { f.erase("a.qzeros"); }), HasSubstr("without 'a.qzeros'"));
  EXPECT_THAT(fault([](RawFolder& f) { f.erase("a.qweight"); }),
              HasSubstr("tensor 'a.qzeros' is there without its codes"));
  EXPECT_THAT(fault([](RawFolder& f) {
                f.reshape("a.qweight", {8, 15});
              }),
              HasSubstr("tensor 'a.qweight' has shape (8, 15), that of 'a.scales' would be (8, 16)"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape("a.scales", {16, 2}); }), HasSubstr("'a.qzeros' has shape (2, 2)"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape("a.scales", {32}); }), HasSubstr("'a.scales' has shape (32)"));
  EXPECT_THAT(fault([](RawFolder& f) {
                f.reshape("a.qzeros", {1, 2});
              }),
              HasSubstr("tensor 'a.qzeros' has shape (1, 2), that of 'a.scales' would be (2, 2)"));
  EXPECT_THAT(fault([](RawFolder& f) {
                f.reshape("a.qweight", {16, 16});
              }),
              HasSubstr("'a.scales' has 2 groups for the 128 inputs of 'a.qweight', with a 'group_size' of 32"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape("a.qweight", {8, 16}, "f32"); }), HasSubstr("in f32, not in i32"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape("a.scales", {2, 16}, "u8"); }), HasSubstr("'a.scales' is in u8"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape("a.g_idx", {63}); }), HasSubstr("'a.g_idx' has shape (63)"));
  EXPECT_THAT(fault([](RawFolder& f) { f.set_word("a.g_idx", 5, 2); }),
              HasSubstr("tensor 'a.g_idx': input 5 is of group 2, of which there are 2"));
  EXPECT_THAT(fault([](RawFolder& f) { f.set_word("b.g_idx", 0, -1); }), HasSubstr("input 0 is of group -1"));
  EXPECT_THAT(fault([](RawFolder& f) { f.quantization().set("bits", 8); }),
              HasSubstr("which holds no zeros of 8 bits for the 16 outputs"));
  EXPECT_THAT(fault([](RawFolder& f) { f.quantization().set("bits", 5); }), HasSubstr("'gptq' with 'bits' 5"));
  EXPECT_THAT(fault([](RawFolder& f) { f.quantization().set("checkpoint_format", "marlin"); }),
              HasSubstr("'checkpoint_format' marlin"));
  EXPECT_THAT(fault([](RawFolder& f) { f.quantization().set("pack_dtype", "int16"); }),
              HasSubstr("'pack_dtype' int16"));
  EXPECT_THAT(fault([](RawFolder& f) { f.at("head.weight").plan.name = "a.weight"; }),
              HasSubstr("tensor 'a.weight' is there twice"));
}

TEST(QuantizedIntegers, RefuseZerosThatNoByteHolds) {
  RawFolder folder(golden("gptq_mixed"));
  folder.set_word("layers.0.b.qzeros", 1, -1);
  EXPECT_THAT(folder.fault(), HasSubstr("tensor 'layers.0.b.qzeros', group 0, output 4: a zero of 256"));
}

TEST(QuantizedIntegers, RefuseAwqAndAutoRoundThatAreNotRead) {
  const auto fault = [](auto change) { return fault_after("awq", change); };
  EXPECT_THAT(fault([](RawFolder& f) { f.quantization().set("version", "gemv"); }), HasSubstr("'version' gemv"));
  EXPECT_THAT(fault([](RawFolder& f) { f.quantization().set("bits", 8); }), HasSubstr("'awq' with 'bits' 8"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape("a.qweight", {30, 2}); }), HasSubstr("of 'a.qweight'"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape("a.qweight", {64, 3}); }), HasSubstr("would be (64, 2)"));
  EXPECT_THAT(fault_after("auto_round", [](RawFolder& f) { f.quantization().set("packing_format", "itrex"); }),
              HasSubstr("'packing_format' itrex"));
}

// m0: (16, 64), 4 bits, groups of 32; m1: (20, 50), 3 bits, rows, asymmetric.
TEST(QuantizedIntegers, RefuseCompressedTensorsThatContradictThemselves) {
  const auto fault = [](auto change) { return fault_after("ct_pack", change); };
  EXPECT_THAT(fault([](RawFolder& f) { f.erase("m0.weight_scale"); }),
              HasSubstr("tensor 'm0.weight_packed' is there without 'm0.weight_scale'"));
  EXPECT_THAT(fault([](RawFolder& f) { f.erase("m0.weight_shape"); }), HasSubstr("without 'm0.weight_shape'"));
  EXPECT_THAT(fault([](RawFolder& f) { f.set_word("m0.weight_shape", 0, 17); }),
              HasSubstr("tensor 'm0.weight_shape' says (17, 64) of 'm0.weight_packed', which has shape (16, 8)"));
  EXPECT_THAT(fault([](RawFolder& f) { f.set_word("m0.weight_shape", 3, -1); }), HasSubstr("of 'm0.weight_packed'"));
  EXPECT_THAT(fault([](RawFolder& f) {
                f.reshape("m0.weight_packed", {16, 7});
              }),
              HasSubstr("is in no group of the config"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape("m0.weight_scale", {16, 1}); }), HasSubstr("(16, 1)"));
  EXPECT_THAT(fault([](RawFolder& f) { f.erase("m1.weight_zero_point"); }), HasSubstr("in no group"));
  EXPECT_THAT(fault([](RawFolder& f) {
                f.reshape("m1.weight_zero_point", {1, 1});
              }),
              HasSubstr("tensor 'm1.weight_zero_point' is i32 of shape (1, 1), not i32 of shape (2, 1)"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape("m0.weight_scale", {16, 2}, "f64"); }), HasSubstr("is in f64"));
  const auto bytes = [](auto change) { return fault_after("ct_int", change); };
  EXPECT_THAT(bytes([](RawFolder& f) {
                f.at("m2.weight").bytes[7] = std::byte{8};
                std::erase_if(f.tensors, [](const auto& raw) { return !raw.plan.name.starts_with("m2"); });
                json::Value& quantization = f.quantization();
                const json::Value group = quantization.at("config_groups").at("group_2");
                quantization.set("config_groups", json::Object{{"g", group}});
              }),
              HasSubstr("tensor 'm2.weight', row 0: a code of 8 is beyond 4 bits"));
  EXPECT_THAT(bytes([](RawFolder& f) { f.erase("m0.weight_scale"); }), HasSubstr("'m0.weight' is there without"));
}

TEST(QuantizedIntegers, ReadTheGroupsOfColumns) {
  RawFolder folder(golden("ct_pack"));
  std::vector<std::byte> index(64 * 4);
  for (std::int32_t c = 0; c < 64; ++c) {
    const std::int32_t group = c % 2;
    std::memcpy(index.data() + 4 * c, &group, 4);
  }
  folder.tensors.push_back({{"m0.weight_g_idx", &encoding::get("i32"), {64}}, index});
  const TempFolder written;
  folder.write(written);
  const auto reader = open(written.path());
  EXPECT_EQ(type_of(*reader, "m0.weight"), "int4-g32-gidx-bf16");
  folder.set_word("m0.weight_g_idx", 9, 2);
  EXPECT_THAT(folder.fault(), HasSubstr("tensor 'm0.weight_g_idx': column 9 is of group 2, of which there are 2"));
  for (std::size_t c = 0; c < 64; ++c) folder.set_word("m0.weight_g_idx", c, -1);  // as made and never set
  folder.write(written);
  EXPECT_EQ(type_of(*open(written.path()), "m0.weight"), "int4-g32-bf16");
}

// What is written of a tensor is what was read of another folder.
TEST(QuantizedIntegers, AreWrittenInEveryFormatThatHoldsThem) {
  int written = 0;
  for (const char* name : kFolders) {
    const auto reader = open(golden(name));
    for (const hf::Format* format : hf::all_formats()) {
      std::vector<PlannedTensor> plan;
      std::vector<const TensorEntry*> entries;
      hf::QuantizedWeights weights;
      for (const TensorEntry& entry : reader->tensors()) {
        const encoding::EncodingInfo& type = *entry.view.encoding;
        if (!hf::holds(*format, type) || !hf::misfit(*format, type, entry.view.shape).empty()) continue;
        const Part* zeros = entry.view.find(PartRole::kZeros);
        const auto too_low = [&](std::byte zero) { return std::to_integer<int>(zero) < format->least_zero; };
        if (zeros != nullptr && std::ranges::any_of(zeros->bytes, too_low)) continue;
        if (format->name == "awq" && !plan.empty() && plan[0].encoding != &type) continue;
        plan.push_back({entry.name, &type, entry.view.shape});
        entries.push_back(&entry);
      }
      if (plan.empty()) continue;
      SCOPED_TRACE(std::string(name) + " as " + std::string(format->name));
      weights.tensors = plan;
      const TempFolder folder;
      folder.write("config.json", json::dump(json::Object{{"quantization_config", format->config(weights)}}));
      const auto writer = hf::create_quantized(folder.path(), {}, plan, *format);
      for (std::size_t i = 0; i < plan.size(); ++i) writer->write_tensor(i, entries[i]->view);
      writer->commit();
      const auto again = open(folder.path());
      hf::refuse_unread(again->config());
      EXPECT_EQ(again->tensors().size(), plan.size());
      for (const TensorEntry* entry : entries) {
        EXPECT_EQ(decode(again->at(entry->name).view), decode(entry->view)) << entry->name;
        if (format->name != "awq") {
          EXPECT_EQ(again->at(entry->name).view.encoding, entry->view.encoding) << entry->name;
        }
        ++written;
      }
    }
  }
  EXPECT_GT(written, 50);
}

TEST(QuantizedIntegers, OwnFormatRefusesPartsThatAreNotThere) {
  const auto reader = open(golden("gptq_act"));
  const hf::Format& format = *hf::find_format("nibble");
  const TensorEntry& entry = reader->at("a.weight");
  const std::vector<PlannedTensor> plan = {{entry.name, entry.view.encoding, entry.view.shape}};
  const TempFolder folder;
  hf::QuantizedWeights weights;
  weights.tensors = plan;
  folder.write("config.json", json::dump(json::Object{{"quantization_config", format.config(weights)}}));
  const auto writer = hf::create_quantized(folder.path(), {}, plan, format);
  writer->write_tensor(0, entry.view);
  writer->commit();
  RawFolder raw(folder.path());
  raw.erase("a.weight.zeros");
  EXPECT_THAT(raw.fault(), HasSubstr("tensor 'a.weight.zeros' is not there"));
  raw = RawFolder(folder.path());
  raw.reshape("a.weight.scales", {4, 16});
  EXPECT_THAT(raw.fault(), HasSubstr("tensor 'a.weight.scales' is f16 of shape (4, 16)"));
  raw = RawFolder(folder.path());
  raw.set_word("a.weight.g_idx", 3, 4);
  EXPECT_THAT(raw.fault(), HasSubstr("'a.weight': column 3 is of group 4, of which there are 4"));
  raw = RawFolder(folder.path());
  raw.quantization().set("version", 2);
  EXPECT_THAT(raw.fault(), HasSubstr("'version' 2"));
}

}  // namespace
}  // namespace nibble::container
