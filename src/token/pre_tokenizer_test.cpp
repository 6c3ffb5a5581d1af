#include "token/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace nibble::token {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> split(const std::vector<std::string>& patterns, std::string_view text) {
  const Splitter splitter(patterns);
  Splitter::Scratch scratch;
  std::vector<std::string> pieces;
  for (const Span& piece : splitter.split(text, scratch))
    pieces.emplace_back(text.substr(piece.begin, piece.end - piece.begin));
  return pieces;
}

const std::vector<std::string>& patterns_of(std::string_view name) { return find_pre_tokenizer(name)->patterns; }

template <typename Body>
std::string message_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Oniguruma, SetsByUnicodeProperty) {
  EXPECT_EQ(translate_oniguruma(R"(\s+[^\s\p{L}]\S)"), R"(\p{WSpace}+[^\p{WSpace}\p{L}]\P{WSpace})");
  EXPECT_EQ(translate_oniguruma(R"(\\s[\]\\]\u00e9)"), R"(\\s[\]\\]\x{00e9})");
}

TEST(Oniguruma, ClassesInsideClasses) {
  EXPECT_EQ(translate_oniguruma("[^(a|[.,])]"), "[^(a|.,)]");
  EXPECT_EQ(split({"[a-z&&[^aeiou]]+"}, "hello"), (std::vector<std::string>{"h", "e", "ll", "o"}));
  EXPECT_EQ(split({"[^a-z&&[^0-9]]+"}, "ab12!?cd"), (std::vector<std::string>{"ab", "12!?", "cd"}));
  EXPECT_EQ(split({"[x[^a-z]]+"}, "abx12cd"), (std::vector<std::string>{"ab", "x12", "cd"}));
}

TEST(Oniguruma, IntervalsAreNotPossessive) {
  EXPECT_EQ(split({R"(\p{N}{1,3}+)"}, "a12345b"), (std::vector<std::string>{"a", "12345", "b"}));
}

TEST(Regex, SaysWhatDoesNotCompile) {
  EXPECT_THAT(message_of([] { Regex("a(b"); }), HasSubstr("'a(b' does not compile"));
  EXPECT_THAT(message_of([] { Regex("[a"); }), HasSubstr("unfinished class"));
  EXPECT_THAT(message_of([] { Regex("a\\"); }), HasSubstr("backslash"));
  EXPECT_THAT(message_of([] { Regex(R"(\p{Klingon})"); }), HasSubstr("Klingon"));
}

TEST(Regex, EndlessBacktrackingIsAnError) {
  const std::string text = std::string(200, 'a') + "b";
  EXPECT_THAT(message_of([&] { split({"(a+)+$"}, text); }), HasSubstr("match limit"));
}

TEST(Regex, EmptyMatchesCut) {
  EXPECT_EQ(split({R"((?=(\d{3})+(?!\d)))"}, "1234567"), (std::vector<std::string>{"1", "234", "567"}));
  EXPECT_EQ(split({"x*"}, "añb"), (std::vector<std::string>{"a", "ñ", "b"}));
}

TEST(PreTokenizer, SplitsAsTheModelsDo) {
  EXPECT_THAT(split(patterns_of("gpt-2"), "It's 1234  ok"), ElementsAre("It", "'s", " 1234", " ", " ok"));
  EXPECT_THAT(split(patterns_of("llama-bpe"), "IT'S 1234  ok"), ElementsAre("IT", "'S", " ", "123", "4", " ", " ok"));
  EXPECT_THAT(split(patterns_of("qwen2"), "a12\n\nb"), ElementsAre("a", "1", "2", "\n\n", "b"));
  EXPECT_THAT(split(patterns_of("tekken"), "fooBarHTTPServer a/b"),
              ElementsAre("foo", "Bar", "HTTPServer", " a", "/b"));
  EXPECT_THAT(split(patterns_of("gpt-4o"), "I'll we'RE"), ElementsAre("I'll", " we'RE"));
  EXPECT_THAT(split(patterns_of("deepseek-v3"), "x漢字12345"), ElementsAre("x", "漢字", "123", "45"));
  EXPECT_THAT(split(patterns_of("kimi-k2"), "ab漢字cd"), ElementsAre("ab", "漢字", "cd"));
  EXPECT_THAT(split(patterns_of("superbpe"), "a1234567"), ElementsAre("a", "1", "234", "567"));
}

TEST(PreTokenizer, EveryNameCompilesAndIsFoundAgain) {
  for (std::string_view name : {"gpt-2",       "llama-bpe",    "smaug-bpe",      "qwen2",
                                "qwen35",      "tekken",       "gpt-4o",         "smollm",
                                "deepseek-v3", "deepseek-llm", "deepseek-coder", "falcon",
                                "default",     "bloom",        "viking",         "kimi-k2",
                                "bailingmoe",  "seed-coder",   "exaone-moe",     "minicpm5",
                                "jais-2",      "tiny_aya",     "superbpe",       "afmoe",
                                "youtu",       "laguna",       "chameleon",      "granite-embed-multi-97m"}) {
    const PreTokenizer* entry = find_pre_tokenizer(name);
    ASSERT_NE(entry, nullptr) << name;
    EXPECT_EQ(match_pre_tokenizer(entry->patterns, entry->ignore_merges), name);
    EXPECT_FALSE(split(entry->patterns, "Some text, 12 !").empty());
  }
  EXPECT_EQ(find_pre_tokenizer("no-such"), nullptr);
}

TEST(PreTokenizer, FoundByWhatItDoes) {
  // The same function in other words.
  const std::vector<std::string> llama = {
      R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
  EXPECT_EQ(match_pre_tokenizer(llama, true), "llama-bpe");
  EXPECT_EQ(match_pre_tokenizer(llama, false), "smaug-bpe");
  const std::vector<std::string> none = {"[aeiou]"};
  EXPECT_EQ(match_pre_tokenizer(none, false), "");
}

}  // namespace
}  // namespace nibble::token
