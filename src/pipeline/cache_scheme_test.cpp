// Folders with the fixed scales of a KV cache: written, read back, run, and refused where a scale is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "container/checkpoint.h"
#include "encoding/encoding.h"
#include "json/json.h"
#include "model/kv_cache.h"
#include "model/source.h"
#include "nibble/evaluate.h"
#include "nibble/generate.h"
#include "nibble/inspect.h"
#include "nibble/quantize.h"
#include "testing/program.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using container::PlannedTensor;
using nibble::testing::TemporaryFolder;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const fs::path kRoot = NIBBLE_SOURCE_DIR;
const fs::path kModel = kRoot / "models/books-7m";
const std::string kKeys = "model.layers.3.self_attn.k_scale", kValues = "model.layers.3.self_attn.v_scale";

class CacheScheme : public ::testing::Test {
 protected:
  QuantizeRequest request(const std::string& output, const std::string& type, const std::string& cache) const {
    QuantizeRequest r;
    r.input = kModel;
    r.output = folder_ / output;
    r.type = type;
    r.method = "rtn";
    r.kv_cache = cache;
    r.calib = kRoot / "text/books-calib.txt";
    r.calib_tokens = 1024;
    return r;
  }
  fs::path make(const std::string& type, const std::string& cache) const {
    quantize_model(request("made", type, cache));
    return folder_ / "made";
  }
  static float number_of(const fs::path& folder, const std::string& name) {
    const auto reader = container::open(folder);
    const TensorView& view = reader->at(name).view;
    EXPECT_EQ(view.shape, Shape({1}));
    float value;
    view.encoding->decode(view.data().data(), &value, 1);
    return value;
  }
  static json::Value config_of(const fs::path& folder) {
    return json::parse(read_file(folder / "config.json")).at("quantization_config");
  }
  json::Value measured(const fs::path& model, const std::string& cache) const {
    EvaluateRequest r;
    r.model = model;
    r.reference = kModel;
    r.text = kRoot / "text/books-eval.txt";
    r.context = 64;
    r.chunks = 4;
    r.exact = true;
    r.kv_cache = cache;
    return json::parse(evaluate({}, r).json);
  }
  // The weights of `folder` anew: `change` may turn a tensor's plan and numbers into others; no numbers: it goes.
  static void rewrite(const fs::path& folder, const std::function<void(PlannedTensor&, std::vector<float>&)>& change) {
    std::vector<PlannedTensor> plan;
    std::vector<std::vector<float>> numbers;
    {
      const auto reader = container::open(folder / "model.safetensors");
      for (const container::TensorEntry& entry : reader->tensors()) {
        PlannedTensor tensor = {entry.name, entry.view.encoding, entry.view.shape};
        std::vector<float> values(static_cast<std::size_t>(entry.view.shape.elements()));
        encoding::decode_rows(entry.view, 0, entry.view.rows(), values.data());
        change(tensor, values);
        if (values.empty()) continue;
        plan.push_back(tensor);
        numbers.push_back(std::move(values));
      }
    }
    const auto writer = container::create_safetensors(folder / "model.safetensors", {}, plan);
    for (std::size_t i = 0; i < plan.size(); ++i) {
      std::vector<std::byte> bytes(encoding::tensor_bytes(*plan[i].encoding, plan[i].shape));
      plan[i].encoding->encode(numbers[i].data(), bytes.data(), std::ssize(numbers[i]));
      writer->write(i, 0, bytes);
    }
    writer->commit();
  }
  template <typename Call>
  static std::string fault(Call&& call) {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    ADD_FAILURE() << "no Error was thrown";
    return "";
  }

  TemporaryFolder folder_;
};

using CacheSchemeSlow = CacheScheme;

