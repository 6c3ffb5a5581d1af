#include "calib/observers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/rng.h"

namespace nibble::calib {
namespace {

using encoding::get_activation;

// Of a bell with a few far off.
std::vector<float> inputs() {
  std::vector<float> x(20000);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = random_normal(1, 2, i);
  x[7] = 40;
  x[11] = -35;
  return x;
}

double error_of(const InputRounding& rounding, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  encoding::round_inputs(rounding, x.data(), static_cast<std::int64_t>(x.size()), y.data());
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += std::pow(static_cast<double>(x[i] - y[i]), 2);
  return sum;
}

TEST(Observers, MinMaxCoversAllAndOthersCut) {
  const std::vector<float> x = inputs();
  const auto& info = get_activation("int8-tensor");
  EXPECT_FLOAT_EQ(observe(info, get_observer("minmax"), x).scale, 40 / 127.0f);
  for (const char* name : {"percentile", "kl"}) {
    const float largest = observe(info, get_observer(name), x).scale * 127;
    EXPECT_GT(largest, 2.5f) << name;
    EXPECT_LT(largest, 8) << name;
  }
}

TEST(Observers, MseIsAtLeastAsGoodAsAny) {
  const std::vector<float> x = inputs();
  for (const char* type : {"int8-tensor", "int4-tensor", "int8-tensor-asym", "int4-tensor-asym"}) {
    const auto& info = get_activation(type);
    const double best = error_of(observe(info, get_observer("mse"), x), x);
    for (const Observer& observer : observers())
      EXPECT_LT(best, error_of(observe(info, observer, x), x) * 1.02) << type << " " << observer.name;
  }
}

// calculate_qparams of compressed-tensors.
TEST(Observers, CachesSpanTheCodesOfBothSigns) {
  std::vector<float> x = inputs();
  const auto &integers = get_activation("int8-tensor"), &floats = get_activation("fp8-tensor");
  EXPECT_FLOAT_EQ(observe_cache(integers, get_observer("minmax"), x), 40 / 127.5f);
  EXPECT_FLOAT_EQ(observe_cache(floats, get_observer("minmax"), x), 40 / 448.0f);
  EXPECT_LT(observe_cache(integers, get_observer("percentile"), x), 8 / 127.5f);
  x[3] = -50;
  EXPECT_FLOAT_EQ(observe_cache(integers, get_observer("minmax"), x), 50 / 127.5f);
  x.assign(100, 0.0f);
  EXPECT_THROW(observe_cache(integers, get_observer("minmax"), x), Error);
}

TEST(Observers, AsymmetricRangesFollowBothEnds) {
  std::vector<float> x(1000);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) / 100 - 2;
  const InputRounding rounding = observe(get_activation("int8-tensor-asym"), get_observer("minmax"), x);
  EXPECT_NEAR(rounding.scale, 9.99f / 255, 1e-5f);
  EXPECT_EQ(rounding.zero, 51);
}

TEST(Observers, NothingToSeeIsAnError) {
  const auto& info = get_activation("int8-tensor");
  EXPECT_THROW(observe(info, get_observer("mse"), std::vector<float>(64)), Error);
  EXPECT_THROW(observe(info, get_observer("minmax"), {}), Error);
  EXPECT_THROW(get_observer("max"), Error);
}

}  // namespace
}  // namespace nibble::calib
