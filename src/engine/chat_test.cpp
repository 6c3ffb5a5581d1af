#include "engine/chat.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/bundled_test.h"

namespace nibble::engine {
namespace {

constexpr std::string_view kTemplate =
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if messages[-1].content == 'forbidden' %}{{ raise_exception('not that') }}{% endif %}"
    "{% if add_generation_prompt %}assistant:{% endif %}";

class ChatTest : public BundledModel<model::MathPath::kExact> {
 protected:
  Chat make(ChatOptions options = {.max_tokens = 12}) const {
    return Chat(model_, {}, Sampler({}), *tokenizer_, jinja::Template(kTemplate), std::move(options));
  }
};

TEST_F(ChatTest, LaterTurnsAreComputedFromWhereTheyDiffer) {
  Chat chat = make({.system = "You are a captain.", .max_tokens = 12});
  std::string shown;
  const Answer first = chat.answer(context_, "Where is the whale?", [&](std::string_view piece) { shown += piece; });
  EXPECT_EQ(shown, first.text);
  EXPECT_EQ(first.generated.tokens.size(), 12u);
  EXPECT_EQ(first.reused_tokens, 0);
  const Answer second = chat.answer(context_, "And the ship?");
  ASSERT_EQ(chat.messages().size(), 5u);
  EXPECT_EQ(chat.messages()[2].at("content").as_string(), first.text);
  EXPECT_GE(second.reused_tokens, first.prompt_tokens);
  EXPECT_LT(second.reused_tokens, second.prompt_tokens);

  // The same conversation with nothing to reuse.
  Session fresh(model_);
  json::Array messages = chat.messages();
  messages.pop_back();
  const std::string text =
      jinja::Template(kTemplate).render(template_variables(tokenizer_->vocabulary(), messages, {}), {});
  EXPECT_EQ(text.substr(0, 40), "<s>system: You are a captain.\nuser: Wher");
  Sampler sampler({});
  const Generated expected =
      generate(context_, fresh, sampler, tokenizer_->encode(text, {.add_special = false}), {.max_tokens = 12});
  EXPECT_EQ(second.generated.tokens, expected.tokens);
}

TEST_F(ChatTest, ResetBeginsAnew) {
  Chat chat = make();
  const Answer first = chat.answer(context_, "Where is the whale?");
  chat.answer(context_, "And the ship?");
  chat.reset();
  EXPECT_TRUE(chat.messages().empty());
  const Answer again = chat.answer(context_, "Where is the whale?");
  EXPECT_EQ(again.generated.tokens, first.generated.tokens);
  EXPECT_EQ(again.reused_tokens, again.prompt_tokens - 1) << "all is there, but one token must be fed";
}

TEST_F(ChatTest, CancellingKeepsWhatWasSaid) {
  Chat chat = make({.max_tokens = 100});
  int pieces = 0;
  const Answer stopped = chat.answer(context_, "Where is the whale?", [&](std::string_view) {
    if (++pieces == 5) cancel_.cancel();
  });
  EXPECT_EQ(stopped.generated.reason, StopReason::kCallback);
  EXPECT_LT(stopped.generated.tokens.size(), 10u);
  ASSERT_EQ(chat.messages().size(), 2u);
  EXPECT_EQ(chat.messages()[1].at("content").as_string(), stopped.text);

  // Before the first word: as if nothing had been asked.
  const Answer nothing = chat.answer(context_, "And the ship?");
  EXPECT_TRUE(nothing.text.empty());
  EXPECT_EQ(chat.messages().size(), 2u);
  CancelToken other;
  ExecContext going_on{pool_, other, progress_};
  const Answer after = chat.answer(going_on, "And the ship?");
  EXPECT_EQ(chat.messages().size(), 4u);
  EXPECT_GT(after.reused_tokens, 0);
}

TEST_F(ChatTest, WhatFailsIsNotPartOfTheConversation) {
  Chat chat(model_, {.context = 64}, Sampler({}), *tokenizer_, jinja::Template(kTemplate), {.max_tokens = 4});
  chat.answer(context_, "Where is the whale?");
  try {
    chat.answer(context_, "forbidden");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "chat template: line 2: not that");
  }
  EXPECT_EQ(chat.messages().size(), 2u);
  std::string longer;
  for (int i = 0; i < 100; ++i) longer += "whale ";
  EXPECT_THROW(chat.answer(context_, longer), Error);
  EXPECT_EQ(chat.messages().size(), 2u);
  EXPECT_EQ(chat.answer(context_, "And the ship?").generated.reason, StopReason::kMaxTokens);
}

TEST_F(ChatTest, TheContextEndsAnAnswer) {
  Chat chat(model_, {.context = 40}, Sampler({.logit_bias = {{2, -100.0f}}}), *tokenizer_, jinja::Template(kTemplate),
            {});
  EXPECT_EQ(chat.answer(context_, "Where is the whale?").generated.reason, StopReason::kContextFull);
}

TEST(EndTokens, AreAllThatTheFilesNameAndTheUsualNames) {
  token::Vocabulary vocabulary;
  vocabulary.tokens = {"a", "<|eom_id|>", "</s>", "<|im_end|>", "<|endoftext|>", "<|call|>"};
  vocabulary.types.assign(6, token::TokenType::kControl);
  vocabulary.types[5] = token::TokenType::kNormal;
  vocabulary.eos = 2;
  vocabulary.eot = 3;
  vocabulary.ends = {2, 0};
  EXPECT_EQ(end_tokens(vocabulary), (std::vector<token::TokenId>{2, 3, 0, 1, 4}));
}

}  // namespace
}  // namespace nibble::engine
