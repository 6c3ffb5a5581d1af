#include "train/jsonl_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "train/tokenizer_test.h"

namespace nibble::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kChatMl =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

class JsonlDataTest : public ::testing::Test {
 protected:
  ExampleSet read(const std::string& content, const JsonlOptions& options = {}) {
    const auto path = folder_.path() / "data.jsonl";
    write_file_atomically(path, content);
    return read_jsonl(*context_, *tokenizer_, std::span(&path, 1), options);
  }
  std::string error_of(const std::string& content, const JsonlOptions& options = {}) {
    try {
      read(content, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::string learned(const ExampleSet& set, std::size_t i) { return learned_text(*tokenizer_, set.examples.at(i)); }

  TemporaryFolder folder_;
  OwnedExecContext context_{RunContext{.threads = 2}};
  std::unique_ptr<token::Tokenizer> tokenizer_ = byte_tokenizer();
};

TEST_F(JsonlDataTest, Texts) {
  const ExampleSet set = read("{\"text\":\"ab\"}\r\n\n{\"text\":\"<s>c</s>\",\"id\":7}");
  ASSERT_EQ(set.examples.size(), 2u);
  EXPECT_THAT(set.examples[0].tokens, ElementsAre(256, 'a', 'b', 257));
  EXPECT_THAT(set.examples[0].learned, ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(set.examples[1].tokens, ElementsAre(256, 'c', 257));  // neither token twice
  EXPECT_EQ(set.tokens, 7);
  EXPECT_EQ(set.learned, 5);
}

TEST_F(JsonlDataTest, OnlyTheCompletionIsLearned) {
  const ExampleSet set = read(
      "\xEF\xBB\xBF{\"prompt\":\"ab\",\"completion\":\"cd\"}\n{\"prompt\":\"\",\"completion\":\"x\"}\n"
      "{\"prompt\":\"ab\",\"completion\":\"\"}\n");
  EXPECT_THAT(set.examples[0].tokens, ElementsAre(256, 'a', 'b', 'c', 'd', 257));
  EXPECT_EQ(learned(set, 0), "«cd</s>»");
  EXPECT_EQ(learned(set, 1), "«x</s>»");
  EXPECT_EQ(learned(set, 2), "«</s>»");
}

TEST_F(JsonlDataTest, AnswersOfAConversation) {
  const ExampleSet set = read(R"({"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}]})",
                              {.chat_template = kChatMl});
  EXPECT_EQ(learned(set, 0), "«Hello<|im_end|>»");
  EXPECT_EQ(set.examples[0].tokens[0], 258);  // the template has no beginning token
}

TEST_F(JsonlDataTest, TheTokenizersOwnTemplateAndTools) {
  tokenizer_ = byte_tokenizer("{% if tools %}{{ tools[0].name }}{% endif %}" + std::string(kChatMl));
  const ExampleSet set = read(R"({"messages":[{"role":"assistant","content":"A"}],"tools":[{"name":"clock"}]})");
  EXPECT_THAT(tokenizer_->decode(set.examples[0].tokens, true), ::testing::StartsWith("clock<|im_start|>assistant"));
}

TEST_F(JsonlDataTest, LongLinesAreCutAndCounted) {
  const ExampleSet set =
      read("{\"text\":\"abcdef\"}\n{\"text\":\"a\"}\n{\"prompt\":\"ab\",\"completion\":\"cdef\"}\n", {.context = 4});
  EXPECT_EQ(set.truncated, 2);
  EXPECT_EQ(set.dropped_tokens, 8);
  EXPECT_THAT(set.examples[0].tokens, ElementsAre(256, 'a', 'b', 'c'));
  EXPECT_EQ(learned(set, 2), "«c»");
  EXPECT_THAT(error_of("{\"text\":\"a\"}\n{\"prompt\":\"abcd\",\"completion\":\"e\"}\n", {.context = 4}),
              HasSubstr("data.jsonl': line 2: none of the first 4 of 7 tokens is to be learned"));
}

TEST_F(JsonlDataTest, BadLinesAreNamed) {
  EXPECT_THAT(error_of(""), HasSubstr("data.jsonl': the file is empty"));
  EXPECT_THAT(error_of("\n \r\n"), HasSubstr("the file is empty"));
  EXPECT_THAT(error_of("{\"text\":\"a\"}\n\n{\"text\":"), HasSubstr("line 3: JSON"));
  EXPECT_THAT(error_of("[1]"), HasSubstr("line 1: JSON: expected an object, found an array"));
  EXPECT_THAT(error_of("{\"txt\":\"a\"}"), HasSubstr("line 1: there is neither 'messages' nor"));
  EXPECT_THAT(error_of("{\"text\":5}"), HasSubstr("line 1: 'text': JSON: expected a string"));
  EXPECT_THAT(error_of("{\"text\":\"\"}"), HasSubstr("line 1: 'text' is empty"));
  EXPECT_THAT(error_of("{\"prompt\":\"a\"}"), HasSubstr("line 1: 'completion': JSON: no member"));
  EXPECT_THAT(error_of("{\"prompt\":\"a\",\"completion\":null}"), HasSubstr("'completion': JSON: expected a string"));
  EXPECT_THAT(error_of("{\"messages\":\"a\"}"), HasSubstr("'messages': JSON: expected an array"));
  EXPECT_THAT(error_of("{\"messages\":[]}"), HasSubstr("line 1: 'messages' need a chat template"));
  EXPECT_THAT(error_of("{\"messages\":[]}", {.chat_template = kChatMl}), HasSubstr("no message is the assistant's"));
  EXPECT_THAT(error_of("{\"text\":\"a\"}", {.chat_template = "{% if %}"}), HasSubstr("chat template"));
  EXPECT_THAT(error_of("{\"text\":\"a\"}", {.context = 1}), HasSubstr("a context of 1"));
  EXPECT_THAT(error_of("{\"text\":\"\xFF\"}"), HasSubstr("line 1: JSON"));
}

// Of many bad lines the first is named, whatever the number of threads.
TEST_F(JsonlDataTest, TheFirstOfManyBadLines) {
  std::string content;
  for (int i = 0; i < 1000; ++i) content += i == 500 || i > 503 ? "{}\n" : "{\"text\":\"a\"}\n";
  for (int round = 0; round < 5; ++round) EXPECT_THAT(error_of(content), HasSubstr("line 501:"));
}

}  // namespace
}  // namespace nibble::train