TEST_F(CacheSchemeSlow, IsWrittenBesideAnyTypeAndReadBack) {
  for (const auto& [type, cache, code] : {std::tuple("bf16", "fp8-static", "float"),
                                          {"int4-g32", "int8-static", "int"},
                                          {"w8a8-fp8", "fp8-static", "float"}}) {
    SCOPED_TRACE(type);
    quantize_model(request(type, type, cache));
    const fs::path made = folder_ / type;
    const json::Value config = config_of(made);
    const json::Value& scheme = config.at("kv_cache_scheme");
    EXPECT_EQ(scheme.at("num_bits").as_int(), 8);
    EXPECT_EQ(scheme.at("type").as_string(), code);
    EXPECT_EQ(scheme.at("strategy").as_string(), "tensor");
    EXPECT_TRUE(scheme.at("symmetric").as_bool());
    EXPECT_FALSE(scheme.at("dynamic").as_bool());
    const auto source = model::ModelSource::open(made);
    ASSERT_TRUE(source->spec().kv_type);
    EXPECT_EQ(model::kv_type_name(*source->spec().kv_type), cache);
    EXPECT_EQ(source->spec().blocks[3].k_scale, number_of(made, kKeys));
    EXPECT_EQ(source->spec().blocks[3].v_scale, number_of(made, kValues));
    EXPECT_NE(number_of(made, kKeys), number_of(made, kValues));
  }
  EXPECT_TRUE(config_of(folder_ / "bf16").at("config_groups").as_object().empty());
  // The whole range over +-448 or over -128 .. 127, of about the same keys.
  const float floats = number_of(folder_ / "bf16", kKeys), integers = number_of(folder_ / "int4-g32", kKeys);
  EXPECT_NEAR(integers * 127.5f, floats * 448, 0.1f * floats * 448);
}

TEST_F(CacheSchemeSlow, IsTheCacheUnlessAnotherIsNamed) {
  const fs::path made = make("bf16", "int8-static");
  EXPECT_THAT(inspect_model({made.string()}).notes, Contains(HasSubstr("KV cache of 8-bit ints")));
  EXPECT_THAT(inspect_model({kModel.string()}).notes, IsEmpty());
  const json::Value usual = measured(made, ""), named = measured(made, "int8-static"), f32 = measured(made, "f32");
  for (const char* path : {"", "_exact"}) {
    const std::string kv = std::string("kv_cache") + path, kld = std::string("kld_mean") + path;
    EXPECT_EQ(usual.at(kv).as_string(), "int8-static");
    EXPECT_EQ(usual.at(kld).as_number(), named.at(kld).as_number());
    EXPECT_GT(usual.at(kld).as_number(), 1e-6);
    EXPECT_LT(usual.at(kld).as_number(), 1e-3);
  }
  EXPECT_EQ(f32.at("kld_mean_exact").as_number(), 0);
  EXPECT_THAT(fault([&] { measured(made, "fp8-static"); }), HasSubstr("has those of int8-static"));
  EXPECT_THAT(fault([&] { measured(kModel, "fp8-static"); }), HasSubstr("has none"));

  GenerateRequest generate;
  generate.prompt = "It was a";
  generate.max_tokens = 8;
  std::string text, plain;
  generate.model = made;
  generate_text({}, generate, [&](std::string_view piece) { text += piece; });
  generate.model = kModel;
  generate_text({}, generate, [&](std::string_view piece) { plain += piece; });
  EXPECT_EQ(text, plain);
}

// Scales too small clip, and the model shows it: they are used, each for its own side.
TEST_F(CacheSchemeSlow, EachScaleCounts) {
  const fs::path made = make("bf16", "fp8-static");
  const double before = measured(made, "").at("kld_mean_exact").as_number();
  for (const std::string& name : {kKeys, kValues}) {
    rewrite(made, [&](PlannedTensor& tensor, std::vector<float>& values) {
      if (tensor.name == name) values[0] /= 64;
    });
    EXPECT_GT(measured(made, "").at("kld_mean_exact").as_number(), 2 * before) << name;
    rewrite(made, [&](PlannedTensor& tensor, std::vector<float>& values) {
      if (tensor.name == name) values[0] *= 64;
    });
  }
  EXPECT_EQ(measured(made, "").at("kld_mean_exact").as_number(), before);
}

TEST_F(CacheScheme, ScalesMayBeOneNumberOfAnyShapeAndType) {
  const fs::path made = make("bf16", "fp8-static");
  const float scale = number_of(made, kKeys);
  rewrite(made, [&](PlannedTensor& tensor, std::vector<float>&) {
    if (!tensor.name.ends_with("_scale")) return;
    tensor.encoding = &encoding::get("f32");
    if (tensor.name == kKeys) tensor.shape = Shape();
    if (tensor.name == kValues) tensor.shape = {1, 1};
  });
  EXPECT_EQ(model::ModelSource::open(made)->spec().blocks[3].k_scale, scale);
}

