// Chunks of both protocols on token lists whose cuts are plain to see.
#include "calib/token_chunks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"

namespace nibble::calib {
namespace {

std::vector<token::TokenId> tokens_up_to(int n) {
  std::vector<token::TokenId> tokens(static_cast<std::size_t>(n));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

TEST(TokenChunks, LlamaCppReplacesTheFirstTokenAndScoresSecondHalves) {
  const TokenChunks chunks = cut_chunks(tokens_up_to(27), 99, {.protocol = Protocol::kLlamaCpp, .context = 8});
  EXPECT_EQ(chunks.n_chunks, 3);
  EXPECT_EQ(chunks.first_scored, 4);
  EXPECT_EQ(chunks.scored_per_chunk(), 3);  // positions 4, 5, 6 predict 5, 6, 7
  EXPECT_THAT(chunks.chunk(1), ::testing::ElementsAre(99, 9, 10, 11, 12, 13, 14, 15));
}

TEST(TokenChunks, WithoutBeginningTokenNothingIsReplaced) {
  const TokenChunks chunks = cut_chunks(tokens_up_to(16), -1, {.protocol = Protocol::kLlamaCpp, .context = 8});
  EXPECT_THAT(chunks.chunk(1), ::testing::ElementsAre(8, 9, 10, 11, 12, 13, 14, 15));
}

TEST(TokenChunks, WindowScoresEveryPredictionInside) {
  const TokenChunks chunks =
      cut_chunks(tokens_up_to(20), 99, {.protocol = Protocol::kWindow, .context = 5, .max_chunks = 2});
  EXPECT_EQ(chunks.n_chunks, 2);
  EXPECT_EQ(chunks.scored_per_chunk(), 4);
  EXPECT_THAT(chunks.chunk(1), ::testing::ElementsAre(5, 6, 7, 8, 9));
}

TEST(TokenChunks, RefusesWhatCannotBeScored) {
  EXPECT_THROW(cut_chunks(tokens_up_to(7), 1, {.context = 8}), Error);
  EXPECT_THROW(cut_chunks(tokens_up_to(7), 1, {.context = 2}), Error);
  EXPECT_THROW(cut_chunks(tokens_up_to(7), 1, {.context = -4}), Error);
  EXPECT_THROW(cut_chunks(tokens_up_to(99), 1, {.context = 8, .max_chunks = -1}), Error);
  try {
    cut_chunks(tokens_up_to(100), 1, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the text has 100 tokens, fewer than one chunk of 512");
  }
}

TEST(TokenChunks, ProtocolsByName) {
  EXPECT_EQ(parse_protocol("llama.cpp"), Protocol::kLlamaCpp);
  EXPECT_EQ(parse_protocol("window"), Protocol::kWindow);
  EXPECT_EQ(parse_protocol("gptq"), std::nullopt);
}

}  // namespace
}  // namespace nibble::calib
