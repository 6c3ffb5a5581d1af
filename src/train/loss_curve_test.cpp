#include "train/loss_curve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/temporary_folder.h"

namespace nibble::train {
namespace {

using ::testing::HasSubstr;

LossRow row(std::int64_t step, std::optional<double> held_out = {}) {
  const auto x = static_cast<double>(step);
  return {step, step * 512, 1e-4 / 3, 4 / x, 0.1 * x, 1234.5, held_out};
}

class LossCurveTest : public ::testing::Test {
 protected:
  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_.path() / "loss.csv";
};

TEST_F(LossCurveTest, RowsComeBack) {
  LossCurve curve(path_, 0);
  curve.append(row(1));
  curve.append(row(3, 2.5));
  LossRow bad = row(4);
  bad.loss = NAN;
  curve.append(bad);
  const auto rows = read_loss_curve(path_);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[1].tokens, 1536);
  EXPECT_EQ(rows[1].lr, 1e-4 / 3);
  EXPECT_EQ(rows[1].loss, 4.0 / 3);
  EXPECT_EQ(rows[1].gradient_norm, 0.1 * 3);
  EXPECT_EQ(rows[1].held_out_loss, 2.5);
  EXPECT_FALSE(rows[0].held_out_loss);
  EXPECT_TRUE(std::isnan(rows[2].loss));
  EXPECT_THAT(read_file(path_), HasSubstr("step,tokens,lr,loss,gradient_norm,tokens_per_s,held_out_loss\n1,512,"));
}

TEST_F(LossCurveTest, ResumingTakesLaterRowsOut) {
  {
    LossCurve curve(path_, 0);
    for (std::int64_t step = 1; step <= 5; ++step) curve.append(row(step));
  }
  write_file_atomically(path_, read_file(path_) + "6,30");  // cut off
  LossCurve curve(path_, 3);
  curve.append(row(4, 1.0));
  const auto rows = read_loss_curve(path_);
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[2].step, 3);
  EXPECT_EQ(rows[3].held_out_loss, 1.0);
  LossCurve anew(path_, 0);
  EXPECT_TRUE(read_loss_curve(path_).empty());
}

TEST_F(LossCurveTest, OtherFilesAreRefused) {
  const auto error_of = [&](const std::string& content) {
    write_file_atomically(path_, content);
    try {
      LossCurve curve(path_, 1);
    } catch (const Error& error) {
      EXPECT_EQ(read_file(path_), content);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const std::string header = "step,tokens,lr,loss,gradient_norm,tokens_per_s,held_out_loss\n";
  EXPECT_THAT(error_of("a,b\n"), HasSubstr("loss.csv': line 1: is not 'step,"));
  EXPECT_THAT(error_of("text"), HasSubstr("is no table of losses"));
  EXPECT_THAT(error_of(header + "1,2,3\n"), HasSubstr("line 2: 3 fields instead of 7"));
  EXPECT_THAT(error_of(header + "1,2,3,4,5,6,7,8\n"), HasSubstr("line 2: 8 fields"));
  EXPECT_THAT(error_of(header + "1,2,3,4,5,6,\n1,2,x,4,5,6,\n"), HasSubstr("line 3: 'x' is no number"));
}

TEST_F(LossCurveTest, ThinnedRowsAreMeans) {
  std::vector<LossRow> rows;
  for (std::int64_t step = 1; step <= 10; ++step)
    rows.push_back(row(step, step % 2 == 0 ? std::optional(1.0 * step) : std::nullopt));
  EXPECT_EQ(thin_rows(rows, 10).size(), 10u);
  const auto thin = thin_rows(rows, 3);
  ASSERT_EQ(thin.size(), 3u);
  EXPECT_EQ(thin[0].step, 3);
  EXPECT_EQ(thin[2].step, 10);
  EXPECT_NEAR(thin[0].loss, (4 + 2 + 4.0 / 3) / 3, 1e-12);
  EXPECT_EQ(thin[0].held_out_loss, 2.0);
  EXPECT_EQ(thin[2].held_out_loss, 9.0);
}

}  // namespace
}  // namespace nibble::train
