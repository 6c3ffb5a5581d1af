// Folders of bitsandbytes' 4 bits: the values that the package decodes, what is written back, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "container/hf/format.h"
#include "container/hf/raw_folder_test.h"
#include "encoding/codebook.h"

namespace nibble::container {
namespace {

using testing::HasSubstr;

std::vector<float> decode(const TensorView& view) {
  std::vector<float> values(static_cast<std::size_t>(view.shape.elements()));
  encoding::decode_rows(view, 0, view.rows(), values.data());
  return values;
}

TEST(Bitsandbytes, FoldersHaveTheValuesThatThePackageDecodes) {
  for (const auto& [name, type] : {std::pair{"bnb_nf4", "nf4-dq"}, std::pair{"bnb_fp4", "fp4"}}) {
    const auto reader = open(golden(name));
    hf::refuse_unread(reader->config());
    const auto expected = open(golden(name) / "expected.safetensors");
    EXPECT_EQ(expected->tensors().size(), 7u);
    for (const TensorEntry& entry : expected->tensors()) {
      const TensorView& view = reader->at(entry.name).view;
      EXPECT_EQ(view.encoding->name, type);
      EXPECT_EQ(view.shape, entry.view.shape) << entry.name;
      EXPECT_EQ(decode(view), decode(entry.view)) << entry.name;
      reader->will_need(reader->at(entry.name));
      reader->drop(reader->at(entry.name));
      EXPECT_EQ(decode(view), decode(entry.view)) << entry.name;
    }
    EXPECT_EQ(reader->tensors().size(), 14u);  // and embedding, head and five norms
    EXPECT_EQ(reader->at("lm_head.weight").view.encoding->name, "f32");
  }
}

TEST(Bitsandbytes, WritesWhatItReads) {
  const hf::Format& format = *hf::find_format("bnb");
  EXPECT_EQ(hf::types_text(format), "int8-channel with rounded inputs, {nf4,fp4}[-dq][-bN]");
  for (const char* type : {"nf4", "fp4-dq-b4096"}) EXPECT_TRUE(hf::holds(format, encoding::get(type))) << type;
  for (const char* type : {"int4-g64", "kmeans4-channel", "f16", "q4_0"})
    EXPECT_FALSE(hf::holds(format, encoding::get(type))) << type;
  EXPECT_FALSE(hf::misfit(format, encoding::get("nf4"), {2, 3, 64}).empty());
  for (const char* name : {"bnb_nf4", "bnb_fp4"}) {
    const auto reader = open(golden(name));
    hf::QuantizedWeights weights;
    weights.kept = {"lm_head"};
    std::vector<PlannedTensor> plan;
    for (const TensorEntry& entry : reader->tensors())
      plan.push_back({entry.name, entry.view.encoding, entry.view.shape});
    for (const PlannedTensor& tensor : plan)
      if (hf::holds(format, *tensor.encoding)) weights.tensors.push_back(tensor);
    const json::Value config = format.config(weights);
    EXPECT_EQ(config.at("quant_method").as_string(), "bitsandbytes");
    EXPECT_EQ(config.at("bnb_4bit_quant_type").as_string(), std::string(name).substr(4));
    const TempFolder folder;
    folder.write("config.json", json::dump(json::Object{{"quantization_config", config}}));
    const auto writer = hf::create_quantized(folder.path(), {}, plan, format);
    for (std::size_t i = 0; i < plan.size(); ++i) writer->write_tensor(i, reader->tensors()[i].view);
    writer->commit();
    // The same tensors as the package's own files have, the same bytes but for spaces in the text of the state.
    const auto theirs = open(golden(name) / "model.safetensors"), ours = open(folder / "model.safetensors");
    EXPECT_EQ(ours->tensors().size(), theirs->tensors().size());
    for (const TensorEntry& entry : theirs->tensors()) {
      const TensorView& view = ours->at(entry.name).view;
      EXPECT_EQ(view.encoding, entry.view.encoding) << entry.name;
      if (entry.name.find("quant_state") != std::string::npos) continue;
      EXPECT_EQ(view.shape, entry.view.shape) << entry.name;
      EXPECT_TRUE(std::ranges::equal(view.data(), entry.view.data())) << entry.name;
    }
    const auto again = open(folder.path());
    hf::refuse_unread(again->config());
    for (const TensorEntry& entry : reader->tensors())
      EXPECT_EQ(decode(again->at(entry.name).view), decode(entry.view)) << entry.name;
  }
}

const std::string kWeight = "model.layers.0.mlp.down_proj.weight";  // (32, 40)
const std::string kState = kWeight + ".quant_state.bitsandbytes__nf4";

std::string with_state(const std::string& text) {
  return fault_after("bnb_nf4", [&](RawFolder& f) {
    auto& raw = f.at(kState);
    raw.bytes.resize(text.size());
    std::memcpy(raw.bytes.data(), text.data(), text.size());
    raw.plan.shape = {static_cast<std::int64_t>(text.size())};
  });
}

TEST(Bitsandbytes, RefusesWhatIsNotRead) {
  const auto fault = [](auto change) { return fault_after("bnb_nf4", change); };
  EXPECT_THAT(fault([](RawFolder& f) { f.quantization().set("load_in_8bit", true); }),
              HasSubstr("'bitsandbytes' with both 'load_in_4bit' and 'load_in_8bit'"));
  EXPECT_THAT(fault([](RawFolder& f) {
                f.quantization().set("load_in_4bit", false);
                f.quantization().set("_load_in_4bit", false);
              }),
              HasSubstr("neither 'load_in_4bit' nor"));
}

TEST(Bitsandbytes, RefusesFoldersThatContradictThemselves) {
  const auto fault = [](auto change) { return fault_after("bnb_nf4", change); };
  EXPECT_THAT(fault([](RawFolder& f) { f.erase(kWeight); }), HasSubstr("'" + kState + "' is there without"));
  EXPECT_THAT(fault([](RawFolder& f) { f.erase(kState); }), HasSubstr("'" + kWeight + "' is in u8 and has no"));
  for (const char* part : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"}) {
    EXPECT_THAT(fault([&](RawFolder& f) { f.erase(kWeight + part); }),
                HasSubstr("'" + kWeight + "' is quantized, but '" + kWeight + part + "' is not there"));
  }
  EXPECT_THAT(fault([](RawFolder& f) { f.set_word(kWeight + ".quant_map", 3, 0x3F000000); }),
              HasSubstr("'" + kWeight + ".quant_map' holds other levels"));
  EXPECT_THAT(fault([](RawFolder& f) { f.set_word(kWeight + ".nested_quant_map", 255, 0x7FC00000); }),
              HasSubstr("holds other levels"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape(kWeight + ".absmax", {20}, "f32"); }),
              HasSubstr(".absmax' is in f32, not in u8"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape(kWeight + ".absmax", {19}); }),
              HasSubstr("tensor '" + kWeight + "': a tensor (32, 40) in nf4-dq takes 20 bytes of u8 as part 1"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape(kWeight, {639, 1}); }), HasSubstr("takes 640 bytes of u8 as part 0"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape(kWeight + ".nested_absmax", {2}); }), HasSubstr("as part 2"));
  EXPECT_THAT(fault([](RawFolder& f) { f.reshape(kState, {4}, "f32"); }), HasSubstr("it is in f32, not in u8"));
}

