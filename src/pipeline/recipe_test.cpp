#include "pipeline/recipe.h"

#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "base/atomic_file.h"
#include "base/error.h"

namespace nibble::pipeline {
namespace {

// testdata/stock_maps.txt: the types llama-quantize chooses (see dev/golden/recipes.py).
struct GoldenMap {
  std::string mix, common;
  bool imatrix = false;
  std::map<std::string, std::vector<std::string>> types;  // stem -> type of each layer
};
struct GoldenCase {
  std::string name;
  ModelFacts facts;
  std::vector<std::pair<std::string, Shape>> stems;
  std::vector<GoldenMap> maps;
};

Shape parse_shape(const std::string& text) {
  std::vector<std::int64_t> dims;
  std::istringstream in(text);
  for (std::string dim; std::getline(in, dim, 'x');) dims.push_back(std::stoll(dim));
  return Shape(dims);
}

std::vector<std::string> parse_runs(std::istringstream& in) {
  std::vector<std::string> types;
  for (std::string run; in >> run;) {
    const auto star = run.find('*');
    types.insert(types.end(), star == std::string::npos ? 1 : std::stoul(run.substr(star + 1)), run.substr(0, star));
  }
  return types;
}

std::vector<GoldenCase> read_golden() {
  std::vector<GoldenCase> cases;
  std::istringstream file(read_file(std::string(NIBBLE_SOURCE_DIR) + "/src/pipeline/testdata/stock_maps.txt"));
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream in(line);
    std::string word;
    in >> word;
    if (word == "case") {
      GoldenCase& c = cases.emplace_back();
      in >> c.name >> c.facts.arch >> c.facts.n_layers >> c.facts.gqa >> c.facts.n_experts;
    } else if (word == "tensor") {
      std::string stem, shape;
      in >> stem >> shape;
      cases.back().stems.emplace_back(stem, parse_shape(shape));
    } else if (word == "mix") {
      GoldenMap& map = cases.back().maps.emplace_back();
      in >> map.mix >> map.imatrix >> map.common;
    } else {
      cases.back().maps.back().types[word] = parse_runs(in);
    }
  }
  return cases;
}

// All tensors of a case, with the layer each is in (0 outside blocks).
std::vector<RecipeTensor> tensors_of(const GoldenCase& c, std::vector<std::pair<std::string, int>>& places) {
  std::vector<RecipeTensor> tensors;
  for (const auto& [stem, shape] : c.stems) {
    const auto star = stem.find('*');
    for (int layer = 0; layer < (star == std::string::npos ? 1 : c.facts.n_layers); ++layer) {
      std::string name = stem;
      if (star != std::string::npos) name.replace(star, 1, std::to_string(layer));
      tensors.push_back({name, "", shape});
      places.emplace_back(stem, layer);
    }
  }
  return tensors;
}

TEST(Recipe, StockMixesGiveTheStockTypes) {
  const std::vector<GoldenCase> cases = read_golden();
  ASSERT_EQ(cases.size(), 14u);
  int compared = 0;
  for (const GoldenCase& c : cases) {
    std::vector<std::pair<std::string, int>> places;
    const std::vector<RecipeTensor> tensors = tensors_of(c, places);
    for (const GoldenMap& golden : c.maps) {
      ModelFacts facts = c.facts;
      facts.has_imatrix = golden.imatrix;
      const std::vector<Choice> choices = choose_types(load_recipe(golden.mix), facts, tensors);
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        const auto types = golden.types.find(places[i].first);
        const std::string expected =
            types != golden.types.end() ? types->second.at(static_cast<std::size_t>(places[i].second)) : golden.common;
        const bool kept = tensors[i].shape.rank() == 1 || places[i].first.find("ffn_gate_inp") != std::string::npos;
        ASSERT_EQ(choices[i].type == nullptr, kept) << c.name << " " << golden.mix << " " << tensors[i].name;
        if (kept) continue;
        EXPECT_EQ(choices[i].type->name, expected)
            << c.name << " " << golden.mix << " imatrix " << golden.imatrix << " " << tensors[i].name;
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 50000);
}

const std::vector<RecipeTensor> kSmall = {
    {"token_embd.weight", "model.embed_tokens.weight", Shape{512, 256}},
    {"blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight", Shape{256, 256}},
    {"blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight", Shape{256, 288}},
    {"output_norm.weight", "model.norm.weight", Shape{256}},
};

std::vector<std::string> names_of(const std::vector<Choice>& choices) {
  std::vector<std::string> names;
  for (const Choice& choice : choices) names.push_back(choice.type != nullptr ? choice.type->name : "-");
  return names;
}

TEST(Recipe, EncodingNamedAloneKeepsTheStockHead) {
  const ModelFacts facts{"llama", 1, 1, 0, false};
  EXPECT_EQ(names_of(choose_types(load_recipe("Q4_K"), facts, kSmall)),
            (std::vector<std::string>{"q6_k", "q4_k", "q5_0", "-"}));
  EXPECT_EQ(names_of(choose_pure(*load_recipe("q4_k_m").base, kSmall)),
            (std::vector<std::string>{"q4_k", "q4_k", "q5_0", "-"}));
  const std::vector<Choice> choices = choose_types(load_recipe("q4_k"), facts, kSmall);
  EXPECT_EQ(choices[1].wanted, nullptr);
  ASSERT_NE(choices[2].wanted, nullptr);
  EXPECT_EQ(choices[2].wanted->name, "q4_k");
}

TEST(Recipe, UsersRulesMatchNamesOfBothDialects) {
  const json::Value value = json::parse(R"({"base": "q4_0", "stock": false, "rules": [
      {"match": "v_proj", "type": "q8_0"}, {"match": "^token_embd", "type": "f16"},
      {"match": "blk\\.\\d+\\.ffn_down", "imatrix": true, "type": "q6_k"}]})");
  const Recipe recipe = parse_recipe("mine", value);
  EXPECT_EQ(names_of(choose_types(recipe, {"llama", 1, 1, 0, false}, kSmall)),
            (std::vector<std::string>{"f16", "q8_0", "q4_0", "-"}));
  EXPECT_EQ(names_of(choose_types(recipe, {"llama", 1, 1, 0, true}, kSmall)),
            (std::vector<std::string>{"f16", "q8_0", "q8_0", "-"}));
}

