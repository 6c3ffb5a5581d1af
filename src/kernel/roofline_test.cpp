#include "kernel/roofline.h"

#include <gtest/gtest.h>

namespace nibble::kernel {
namespace {

TEST(Roofline, MeasuresEveryInstructionSet) {
  ThreadPool pool(1);
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa > machine_isa()) continue;
    const Roofline roofline = measure_roofline(pool, isa, 1 << 24);
    EXPECT_EQ(roofline.threads, 1);
    EXPECT_GT(roofline.read_bytes_per_s, 1e8);
    EXPECT_GT(roofline.f32_ops_per_s, 1e8);
    EXPECT_GT(roofline.int8_ops_per_s, 1e8);
    EXPECT_EQ(roofline.bf16_ops_per_s > 1e10, isa == Isa::kAmx);
  }
}

}  // namespace
}  // namespace nibble::kernel
