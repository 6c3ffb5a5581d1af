// The allocator against trying everything.
#include "pipeline/allocate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/rng.h"

namespace nibble::pipeline {
namespace {

using Tensors = std::vector<std::vector<TypeCost>>;

Tensors random_tensors(std::size_t n, std::uint64_t seed, std::uint64_t unit) {
  Tensors tensors(n);
  for (std::size_t t = 0; t < n; ++t) {
    for (std::uint64_t c = 0; c < 4; ++c) {
      const std::uint64_t bits = random_bits(seed, t, c);
      tensors[t].push_back({(1 + bits % 50) * unit, static_cast<double>((bits >> 20) % 1000) / 1000});
    }
  }
  return tensors;
}

struct Sum {
  std::uint64_t bytes = 0;
  double loss = 0;
};
Sum sum_of(const Tensors& tensors, const std::vector<std::size_t>& chosen) {
  Sum sum;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    sum.bytes += tensors[t][chosen[t]].bytes;
    sum.loss += tensors[t][chosen[t]].loss;
  }
  return sum;
}

double best_loss(const Tensors& tensors, std::uint64_t budget) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<std::size_t> chosen(tensors.size(), 0);
  for (std::size_t i = 0; i < std::size_t{1} << (2 * tensors.size()); ++i) {
    for (std::size_t t = 0; t < tensors.size(); ++t) chosen[t] = i >> (2 * t) & 3;
    const Sum sum = sum_of(tensors, chosen);
    if (sum.bytes <= budget) best = std::min(best, sum.loss);
  }
  return best;
}

std::uint64_t least(const Tensors& tensors) {
  std::uint64_t sum = 0;
  for (const auto& t : tensors) sum += std::ranges::min(t, {}, &TypeCost::bytes).bytes;
  return sum;
}

TEST(Allocate, IsTheBestOfAll) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    for (const std::uint64_t unit : {std::uint64_t{1}, std::uint64_t{32}}) {
      const Tensors tensors = random_tensors(6, seed, unit);
      for (const std::uint64_t more : {0, 7, 40, 100, 10000}) {
        const std::uint64_t budget = least(tensors) + more * unit;
        const Sum sum = sum_of(tensors, allocate(tensors, budget));
        EXPECT_LE(sum.bytes, budget);
        EXPECT_NEAR(sum.loss, best_loss(tensors, budget), 1e-12);
      }
    }
  }
}

// Bytes without a common measure, more of them than units: still within the budget, and close to it.
TEST(Allocate, ManyBytes) {
  Tensors tensors = random_tensors(50, 3, 1000003);
  for (auto& tensor : tensors) {
    std::ranges::sort(tensor, {}, &TypeCost::bytes);
    for (std::size_t c = 0; c < tensor.size(); ++c) tensor[c] = {tensor[c].bytes + c, 4.0 - static_cast<double>(c)};
  }
  const std::uint64_t budget = least(tensors) + 300000000;
  const Sum sum = sum_of(tensors, allocate(tensors, budget));
  EXPECT_LE(sum.bytes, budget);
  EXPECT_GT(sum.bytes, budget - budget / 100);
}

TEST(Allocate, EndsOfTheRange) {
  const Tensors tensors = {{{10, 1}, {20, 0}}, {{10, 5}}, {{8, 2}, {9, 3}}};
  EXPECT_EQ(allocate(tensors, 28), (std::vector<std::size_t>{0, 0, 0}));
  EXPECT_EQ(allocate(tensors, 1000), (std::vector<std::size_t>{1, 0, 0}));
  EXPECT_THROW(allocate(tensors, 27), Error);
  EXPECT_TRUE(allocate({}, 0).empty());
}

}  // namespace
}  // namespace nibble::pipeline