void expect_refused(const std::string& text, const std::string& message) {
  try {
    parse_recipe("mine", json::parse(text));
    FAIL() << "accepted: " << text;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).rfind("recipe 'mine': ", 0), 0u) << error.what();
  }
}

TEST(Recipe, MistakesAreNamed) {
  expect_refused(R"({"rules": []})", "base");
  expect_refused(R"({"base": "q4_x"})", "q4_x");
  expect_refused(R"({"base": "q4_k", "rule": []})", "unknown key \"rule\"");
  expect_refused(R"({"base": "q4_k", "rules": [{"type": "q4_k"}, {"tensor": "attn_v"}]})",
                 "rule 2: a rule without \"type\"");
  expect_refused(R"({"base": "q4_k", "rules": [{"type": "q4_k", "layer": "all"}]})", "unknown key \"layer\"");
  expect_refused(R"({"base": "q4_k", "rules": [{"type": "q4_k", "layers": "last 2"}]})", "last 2");
  expect_refused(R"({"base": "q4_k", "rules": [{"type": "q4_k", "layers": "first n/0"}]})", "first n/0");
  expect_refused(R"({"base": "q4_k", "rules": [{"type": "q4_k", "tensor": "attn_z"}]})", "attn_z");
  expect_refused(R"({"base": "q4_k", "rules": [{"type": "q4_k", "match": "("}]})", "missing closing parenthesis");
}

TEST(Recipe, UnknownTypeNamesNearOnes) {
  try {
    load_recipe("q4km");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("q4_k_m"), std::string::npos) << error.what();
  }
  EXPECT_THROW(load_recipe("stock"), Error);
  EXPECT_THROW(load_recipe("i32"), Error);
  EXPECT_THROW(load_recipe("int4-g128"), Error);
}

TEST(Recipe, EveryBuiltInRecipeParses) {
  for (const std::string& name : recipe_names()) {
    const Recipe recipe = load_recipe(name);
    EXPECT_FALSE(recipe.about.empty()) << name;
    EXPECT_TRUE(recipe.file_type.has_value()) << name;
  }
  EXPECT_EQ(recipe_names().size(), 22u);
}

}  // namespace
}  // namespace nibble::pipeline
