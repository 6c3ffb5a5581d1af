#include "model/arch.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "container/checkpoint.h"
#include "model/rope.h"
#include "testing/tiny_model.h"

namespace nibble::model {
namespace {

ModelSpec spec_of(const json::Value& config) {
  const json::Value text = text_config(config);
  return arch_by_model_type(text.at("model_type").as_string()).from_hf(text);
}

TEST(Arch, EveryVariantSurvivesTheWayThroughGguf) {
  for (const auto& [name, config] : testing::tiny_variants()) {
    SCOPED_TRACE(name);
    const ModelSpec spec = spec_of(config);
    validate(spec);
    const Arch& arch = arch_of(spec);
    container::Metadata metadata;
    arch.to_gguf(spec, metadata);
    const ModelSpec back = arch.from_gguf(metadata);
    EXPECT_EQ(back.arch, spec.arch);
    EXPECT_EQ(back.hidden, spec.hidden);
    EXPECT_EQ(back.vocab, spec.vocab);
    EXPECT_EQ(back.context, spec.context);
    EXPECT_FLOAT_EQ(static_cast<float>(back.norm_eps), static_cast<float>(spec.norm_eps));
    ASSERT_EQ(back.n_layers(), spec.n_layers());
    for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
      EXPECT_EQ(back.blocks[i].n_heads, spec.blocks[i].n_heads);
      EXPECT_EQ(back.blocks[i].n_kv_heads, spec.blocks[i].n_kv_heads);
      EXPECT_EQ(back.blocks[i].head_dim, spec.blocks[i].head_dim);
      EXPECT_EQ(back.blocks[i].ffn, spec.blocks[i].ffn);
      EXPECT_EQ(back.blocks[i].window, spec.blocks[i].window);
      const WeightSlot* norm = back.find(Role::kAttnQNorm, static_cast<int>(i));
      const bool told_by_tensors = norm != nullptr && norm->optional;
      if (!told_by_tensors) {
        EXPECT_EQ(back.blocks[i].qk_norm, spec.blocks[i].qk_norm);
      }
    }
    RopeSpec rope = back.rope;
    if (spec.find(Role::kRopeFactors, -1) != nullptr) rope.factors = rope_factors(spec.rope);  // the tensor's part
    const RopeFrequencies expected = rope_frequencies(spec.rope, 1), got = rope_frequencies(rope, 1);
    EXPECT_FLOAT_EQ(got.attention_factor, expected.attention_factor);
    for (std::size_t i = 0; i < expected.inv_freq.size(); ++i)
      EXPECT_NEAR(got.inv_freq[i], expected.inv_freq[i], 1e-6f);
    for (const WeightSlot& slot : spec.weights) {
      const WeightSlot* other = back.find(slot.role, slot.layer, slot.bias);
      ASSERT_NE(other, nullptr) << slot.gguf_name;
      EXPECT_EQ(other->hf_name, slot.hf_name);
      EXPECT_EQ(other->gguf_name, slot.gguf_name);
      EXPECT_EQ(other->shape, slot.shape);
      EXPECT_EQ(other->gguf_rows, slot.gguf_rows);
      EXPECT_EQ(other->hf_rows, slot.hf_rows);
    }
  }
}

// What llama.cpp's converter writes for the models of testdata, we write, too.
TEST(Arch, WritesTheKeysThatLlamaCppWrites) {
  const std::filesystem::path data = std::filesystem::path(NIBBLE_SOURCE_DIR) / "src/model/testdata";
  int n_keys = 0;
  for (const auto& folder : std::filesystem::directory_iterator(data)) {
    if (!std::filesystem::exists(folder.path() / "model.gguf")) continue;
    SCOPED_TRACE(folder.path().string());
    const ModelSpec spec = spec_of(json::parse_file(folder.path() / "config.json"));
    container::Metadata ours;
    arch_of(spec).to_gguf(spec, ours);
    const auto theirs = container::open(folder.path() / "model.gguf");
    for (const auto& [key, value] : theirs->metadata().entries()) {
      if (!key.starts_with(spec.arch + ".")) continue;
      const container::MetaValue* mine = ours.find(key);
      ASSERT_NE(mine, nullptr) << key;
      EXPECT_EQ(mine->index(), value.index()) << key;
      if (std::holds_alternative<bool>(value) || std::holds_alternative<container::MetaArray>(value)) {
        EXPECT_TRUE(*mine == value) << key;
      } else if (std::holds_alternative<std::string>(value)) {
        EXPECT_EQ(ours.get_string(key), theirs->metadata().get_string(key)) << key;
      } else {
        EXPECT_EQ(ours.get_float(key), theirs->metadata().get_float(key)) << key;
      }
      ++n_keys;
    }
  }
  EXPECT_GT(n_keys, 50);
}

TEST(Arch, RefusesConfigurationsThatMakeNoSense) {
  const std::pair<const char*, json::Value> bad[] = {
      {"hidden_size", nullptr},
      {"hidden_size", -3},
      {"hidden_size", "large"},
      {"num_hidden_layers", 0},
      {"num_hidden_layers", 1 << 20},
      {"num_attention_heads", 0},
      {"num_attention_heads", 5},
      {"num_key_value_heads", 7},
      {"head_dim", 15},
      {"head_dim", 1 << 20},
      {"vocab_size", 0},
      {"rms_norm_eps", 0.0},
      {"rope_theta", -1.0},
      {"hidden_act", "no-such-activation"},
      {"max_position_embeddings", 0},
      {"intermediate_size", -1},
      {"rope_scaling", json::Object{{"type", "spiral"}}},
      {"rope_scaling", json::Object{{"rope_type", "llama3"}}},
      {"rope_scaling", json::Object{{"type", "linear"}, {"factor", 0.0}}},
      {"partial_rotary_factor", 2.0},
      {"num_experts", 0},
      {"num_local_experts", -2},
      {"num_experts", 1 << 20},
      {"num_experts_per_tok", 0},
      {"num_experts_per_tok", 5},
      {"moe_intermediate_size", 0},
      {"moe_intermediate_size", 1 << 30},
      {"decoder_sparse_step", 0},
      {"mlp_only_layers", json::Object{}}};
  for (const Arch* arch : all_entries()) {
    const json::Value whole = testing::tiny_config(std::string(arch->hf_model_types[0]));
    const ModelSpec spec = arch->from_hf(whole);
    int refused = 0;
    for (const auto& [key, value] : bad) {
      json::Value config = whole;
      config.set(key, value);
      try {
        const ModelSpec other = arch->from_hf(config);
        validate(other);
        // Nothing else than a key that the architecture does not have may be overlooked.
        EXPECT_TRUE(other == spec) << arch->hf_model_types[0] << ' ' << key << ' ' << json::dump(value);
      } catch (const Error&) {
        ++refused;
      }
    }
    EXPECT_GE(refused, 10) << arch->hf_model_types[0];
  }
}

// Each key of a header missing, of another type, or absurd: an error or a sane spec, and the key is named where it is
// missing.
TEST(Arch, SurvivesDamagedHeaders) {
  for (const auto& [name, config] : testing::tiny_variants()) {
    SCOPED_TRACE(name);
    const ModelSpec spec = spec_of(config);
    const Arch& arch = arch_of(spec);
    container::Metadata whole;
    arch.to_gguf(spec, whole);
    const auto parse = [&](const container::Metadata& metadata) { validate(arch.from_gguf(metadata)); };
    parse(whole);
    int missing = 0;
    for (const auto& [key, value] : whole.entries()) {
      container::Metadata damaged = whole;
      damaged.erase(key);
      try {
        parse(damaged);
      } catch (const Error& error) {
        ++missing;
        EXPECT_NE(std::string(error.what()).find(key), std::string::npos) << error.what();
      }
      const container::MetaValue wrong[] = {std::uint32_t{0},
                                            std::uint32_t{0xFFFFFFFF},
                                            std::int64_t{-1},
                                            std::int64_t{1} << 62,
                                            -1.0f,
                                            std::string("x"),
                                            container::MetaArray{std::vector<std::uint32_t>(3, 7)}};
      for (const container::MetaValue& bad : wrong) {
        damaged.set(key, bad);
        try {
          parse(damaged);
        } catch (const Error&) {
        }
      }
    }
    EXPECT_GE(missing, 6);  // sizes, counts and the norm's epsilon have no defaults
  }
}

void expect_list_of_known(const std::function<void()>& find, const std::function<std::string_view(const Arch&)>& name) {
  try {
    find();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    for (const Arch* arch : all_entries())
      EXPECT_NE(std::string(error.what()).find(name(*arch)), std::string::npos) << error.what();
  }
}

TEST(Arch, UnknownNamesListTheKnownOnes) {
  expect_list_of_known([] { arch_by_model_type("no-such-network"); },
                       [](const Arch& arch) { return arch.hf_model_types[0]; });
  container::Metadata metadata;
  metadata.set("general.architecture", std::string("no-such-network"));
  expect_list_of_known([&] { spec_from_gguf(metadata); }, [](const Arch& arch) { return arch.name; });
}

}  // namespace
}  // namespace nibble::model
