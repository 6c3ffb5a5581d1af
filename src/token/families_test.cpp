// The pre-tokenizers of the model families, as their tokenizer.json files have them, under the names that llama.cpp's
// converter gives their files (or a name that stands for the same there).
#include <gtest/gtest.h>

#include "json/json.h"
#include "token/pre_tokenizer.h"
#include "token/tokenizer_json.h"

namespace nibble::token {
namespace {

constexpr std::string_view kBytes =
    R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false})";
constexpr std::string_view kGpt2 =
    R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";
constexpr std::string_view kOldGpt2 = R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true})";
constexpr std::string_view kSingleDigits = R"({"type":"Digits","individual_digits":true})";
constexpr std::string_view kCl100k =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeekV3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::string split(std::string_view pattern) {
  json::Value part;
  part.set("type", "Split");
  json::Value regex;
  regex.set("Regex", std::string(pattern));
  part.set("pattern", regex);
  part.set("behavior", "Isolated");
  part.set("invert", false);
  return json::dump(part);
}

std::string sequence(std::initializer_list<std::string_view> parts) {
  std::string list;
  for (std::string_view part : parts) list += (list.empty() ? "" : ",") + std::string(part);
  return R"({"type":"Sequence","pretokenizers":[)" + list + "]}";
}

Vocabulary with_pre_tokenizer(std::string_view pre, bool ignore_merges) {
  return parse_tokenizer_json(R"({"pre_tokenizer":)" + std::string(pre) +
                              R"(,"model":{"type":"BPE","vocab":{"a":0},"merges":[],"ignore_merges":)" +
                              (ignore_merges ? "true}}" : "false}}"));
}

struct Family {
  std::string pre;
  bool ignore_merges;
  std::string_view name;  // of the same row of names as the one that llama.cpp's converter gives
};

std::vector<Family> families() {
  const std::string letters = find_pre_tokenizer("deepseek-llm")->patterns[1];
  return {
      {std::string(kOldGpt2), false, "gpt-2"},
      {sequence({R"({"type":"Punctuation","behavior":"Contiguous"})", kGpt2,
                 R"({"type":"Digits","individual_digits":false})", split("[0-9][0-9][0-9]")}),
       false, "falcon"},
      {sequence({kSingleDigits, kGpt2}), false, "command-r"},
      {sequence({kSingleDigits, kGpt2}), false, "refact"},
      {sequence({split(kQwen2), kBytes}), false, "stablelm2"},
      {sequence({split(kQwen2), kBytes}), false, "qwen2"},
      {sequence({split(kCl100k), kBytes}), false, "dbrx"},
      {sequence({split(kCl100k), kBytes}), true, "llama-bpe"},
      {sequence({split(kTekken), kBytes}), true, "tekken"},
      {sequence({split(kO200k), kBytes}), false, "gpt-4o"},
      {sequence({split("[\r\n]"), split(letters), split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"), split("\\s+$"),
                 split("[一-龥ࠀ-一가-퟿]+"), R"({"type":"Digits","individual_digits":false})", kBytes}),
       false, "deepseek-llm"},
      {sequence({split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
                 kSingleDigits, kBytes}),
       false, "deepseek-coder"},
      {sequence({split("\\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(kDeepSeekV3), kBytes}), false,
       "deepseek-v3"},
  };
}

TEST(Families, PreTokenizersHaveTheirNames) {
  for (const Family& family : families()) {
    const Vocabulary v = with_pre_tokenizer(family.pre, family.ignore_merges);
    const PreTokenizer* found = find_pre_tokenizer(v.pre);
    ASSERT_NE(found, nullptr) << family.name;
    EXPECT_EQ(found->patterns, find_pre_tokenizer(family.name)->patterns) << family.name << ": " << v.pre;
    EXPECT_EQ(found->ignore_merges, family.ignore_merges) << family.name << ": " << v.pre;
  }
}

// Read back from GGUF the name has to cut a text as the tokenizer.json does.
TEST(Families, NamesCutAsTheFilesDo) {
  constexpr std::string_view kText =
      "I'VE 12345 ½²x  we'll\r\n\n  HTTPServer fooBar/baz… “q” don’t 漢字かな12 한국어 Привет, e\u0301!!! \t\n x_y `z` "
      "$3.50\n";
  for (const Family& family : families()) {
    const Vocabulary v = with_pre_tokenizer(family.pre, family.ignore_merges);
    Splitter::Scratch a, b;
    const auto cuts = [&](const std::vector<std::string>& patterns, Splitter::Scratch& scratch) {
      std::vector<std::size_t> ends;
      for (const Span& piece : Splitter(patterns).split(kText, scratch)) ends.push_back(piece.end);
      return ends;
    };
    EXPECT_EQ(cuts(v.split_patterns, a), cuts(find_pre_tokenizer(v.pre)->patterns, b)) << family.name;
  }
}

}  // namespace
}  // namespace nibble::token
