// Descriptions that make no sense, for every architecture: one clear line each, no crash, no large allocation.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <new>

#include "base/atomic_file.h"
#include "base/error.h"
#include "model/arch.h"
#include "model/rope.h"
#include "model/source.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace {

std::atomic<std::size_t> largest_allocation{0};

void* allocate(std::size_t size) {
  std::size_t seen = largest_allocation.load(std::memory_order_relaxed);
  while (seen < size && !largest_allocation.compare_exchange_weak(seen, size)) {
  }
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// Of the whole test program.
void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace nibble::model {
namespace {

constexpr std::size_t kMostBytes = 32 << 20;

// The message of the Error that `body` throws, one line of reasonable length; empty: it threw none.
std::string refusal(const std::function<void()>& body) {
  largest_allocation = 0;
  std::string message;
  try {
    body();
  } catch (const Error& error) {
    message = error.what();
    EXPECT_FALSE(message.empty());
  }
  EXPECT_LT(largest_allocation.load(), kMostBytes) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_LT(message.size(), 600u) << message;
  return message;
}

struct Case {
  std::string name;
  json::Value config;
};

// Every configuration of testdata: each architecture, with its own keys.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& folder :
       std::filesystem::directory_iterator(std::filesystem::path(NIBBLE_SOURCE_DIR) / "src/model/testdata")) {
    if (!std::filesystem::exists(folder.path() / "config.json")) continue;
    all.push_back({folder.path().filename().string(), text_config(json::parse_file(folder.path() / "config.json"))});
  }
  return all;
}

ModelSpec spec_of(const json::Value& config) {
  const json::Value text = text_config(config);
  ModelSpec spec = arch_by_model_type(text.get("model_type", "")).from_hf(text);
  validate(spec);
  return spec;
}

const std::vector<json::Value>& bad_values() {
  static const std::vector<json::Value> values = {nullptr,
                                                  true,
                                                  "",
                                                  "large",
                                                  json::Array{},
                                                  json::Object{},
                                                  json::Array{1, -2, 3},
                                                  json::Array(5000, 1e300),
                                                  0,
                                                  -1,
                                                  1,
                                                  7,
                                                  4097,
                                                  1 << 20,
                                                  std::int64_t{1} << 31,
                                                  std::int64_t{1} << 40,
                                                  INT64_MAX,
                                                  INT64_MIN,
                                                  0.5,
                                                  -0.5,
                                                  1e-300,
                                                  1e300,
                                                  -1e300};
  return values;
}

// What passes has to be sane.
void expect_sane(const ModelSpec& spec) {
  for (const RopeSpec* rope : {&spec.rope, &spec.local_rope}) {
    for (const std::int64_t length : {1, 100000}) {
      const RopeFrequencies frequencies = rope_frequencies(*rope, length);
      EXPECT_TRUE(std::isfinite(frequencies.attention_factor));
      for (const float frequency : frequencies.inv_freq) ASSERT_TRUE(std::isfinite(frequency));
    }
  }
}

void try_value(const Case& c, const json::Value& config, const std::string& key, const json::Value& old,
               const json::Value& bad) {
  SCOPED_TRACE(c.name + ": " + key + " = " + json::dump(bad).substr(0, 60));
  const std::string message = refusal([&] { expect_sane(spec_of(config)); });
  const bool wrong_type = old.is_number() && (bad.is_string() || bad.is_array() || bad.is_object() || bad.is_bool());
  if (wrong_type && !message.empty()) {
    EXPECT_NE(message.find(key), std::string::npos) << message;
  }
}

TEST(BadConfigs, EachKeyOfEachArchitectureWithEachBadValue) {
  for (const Case& c : cases()) {
    for (const auto& [key, old] : c.config.as_object()) {
      for (const json::Value& bad : bad_values()) {
        json::Value config = c.config;
        config.set(key, bad);
        try_value(c, config, key, old, bad);
      }
      if (!old.is_object()) continue;
      for (const auto& [inner, value] : old.as_object()) {  // parameters of the rotation
        for (const json::Value& bad : bad_values()) {
          json::Value config = c.config, part = old;
          part.set(inner, bad);
          config.set(key, part);
          try_value(c, config, inner, value, bad);
        }
      }
    }
  }
}

// Sizes without a default have to be there; of what may be missing the rest has to make sense.
TEST(BadConfigs, MissingKeys) {
  for (const Case& c : cases()) {
    int missing = 0;
    for (const auto& [key, old] : c.config.as_object()) {
      json::Object rest = c.config.as_object();
      std::erase_if(rest, [&](const auto& member) { return member.first == key; });
      SCOPED_TRACE(c.name + " without " + key);
      const std::string message = refusal([&] { expect_sane(spec_of(rest)); });
      if (message.find("'" + key + "'") != std::string::npos) ++missing;
    }
    EXPECT_GE(missing, 3) << c.name;  // the type, the hidden size and the number of layers at least
  }
}

TEST(BadConfigs, TypesOfModels) {
  const auto message_of = [](const char* text) { return refusal([&] { spec_of(json::parse(text)); }); };
  EXPECT_NE(message_of(R"({})").find("model_type"), std::string::npos);
  EXPECT_NE(message_of(R"({"model_type":""})").find("model_type"), std::string::npos);
  EXPECT_NE(message_of(R"({"model_type":7})").find("model_type"), std::string::npos);
  EXPECT_NE(message_of(R"({"model_type":["llama"]})").find("model_type"), std::string::npos);
  EXPECT_NE(message_of(R"({"model_type":"gizmo"})").find("'gizmo'"), std::string::npos);
  EXPECT_NE(message_of(R"(["llama"])").find("model_type"), std::string::npos);
}

TEST(BadConfigs, TextModelsOfLargerOnes) {
  for (const Arch* arch : all_entries()) {
    for (const std::string_view larger : arch->hf_larger_types) {
      const auto message_of = [&](const json::Value& text) {
        json::Value config;
        config.set("model_type", larger);
        if (!text.is_bool()) config.set("text_config", text);
        return refusal([&] { spec_of(config); });
      };
      EXPECT_NE(message_of(true).find("no 'text_config'"), std::string::npos);
      EXPECT_NE(message_of(nullptr).find("no 'text_config'"), std::string::npos);
      EXPECT_NE(message_of("text").find("no 'text_config'"), std::string::npos);
      EXPECT_NE(message_of(json::Object{}).find("'text_config' names no 'model_type'"), std::string::npos);
      EXPECT_NE(message_of(json::Object{{"model_type", "gizmo"}}).find("'gizmo'"), std::string::npos);
      EXPECT_NE(message_of(json::Object{{"model_type", "gpt2"}}).find("'gpt2' is not known"), std::string::npos);
      EXPECT_EQ(message_of(testing::tiny_config(std::string(arch->hf_model_types[0]))), "");
    }
  }
}

// A configuration that contradicts the tensors is refused by the first tensor that differs, or it changes no shape.
TEST(BadConfigs, ContradictionsWithTensors) {
  constexpr std::pair<const char*, int> kChanges[] = {
      {"hidden_size", 192},         {"hidden_size", 90},        {"intermediate_size", 161}, {"num_hidden_layers", 3},
      {"num_attention_heads", 8},   {"num_key_value_heads", 3}, {"head_dim", 32},           {"head_dim", 8},
      {"vocab_size", 287},          {"vocab_size", 1 << 26},    {"num_experts", 5},         {"num_local_experts", 5},
      {"moe_intermediate_size", 65}};
  for (const Arch* arch : all_entries()) {
    const json::Value config = testing::tiny_config(std::string(arch->hf_model_types[0]));
    testing::TemporaryFolder folder;
    testing::write_tiny_model(folder.path(), config, {.tokenizer = false});
    const ModelSpec whole = ModelSource::open(folder.path())->spec();
    int refused = 0;
    for (const auto& [key, value] : kChanges) {
      SCOPED_TRACE(std::string(arch->hf_model_types[0]) + ": " + key + " = " + std::to_string(value));
      json::Value changed = config;
      changed.set(key, value);
      write_file_atomically(folder.path() / "config.json", json::dump(changed));
      const std::string message = refusal([&] {
        const ModelSpec spec = ModelSource::open(folder.path())->spec();
        ASSERT_EQ(spec.weights.size(), whole.weights.size());
        for (std::size_t i = 0; i < spec.weights.size(); ++i) EXPECT_EQ(spec.weights[i].shape, whole.weights[i].shape);
      });
      if (message.empty()) continue;
      ++refused;
      EXPECT_NE(message.find(folder.path().string()), std::string::npos) << message;
    }
    EXPECT_GE(refused, 5) << arch->hf_model_types[0];
  }
}

// Each value of a GGUF header missing, of another type, or absurd.
TEST(BadConfigs, EachKeyOfEachHeaderWithEachBadValue) {
  using container::MetaArray;
  const float nan = std::nanf(""), infinity = HUGE_VALF;
  const container::MetaValue bad_values[] = {false,
                                             std::uint32_t{0},
                                             std::uint32_t{7},
                                             std::uint32_t{0xFFFFFFFF},
                                             std::int64_t{-1},
                                             std::int64_t{1} << 62,
                                             std::uint64_t{1} << 63,
                                             0.0f,
                                             -1.0f,
                                             1e-40f,
                                             1e38f,
                                             nan,
                                             infinity,
                                             -infinity,
                                             std::string(),
                                             std::string("x"),
                                             MetaArray{std::vector<std::uint32_t>()},
                                             MetaArray{std::vector<std::uint32_t>(3, 7)},
                                             MetaArray{std::vector<std::int32_t>(2, -5)},
                                             MetaArray{std::vector<float>(2, nan)},
                                             MetaArray{std::vector<std::uint32_t>(100000, 1)}};
  for (const Case& c : cases()) {
    const ModelSpec spec = spec_of(c.config);
    const Arch& arch = arch_of(spec);
    container::Metadata whole;
    arch.to_gguf(spec, whole);
    for (const auto& [key, value] : whole.entries()) {
      SCOPED_TRACE(c.name + ": " + key);
      for (const container::MetaValue& bad : bad_values) {
        container::Metadata damaged = whole;
        damaged.set(key, bad);
        refusal([&] {
          const ModelSpec read = arch.from_gguf(damaged);
          validate(read);
          expect_sane(read);
        });
      }
    }
  }
}

}  // namespace
}  // namespace nibble::model
