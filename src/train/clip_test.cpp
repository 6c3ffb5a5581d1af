#include "train/clip.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "train/parameters_test.h"

namespace nibble::train {
namespace {

TEST(Clip, NormOverAllParametersInAnyNumberOfThreads) {
  double first = 0;
  for (const int threads : {1, 2, 3}) {
    OwnedExecContext context(RunContext{.threads = threads});
    TestParameters parameters({7, 100001, 16384, 1});
    double expected = 0;
    for (Parameter* parameter : parameters.pointers) {
      set_gradient(*parameter, 1);
      for (std::int64_t i = 0; i < parameter->size(); ++i) {
        expected += static_cast<double>(parameter->gradients()[i]) * parameter->gradients()[i];
      }
    }
    const double norm = gradient_norm(*context, parameters.pointers);
    EXPECT_NEAR(norm, std::sqrt(expected), 1e-12 * norm);
    if (threads == 1) first = norm;
    EXPECT_EQ(norm, first);
  }
}

// torch.nn.utils.clip_grad_norm_([3, 4], 1): norm 5, gradients times 1 / (5 + 1e-6).
TEST(Clip, AsTorchClips) {
  OwnedExecContext context(RunContext{.threads = 1});
  TestParameters parameters({1, 1});
  parameters.pointers[0]->gradients()[0] = 3;
  parameters.pointers[1]->gradients()[0] = 4;
  EXPECT_EQ(clip_gradients(*context, parameters.pointers, 0).norm, 5);
  EXPECT_EQ(clip_gradients(*context, parameters.pointers, 6).factor, 1);
  EXPECT_EQ(parameters.pointers[0]->gradients()[0], 3);
  const Clipped clipped = clip_gradients(*context, parameters.pointers, 1);
  EXPECT_EQ(clipped.norm, 5);
  EXPECT_EQ(clipped.factor, 1 / (5 + 1e-6));
  EXPECT_FLOAT_EQ(parameters.pointers[0]->gradients()[0], 0.59999988f);
  EXPECT_FLOAT_EQ(parameters.pointers[1]->gradients()[0], 0.79999984f);
  EXPECT_THROW(clip_gradients(*context, parameters.pointers, -1), Error);
  EXPECT_THROW(clip_gradients(*context, parameters.pointers, NAN), Error);
}

TEST(Clip, SaysThatTheNormIsNotFiniteAndTouchesNothing) {
  OwnedExecContext context(RunContext{.threads = 2});
  for (const float bad : {NAN, INFINITY}) {
    TestParameters parameters({40000});
    set_gradient(*parameters.pointers[0], 1);
    parameters.pointers[0]->gradients()[39999] = bad;
    const float before = parameters.pointers[0]->gradients()[1];
    const Clipped clipped = clip_gradients(*context, parameters.pointers, 1e-3);
    EXPECT_FALSE(clipped.finite());
    EXPECT_EQ(clipped.factor, 1);
    EXPECT_EQ(parameters.pointers[0]->gradients()[1], before);
  }
  TestParameters huge({2});  // beyond f32 when squared
  huge.pointers[0]->gradients()[0] = 3e30f;
  huge.pointers[0]->gradients()[1] = 4e30f;
  EXPECT_NEAR(clip_gradients(*context, huge.pointers, 0).norm, 5e30, 1e24);
}

}  // namespace
}  // namespace nibble::train
