// Where the answers of conversations stand in what chat templates make of them.
#include "train/chat_example.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "train/tokenizer_test.h"

namespace nibble::train {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kChatMl =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
// Takes white space off and thoughts of all answers but the last; an answer without one gets an empty one.
constexpr std::string_view kThoughts =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last "
    "%}<think>\n\n</think>\n\n"
    "{% endif %}{{ m.content.split('</think>')[-1] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

json::Value message(const char* role, const char* content) {
  return json::Object{{"role", role}, {"content", content}};
}

const json::Array kTwoTurns = {message("user", "How many?"), message("assistant", "Seven."), message("user", "Sure?"),
                               message("assistant", "Yes!")};

std::string learned_of(std::string_view source, const json::Array& messages) {
  const auto tokenizer = byte_tokenizer();
  try {
    return learned_text(*tokenizer, chat_example(*tokenizer, jinja::Template(source), messages, {}, {}));
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(ChatExample, AnswersAndTheirEndTokens) {
  EXPECT_EQ(learned_of(kChatMl, kTwoTurns), "«Seven.<|im_end|>»«Yes!<|im_end|>»");
  EXPECT_EQ(learned_of(kChatMl, {message("assistant", "Hello."), message("user", "Hi.")}), "«Hello.<|im_end|>»");
  EXPECT_EQ(learned_of(kChatMl, {message("user", "Hi."), message("assistant", "")}), "«<|im_end|>»");
}

TEST(ChatExample, TheWholeConversationIsInTheExample) {
  const auto tokenizer = byte_tokenizer();
  const Example example = chat_example(*tokenizer, jinja::Template(kChatMl), kTwoTurns, {}, {});
  EXPECT_EQ(tokenizer->decode(example.tokens, true),
            "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\nSeven.<|im_end|>\n"
            "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\nYes!<|im_end|>\n");
}

TEST(ChatExample, TemplatesThatRenderEarlierTurnsInAnotherWay) {
  json::Array messages = kTwoTurns;
  messages[1].set("content", "<think>count</think> Seven. ");
  EXPECT_EQ(learned_of(kThoughts, messages), "«Seven.<|im_end|>»«<think>\n\n</think>\n\nYes!<|im_end|>»");
}

TEST(ChatExample, TemplatesWithoutEndTokens) {
  constexpr std::string_view kPlain =
      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
      "{% if add_generation_prompt %}assistant: {% endif %}";
  EXPECT_EQ(learned_of(kPlain, kTwoTurns), "«Seven.\n\n»«Yes!\n\n»");
  constexpr std::string_view kSpaces =
      "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }} "
      "{{ eos_token }}{% endif %}{% endfor %}";
  EXPECT_EQ(learned_of(kSpaces, kTwoTurns), "« Seven. </s>»« Yes! </s>»");
}

TEST(ChatExample, WhatCannotBeLearnedIsRefused) {
  EXPECT_THAT(learned_of(kChatMl, {message("user", "Hi.")}), HasSubstr("no message is the assistant's"));
  EXPECT_THAT(learned_of(kChatMl, {}), HasSubstr("no message is the assistant's"));
  EXPECT_THAT(learned_of(kChatMl, {message("user", "Hi."), json::Object{{"role", "assistant"}}}),
              HasSubstr("message 2: 'content': JSON: no member 'content'"));
  EXPECT_THAT(learned_of(kChatMl, {json::Object{{"role", "assistant"}, {"content", json::Array{}}}}),
              HasSubstr("message 1: 'content': JSON: expected a string, found an array"));
  EXPECT_THAT(learned_of(kChatMl, {json::Object{{"role", 7}, {"content", "x"}}}), HasSubstr("message 1: 'role': JSON"));
  EXPECT_THAT(learned_of("{{ raise_exception('only users') }}", kTwoTurns), HasSubstr("only users"));
  EXPECT_THAT(learned_of("{% for m in messages %}{{ m.role }}{% endfor %}", kTwoTurns),
              HasSubstr("does not show where this answer stands"));
}

// Tokenizers whose tokens do not spell the text as it is: a space before it (SentencePiece), composed characters.
TEST(ChatExample, TokenizersThatChangeTheText) {
  json::Array messages = kTwoTurns;
  messages[1].set("content", "Se\u0301ven.");  // e and an accent
  const auto pieces = token::make_tokenizer(token::load_vocabulary(NIBBLE_SOURCE_DIR "/models/books-7m"));
  constexpr std::string_view kSpaces =
      "{% for m in messages %}{% if m.role == 'user' %}User: {{ m.content }}\n{% else %}Answer: {{ m.content }}</s>"
      "{% endif %}{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}";
  const auto learned = [&](const token::Tokenizer& tokenizer, std::string_view source) {
    return learned_text(tokenizer, chat_example(tokenizer, jinja::Template(source), messages, {}, {}));
  };
  EXPECT_EQ(learned(*pieces, kSpaces), "« Se\u0301ven.</s>»« Yes!</s>»");
  const auto composing = token::make_tokenizer(token::load_vocabulary(NIBBLE_SOURCE_DIR "/src/token/testdata/qwen2"));
  ASSERT_EQ(composing->decode(composing->encode("e\u0301")), "\u00E9");
  std::string composed;  // byte-level tokens, as text
  const Example example = chat_example(*composing, jinja::Template(kChatMl), messages, {}, {});
  for (std::size_t i = 0; i < example.tokens.size(); ++i) {
    if (example.learned[i] != 0) composed += composing->token_bytes(example.tokens[i], true);
  }
  EXPECT_EQ(composed, "S\u00E9ven.<|im_end|>Yes!<|im_end|>");
}

// Real templates: both answers are learned, and nothing of what others say.
TEST(ChatExample, EveryRealTemplate) {
  const std::filesystem::path folder = NIBBLE_SOURCE_DIR "/src/jinja/testdata/templates";
  std::vector<std::string> refused;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path().filename());
    const std::string learned = learned_of(read_file(entry.path()), kTwoTurns);
    if (!learned.starts_with("«")) {
      refused.push_back(entry.path().stem());
      continue;
    }
    const std::size_t second = learned.find("»«");
    ASSERT_NE(second, std::string::npos);
    EXPECT_THAT(learned.substr(0, second), HasSubstr("Seven."));
    EXPECT_THAT(learned.substr(second), HasSubstr("Yes!"));
    EXPECT_EQ(learned.find("»«", second + 1), std::string::npos);
    EXPECT_THAT(learned, Not(HasSubstr("Sure")));
    EXPECT_THAT(learned, Not(HasSubstr("How")));
  }
  // Three want tools, two variables of their own; of the last one the second answer is shown in another way alone.
  EXPECT_THAT(refused,
              ::testing::UnorderedElementsAre(
                  "fireworks-ai-llama-3-firefunction-v2", "CohereForAI-c4ai-command-r-plus-tool_use",
                  "quoted-ai-sage-GigaChat-20B-A3B-instruct", "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
                  "NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "quoted-yandex-YandexGPT-5-Lite-8B-instruct"));
}

}  // namespace
}  // namespace nibble::train