TEST(Bitsandbytes, RefusesStatesThatSayNonsense) {
  const auto state = [](const std::string& what) { return R"({"quant_type":"nf4","dtype":"float32",)" + what + "}"; };
  EXPECT_THAT(with_state("{"), HasSubstr("tensor '" + kState + "'"));
  EXPECT_THAT(with_state("[]"), HasSubstr(kState));
  EXPECT_THAT(with_state(R"({"quant_type":"fp4","blocksize":64,"shape":[32,40]})"), HasSubstr("quant_type: 'fp4'"));
  EXPECT_THAT(with_state(state(R"("shape":[32,40])")), HasSubstr("blocksize"));
  for (const char* block : {"0", "-64", "48", "16", "8192"})
    EXPECT_THAT(with_state(state(std::string(R"("shape":[32,40],"blocksize":)") + block)), HasSubstr("blocksize"));
  EXPECT_THAT(with_state(state(R"("blocksize":64)")), HasSubstr("shape"));
  EXPECT_THAT(with_state(state(R"("blocksize":64,"shape":[32,-40])")), HasSubstr("shape"));
  EXPECT_THAT(with_state(state(R"("blocksize":64,"shape":[4611686018427387904,4])")), HasSubstr("shape"));
  const std::string nested = R"("blocksize":64,"nested_blocksize":256,"nested_offset":0.5,)";
  EXPECT_THAT(with_state(state(nested + R"("shape":[32,41])")), HasSubstr("656 bytes"));
  EXPECT_THAT(with_state(state(R"("blocksize":64,"shape":[32,40],"nested_offset":1e300,"nested_blocksize":256)")),
              HasSubstr("nested_offset"));
  EXPECT_THAT(with_state(state(R"("blocksize":64,"shape":[32,40],"nested_offset":0.5,"nested_blocksize":128)")),
              HasSubstr("nested_blocksize: 128"));
  EXPECT_THAT(with_state(state(R"("blocksize":64,"shape":[32,40])")), HasSubstr(".absmax' is in u8, not in f32"));
}

}  // namespace
}  // namespace nibble::container
