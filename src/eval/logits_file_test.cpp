// The file of log-probabilities, read back byte by byte: rows made up for its corners, and those of the bundled model.
#include "eval/logits_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/cpu.h"
#include "base/error.h"
#include "eval/score.h"
#include "eval/token_score.h"
#include "token/tokenizer.h"

namespace nibble::eval {
namespace {

namespace fs = std::filesystem;
using calib::TokenChunks;

class LogitsFileTest : public ::testing::Test {
 protected:
  ~LogitsFileTest() override { fs::remove(path_); }

  template <typename T>
  static T at(const std::string& file, std::size_t offset) {
    T value;
    EXPECT_LE(offset + sizeof value, file.size());
    std::memcpy(&value, file.data() + offset, sizeof value);
    return value;
  }
  // ln q of token `i` in the row that begins at `offset`.
  static double log_prob(const std::string& file, std::size_t offset, std::size_t i) {
    return at<float>(file, offset + 4) +
           static_cast<double>(at<float>(file, offset)) * at<std::uint16_t>(file, offset + 8 + 2 * i);
  }

  fs::path path_ = fs::path(::testing::TempDir()) /
                   ("logits-" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
};

TEST_F(LogitsFileTest, RowsOfEveryKind) {
  const std::vector<token::TokenId> tokens = {1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0};
  const TokenChunks chunks = calib::cut_chunks(tokens, -1, {.context = 6});
  ASSERT_EQ(chunks.scored(), 4);
  LogitsFile file(path_, chunks, 3);
  const float rows[4][3] = {{1, -2, 0.5F}, {3, 3, 3}, {0, -40, -15.999F}, {-1e4F, 1e4F, 1e4F - 1}};
  for (const int i : {2, 0, 3, 1}) file.write_row(i, rows[i], summarize_logits(rows[i], 3).log_sum);
  EXPECT_FALSE(fs::exists(path_));
  file.commit();

  const std::string bytes = read_file(path_);
  const std::size_t header = 8 + 3 * 4 + 12 * 4, row = 8 + 4 * 2;  // three tokens, padded to four
  ASSERT_EQ(bytes.size(), header + 4 * row);
  EXPECT_EQ(bytes.substr(0, 8), "_logits_");
  EXPECT_EQ(at<std::int32_t>(bytes, 8), 6);
  EXPECT_EQ(at<std::int32_t>(bytes, 12), 3);
  EXPECT_EQ(at<std::int32_t>(bytes, 16), 2);
  for (std::size_t i = 0; i < tokens.size(); ++i) EXPECT_EQ(at<std::int32_t>(bytes, 20 + 4 * i), tokens[i]);
  for (std::size_t r = 0; r < 4; ++r) {
    const double log_sum = summarize_logits(rows[r], 3).log_sum;
    const float largest = *std::max_element(rows[r], rows[r] + 3);
    for (std::size_t i = 0; i < 3; ++i) {
      const double expected = std::max(rows[r][i], largest - 16) - log_sum;
      EXPECT_NEAR(log_prob(bytes, header + r * row, i), expected, 1.3e-4) << r << " " << i;  // half a step
    }
    EXPECT_EQ(at<std::uint16_t>(bytes, header + r * row + 8 + 3 * 2), 0);
  }
  EXPECT_EQ(at<std::uint16_t>(bytes, header + 8), 65535);         // the largest is at the top level,
  EXPECT_EQ(at<std::uint16_t>(bytes, header + 8 + 2), 0);         // the smallest at the lowest
  EXPECT_EQ(at<float>(bytes, header + row), 0);                   // equal logits span nothing
  EXPECT_EQ(at<std::uint16_t>(bytes, header + 2 * row + 10), 0);  // deeper than 16
}

TEST_F(LogitsFileTest, LogProbabilitiesOfAModel) {
  ThreadPool pool(2);
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
  const auto source = model::ModelSource::open(std::string(NIBBLE_SOURCE_DIR) + "/models/books-7m");
  const auto tokenizer = token::make_tokenizer(source->vocabulary());
  const TokenChunks chunks =
      calib::chunk_text(*tokenizer, "It was a dark night, and the wind came over the moor from the sea. They sat long.",
                        {.context = 10, .max_chunks = 2});
  Contender contender{"model", model::Model::load(context, source, {model::MathPath::kExact, best_isa()}),
                      model::KvType::kF32};
  const std::int64_t vocab = source->spec().vocab;
  LogitsFile file(path_, chunks, vocab);
  contender.save = &file;
  const ScoreTable table = score_chunks(context, chunks, nullptr, {&contender, 1});
  file.commit();

  const std::string bytes = read_file(path_);
  const std::size_t row = 8 + 2 * static_cast<std::size_t>(vocab);
  std::size_t offset = 20 + 4 * chunks.tokens.size();
  ASSERT_EQ(bytes.size(), offset + 8 * row);
  for (std::int64_t c = 0; c < 2; ++c) {
    model::KvCache cache(source->spec(), model::KvType::kF32, 1, chunks.context);
    const model::Segment segment{0, chunks.chunk(c).first(9), 5};
    contender.model->forward(
        context, cache, {&segment, 1}, [&](std::size_t, std::int64_t, std::int64_t n, const float* logits) {
          for (std::int64_t t = 0; t < n; ++t, logits += vocab, offset += row) {
            const double log_sum = summarize_logits(logits, vocab).log_sum;
            const float largest = *std::max_element(logits, logits + vocab);
            for (std::int64_t i = 0; i < vocab; ++i) {
              const double expected = std::max(logits[i], largest - 16) - log_sum;
              ASSERT_NEAR(log_prob(bytes, offset, static_cast<std::size_t>(i)), expected, 1.5e-4) << c << " " << i;
            }
          }
        });
  }
  EXPECT_EQ(offset, bytes.size());
  // The loss of the text's own token, as the score table has it: the first scored one of the second chunk.
  const auto next = static_cast<std::size_t>(chunks.chunk(1)[6]);
  EXPECT_NEAR(-log_prob(bytes, offset - 4 * row, next), table.contenders[0].nll[4], 1.5e-4);
}

TEST_F(LogitsFileTest, WindowsAreRefusedAndLeaveNothing) {
  const TokenChunks chunks =
      calib::cut_chunks(std::vector<token::TokenId>(16, 1), -1, {calib::Protocol::kWindow, 8, 0});
  EXPECT_THROW(LogitsFile(path_, chunks, 3), Error);
  EXPECT_FALSE(fs::exists(path_));
}

}  // namespace
}  // namespace nibble::eval
