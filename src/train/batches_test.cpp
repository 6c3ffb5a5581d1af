#include "train/batches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"

namespace nibble::train {
namespace {

using ::testing::ElementsAre;

// Example i: i % 3 + 2 tokens 10 i, 10 i + 1, ...
std::vector<Example> examples(int n) {
  std::vector<Example> out;
  for (int i = 0; i < n; ++i) {
    Example example;
    for (int k = 0; k < i % 3 + 2; ++k) {
      example.tokens.push_back(10 * i + k);
      example.learned.push_back(k > 0 ? 1 : 0);
    }
    out.push_back(example);
  }
  return out;
}

TEST(Batches, PadsOnTheRight) {
  const auto all = examples(3);
  BatchStream stream(all, {.n_sequences = 2, .shuffle = false, .padding = 99});
  const Batch batch = stream.next();
  EXPECT_EQ(batch.n_sequences, 2);
  EXPECT_EQ(batch.length, 3);
  EXPECT_THAT(batch.tokens, ElementsAre(0, 1, 99, 10, 11, 12));
  EXPECT_THAT(batch.learned, ElementsAre(0, 1, 0, 0, 1, 1));
  EXPECT_EQ(batch.n_tokens, 5);
  EXPECT_EQ(batch.n_learned, 3);
  const Batch rest = stream.next();  // the epoch's last one is smaller
  EXPECT_THAT(rest.tokens, ElementsAre(20, 21, 22, 23));
  EXPECT_EQ(stream.position(), (StreamPosition{1, 0}));
  EXPECT_EQ(stream.batches_per_epoch(), 2);
}

TEST(Batches, EveryEpochHasAllExamplesInAnOrderOfItsOwn) {
  const auto all = examples(50);
  BatchStream stream(all, {.n_sequences = 1, .seed = 5});
  std::vector<std::vector<int>> orders(3);
  for (auto& order : orders) {
    for (int i = 0; i < 50; ++i) order.push_back(stream.next().tokens[0] / 10);
    EXPECT_EQ(std::set<int>(order.begin(), order.end()).size(), 50u);
    EXPECT_FALSE(std::ranges::is_sorted(order));
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
  BatchStream other(all, {.n_sequences = 1, .seed = 6});
  EXPECT_NE(other.next().tokens[0] * 50 + other.next().tokens[0], orders[0][0] * 500 + orders[0][1] * 10);
}

// From every position the stream goes on as it did.
TEST(Batches, PositionsAreExact) {
  const auto all = examples(11);
  BatchStream stream(all, {.n_sequences = 3, .seed = 1});
  std::vector<StreamPosition> positions;
  std::vector<std::vector<token::TokenId>> batches;
  for (int i = 0; i < 13; ++i) {
    positions.push_back(stream.position());
    batches.push_back(stream.next().tokens);
  }
  for (std::size_t i = 0; i < positions.size(); ++i) {
    BatchStream resumed(all, {.n_sequences = 3, .seed = 1});
    resumed.seek(positions[i]);
    for (std::size_t k = i; k < batches.size(); ++k) EXPECT_EQ(resumed.next().tokens, batches[k]) << i << " " << k;
  }
}

TEST(Batches, RefusesWhatIsNone) {
  const auto all = examples(4);
  EXPECT_THROW(BatchStream({}, {}), Error);
  EXPECT_THROW(BatchStream(all, {.n_sequences = 0}), Error);
  BatchStream stream(all, {});
  EXPECT_THROW(stream.seek({0, 4}), Error);
  EXPECT_THROW(stream.seek({-1, 0}), Error);
  EXPECT_THROW(stream.seek({0, -1}), Error);
}

}  // namespace
}  // namespace nibble::train
