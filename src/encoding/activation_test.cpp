#include "encoding/activation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/rng.h"

namespace nibble::encoding {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<float> rounded(const InputRounding& rounding, std::vector<float> x) {
  round_inputs(rounding, x.data(), static_cast<std::int64_t>(x.size()), x.data());
  return x;
}

TEST(ActivationTypes, AreInternedByName) {
  EXPECT_EQ(find_activation("int8-token"), find_activation("int8-token"));
  const ActivationInfo& info = get_activation("int4-g32-asym-over2.5");
  EXPECT_EQ(info.bits, 4);
  EXPECT_EQ(info.scope, InputScope::kGroup);
  EXPECT_EQ(info.group, 32);
  EXPECT_FALSE(info.symmetric);
  EXPECT_EQ(info.threshold, 2.5);
  EXPECT_TRUE(get_activation("fp8-tensor").is_static());
  for (const char* name : {"", "int8", "int3-token", "int9-token", "int8-g0", "int8-g", "int8-token-",
                           "int8-token-over0", "int8-token-over-1", "int8-tokenx", "fp8-tensor-e8m0", "int8-token-e8m0",
                           "fp8-token-asym", "fp16-token", "int8-token-overnan"})
    EXPECT_EQ(find_activation(name), nullptr) << name;
  EXPECT_THROW(get_activation("int8"), Error);
}

TEST(ActivationTypes, RoundByHand) {
  // 127 / 127 a step; ties to even.
  EXPECT_THAT(rounded({&get_activation("int8-token")}, {127, -0.5f, 1.5f, 2.5f, -126.6f}),
              ElementsAre(127, 0, 2, 2, -127));
  EXPECT_THAT(rounded({&get_activation("int4-token")}, {7, -7, 3.4f, 0}), ElementsAre(7, -7, 3, 0));
  EXPECT_THAT(rounded({&get_activation("int8-g2")}, {127, 1, 12.7f, 0.1f, 0}),
              ElementsAre(127, 1, 12.7f, ::testing::FloatNear(0.1f, 1e-6f), 0));
  // A fixed scale cuts what is larger.
  EXPECT_THAT(rounded({&get_activation("int8-tensor"), 0.5f}, {100, -100, 0.6f}), ElementsAre(63.5f, -63.5f, 0.5f));
  // 0 .. 255 with the zero at 55.
  EXPECT_THAT(rounded({&get_activation("int8-tensor-asym"), 1.0f, 55}, {300, -300, 7.2f}), ElementsAre(200, -55, 7));
  // What is large stays, and does not widen the scale of the rest.
  EXPECT_THAT(rounded({&get_activation("int8-token-over6")}, {1000, 1.27f, -0.014f, -6}),
              ElementsAre(1000, ::testing::FloatNear(1.27f, 1e-6f), ::testing::FloatNear(-0.01f, 1e-6f), -6));
  EXPECT_THAT(rounded({&get_activation("fp8-token")}, {448, 17, -0.001f}), ElementsAre(448, 16, -0.001953125f));
  EXPECT_THAT(rounded({&get_activation("fp8-tensor"), 0.5f}, {1000, -1000, 8.6f, 0}), ElementsAre(224, -224, 9, 0));
  // A scale of 2 for 448.5 to 896, of 1 for 448.
  EXPECT_THAT(rounded({&get_activation("fp8-g2-e8m0")}, {448.5f, 33, 448, 33, 896, -33, 0, 0}),
              ElementsAre(448, 32, 448, 32, 896, -32, 0, 0));
}

TEST(ActivationTypes, AsymmetricOnesHoldZeroAndBothEnds) {
  const ActivationInfo& info = get_activation("int8-token-asym");
  const std::vector<float> x = {-1, 0, 4.1f}, y = rounded({&info}, x);
  const float step = 5.1f / 255;
  EXPECT_EQ(y[1], 0);
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], x[i], step * 0.51f);
}

TEST(ActivationTypes, BlockScalesAreThoseOfTheReference) {
  std::vector<float> x(160);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = random_normal(1, 2, i);
  for (const char* name : {"int8-g96", "int5-g64", "int4-g32"}) {
    const InputRounding rounding{&get_activation(name)};
    ASSERT_TRUE(has_block_scales(*rounding.activation, 32));
    std::vector<float> scales(5);
    block_scales(rounding, x.data(), 160, 32, scales.data());
    const std::vector<float> y = rounded(rounding, x);
    const float top = largest_level(*rounding.activation);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const float level = std::nearbyint(x[i] * (1.0f / scales[i / 32]));
      EXPECT_EQ(y[i], std::min(top, std::max(-top, level)) * scales[i / 32]) << name << i;
    }
  }
  for (const char* name : {"int8-token", "int8-g32-asym", "int8-g32-over6", "int8-g48", "fp8-token"})
    EXPECT_FALSE(has_block_scales(get_activation(name), 32)) << name;
}

TEST(ActivationTypes, NothingIsZeroAndWhatIsNoNumberStays) {
  const InputRounding rounding{&get_activation("int8-token")};
  EXPECT_THAT(rounded(rounding, {0, 0, 1e-40f}), ElementsAre(0, 0, 0));
  const std::vector<float> y = rounded(rounding, {NAN, 1, HUGE_VALF});
  EXPECT_TRUE(std::isnan(y[0]));
  EXPECT_EQ(y[1], 1);
  EXPECT_TRUE(std::isinf(y[2]));
  for (const char* name : {"fp8-token", "fp8-token-e8m0"}) {
    const std::vector<float> floats = rounded({&get_activation(name)}, {NAN, 0, HUGE_VALF});
    EXPECT_TRUE(std::isnan(floats[0]));
    EXPECT_EQ(floats[1], 0);
    EXPECT_TRUE(std::isinf(floats[2]));
  }
}

TEST(ActivationTypes, BadFixedScalesAreNamed) {
  const auto fault = [](const char* type, float scale, int zero = 0) -> std::string {
    try {
      check_rounding({&get_activation(type), scale, zero});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  for (const float scale : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(), HUGE_VALF})
    EXPECT_THAT(fault("int8-tensor", scale), HasSubstr("scale"));
  EXPECT_THAT(fault("int8-tensor", 1, 3), HasSubstr("zero point"));
  EXPECT_THAT(fault("int8-tensor-asym", 1, 256), HasSubstr("zero point"));
  EXPECT_EQ(fault("int8-tensor-asym", 1, 255), "");
  EXPECT_EQ(fault("int8-token", 0), "");
}

}  // namespace
}  // namespace nibble::encoding