TEST_F(CacheScheme, WhatIsNoScaleIsRefusedByName) {
  const fs::path made = make("bf16", "fp8-static");
  const std::string weights = read_file(made / "model.safetensors");
  using Change = std::function<void(PlannedTensor&, std::vector<float>&)>;
  const std::pair<const char*, Change> kFaults[] = {
      {"by 0, which", [](PlannedTensor&, std::vector<float>& values) { values[0] = 0; }},
      {"by -0.5, which", [](PlannedTensor&, std::vector<float>& values) { values[0] = -0.5f; }},
      {"by nan, which", [](PlannedTensor&, std::vector<float>& values) { values[0] = NAN; }},
      {"by inf, which", [](PlannedTensor&, std::vector<float>& values) { values[0] = HUGE_VALF; }},
      {"is not there, which scales the KV cache", [](PlannedTensor&, std::vector<float>& values) { values.clear(); }},
      {"of shape (2), not one number", [](PlannedTensor& tensor, std::vector<float>& values) {
         tensor.shape = {2}, values = {1, 1};
       }}};
  for (const auto& [words, change] : kFaults) {
    for (const std::string& name : {kKeys, kValues}) {
      write_file_atomically(made / "model.safetensors", weights);
      rewrite(made, [&, &spoil = change](PlannedTensor& tensor, std::vector<float>& values) {
        if (tensor.name == name) spoil(tensor, values);
      });
      const std::string text = fault([&] { model::ModelSource::open(made); });
      EXPECT_THAT(text, HasSubstr("'" + name + "'"));
      EXPECT_THAT(text, HasSubstr(words));
    }
  }
}

// A scheme of another kind is left alone: the folder loads, the cache is what is usual, and a note says so.
TEST_F(CacheSchemeSlow, OtherSchemesAreNoted) {
  const fs::path made = make("bf16", "fp8-static");
  for (const auto& [key, value] : {std::pair<const char*, json::Value>("strategy", "attn_head"),
                                   {"dynamic", true},
                                   {"num_bits", 4},
                                   {"symmetric", false}}) {
    json::Value config = json::parse(read_file(kModel / "config.json")), quantization = config_of(made);
    json::Value scheme = quantization.at("kv_cache_scheme");
    scheme.set(key, value);
    quantization.set("kv_cache_scheme", scheme);
    config.set("quantization_config", quantization);
    const fs::path other = folder_ / key;
    fs::copy(made, other, fs::copy_options::recursive);
    write_file_atomically(other / "config.json", json::dump(config));
    EXPECT_FALSE(model::ModelSource::open(other)->spec().kv_type) << key;
    EXPECT_THAT(inspect_model({other.string()}).notes, Contains(HasSubstr("its scales are not used"))) << key;
    EXPECT_EQ(measured(other, "").at("kv_cache").as_string(), "f16") << key;
  }
}

TEST_F(CacheScheme, FaultsOfTheRequestAreNamed) {
  const auto words = [&](const std::function<void(QuantizeRequest&)>& change) {
    QuantizeRequest r = request("out", "int4-g32", "fp8-static");
    change(r);
    std::string text = fault([&] { quantize_model(r); });
    EXPECT_FALSE(fs::exists(r.output));
    return text;
  };
  EXPECT_THAT(words([](auto& r) { r.kv_cache = "int8"; }), HasSubstr("'int8' is chosen where the model is run"));
  EXPECT_THAT(words([](auto& r) { r.kv_cache = "fp9"; }), HasSubstr("unknown KV cache type 'fp9'"));
  EXPECT_THAT(words([](auto& r) { r.calib.clear(); }), HasSubstr("--calib TEXT"));
  EXPECT_THAT(words([](auto& r) { r.format = "gptq"; }), HasSubstr("one of: compressed-tensors"));
  EXPECT_THAT(words([](auto& r) { r.type = "q4_0", r.output += ".gguf"; }), HasSubstr("compressed-tensors"));
  EXPECT_THAT(words([](auto& r) { r.type = "bf16", r.output += ".gguf"; }), HasSubstr("name a folder"));
  EXPECT_THAT(words([](auto& r) { r.type = "auto"; }), HasSubstr("no place for the scales"));
}

}  // namespace
}  // namespace nibble
