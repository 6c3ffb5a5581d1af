#include "train/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace nibble::train {
namespace {

TEST(Schedule, WarmsUpInEqualParts) {
  for (const std::string_view name : schedule_names()) {
    const Schedule schedule = make_schedule(name, 100, 4, 0.05);
    EXPECT_EQ(schedule.factor(0), 0.25) << name;
    EXPECT_EQ(schedule.factor(2), 0.75) << name;
    EXPECT_EQ(schedule.factor(3), 1) << name;
    EXPECT_EQ(schedule.factor(4), 1) << name;
  }
}

TEST(Schedule, FallsToTheFinalFractionAtTheLastStep) {
  const Schedule cosine = make_schedule("cosine", 101, 0, 0.05);
  EXPECT_EQ(cosine.factor(0), 1);
  EXPECT_NEAR(cosine.factor(25), 0.05 + 0.95 * 0.85355339059327379, 1e-12);  // (1 + cos(pi / 4)) / 2
  EXPECT_NEAR(cosine.factor(50), 0.525, 1e-12);
  EXPECT_NEAR(cosine.factor(100), 0.05, 1e-12);
  EXPECT_NEAR(cosine.factor(1000), 0.05, 1e-12);
  const Schedule linear = make_schedule("linear", 111, 10, 0);
  EXPECT_NEAR(linear.factor(35), 0.75, 1e-12);
  EXPECT_EQ(linear.factor(110), 0);
  const Schedule constant = make_schedule("constant", 10, 0, 0.05);
  EXPECT_EQ(constant.factor(9), 1);
}

TEST(Schedule, ShortRuns) {
  EXPECT_EQ(make_schedule("cosine", 1, 0, 0).factor(0), 1);
  EXPECT_EQ(make_schedule("cosine", 2, 1, 0).factor(1), 1);
  EXPECT_EQ(make_schedule("linear", 3, 3, 0).factor(2), 1);
}

TEST(Schedule, RefusesWhatIsNone) {
  EXPECT_THROW(make_schedule("cosin", 10, 0, 0), Error);
  EXPECT_THROW(make_schedule("cosine", 0, 0, 0), Error);
  EXPECT_THROW(make_schedule("cosine", 10, 11, 0), Error);
  EXPECT_THROW(make_schedule("cosine", 10, -1, 0), Error);
  EXPECT_THROW(make_schedule("cosine", 10, 0, 1.5), Error);
  EXPECT_THROW(make_schedule("cosine", 10, 0, -0.1), Error);
  try {
    make_schedule("cosin", 10, 0, 0);
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("no schedule is called 'cosin'; there are: cosine"));
  }
}

}  // namespace
}  // namespace nibble::train
