#include "engine/generate.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/bundled_test.h"

namespace nibble::engine {
namespace {

class Generate : public BundledModel<model::MathPath::kFast> {
 protected:
  Generated run(Session& session, const GenerateOptions& options,
                const std::function<bool(token::TokenId)>& on_token = {}) {
    Sampler sampler({});
    return generate(context_, session, sampler, tokenizer_->encode("It was the best of times, it was"), options,
                    on_token);
  }
};

TEST_F(Generate, StopsWhereAsked) {
  Session session(model_);
  std::vector<token::TokenId> seen;
  const Generated all = run(session, {.max_tokens = 12}, [&](token::TokenId id) { return seen.push_back(id), true; });
  EXPECT_EQ(all.tokens.size(), 12u);
  EXPECT_EQ(all.tokens, seen);
  EXPECT_EQ(all.reason, StopReason::kMaxTokens);
  session.rewind(0);
  const Generated again = run(session, {.max_tokens = 12});
  EXPECT_EQ(again.tokens, all.tokens);
  session.rewind(0);
  const Generated stopped = run(session, {.max_tokens = 12, .stop_tokens = {all.tokens[3]}});
  EXPECT_EQ(stopped.reason, StopReason::kStopToken);
  EXPECT_LE(stopped.tokens.size(), 3u);
  session.rewind(0);
  int calls = 0;
  const Generated short_one = run(session, {.max_tokens = 12}, [&](token::TokenId) { return ++calls < 2; });
  EXPECT_EQ(short_one.reason, StopReason::kCallback);
  EXPECT_EQ(short_one.tokens.size(), 2u);
}

TEST_F(Generate, FillsTheContextAndNoMore) {
  Session session(model_, {.context = 20});
  const Generated out = run(session, {.max_tokens = 100});
  EXPECT_EQ(out.reason, StopReason::kContextFull);
  EXPECT_EQ(session.position(), 20);
  session.rewind(0);
  const std::vector<token::TokenId> too_long(21, 5);
  EXPECT_THROW(session.feed(context_, too_long), Error);
  EXPECT_EQ(session.position(), 0);
}

TEST_F(Generate, RefusesBadInput) {
  Session session(model_);
  EXPECT_THROW(session.feed(context_, {}), Error);
  for (const token::TokenId id : {-1, 4096, 1 << 30}) EXPECT_THROW(session.feed(context_, {&id, 1}), Error);
  EXPECT_EQ(session.position(), 0);
  EXPECT_THROW(session.rewind(1), Error);
}

TEST_F(Generate, CancelLeavesTheSessionAsItWas) {
  Session session(model_);
  const token::TokenId id = 7;
  session.feed(context_, {&id, 1});
  cancel_.cancel();
  try {
    session.feed(context_, {&id, 1});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCancelled);
  }
  EXPECT_EQ(session.position(), 1);
}

TEST_F(Generate, FeedingInPiecesGivesTheSameLogits) {
  const auto prompt = tokenizer_->encode("Call me Ishmael. Some years ago");
  Session whole(model_), pieces(model_);
  const auto expected = whole.feed(context_, prompt);
  std::span<const float> got;
  for (const token::TokenId& id : prompt) got = pieces.feed(context_, {&id, 1});
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-4f);
}

}  // namespace
}  // namespace nibble::engine
