// What the threads at hand can do at most: memory read, int8 products, f32 products. The yardstick of every speed
// figure.
#pragma once

#include <cstdint>

#include "base/cpu.h"
#include "base/thread_pool.h"
#include "kernel/linear.h"

namespace nibble::kernel {

struct Roofline {
  int threads = 0;
  double read_bytes_per_s = 0;     // best of several access patterns over a buffer far beyond the caches
  double int8_ops_per_s = 0;       // multiplications and additions of the path's int8 dot product
  double f32_ops_per_s = 0;        // multiplications and additions in f32
  double bf16_ops_per_s = 0;       // and those of bf16 tiles; 0: there are none
  double int8_tile_ops_per_s = 0;  // of int8 tiles
};

// Measures with all threads of the pool and the instructions of `isa`; takes about a second. `buffer_bytes` should be a
// few times the last-level cache that these threads can reach, at least 1 GB for a figure worth quoting.
Roofline measure_roofline(ThreadPool& pool, Isa isa, std::uint64_t buffer_bytes = std::uint64_t{1} << 30);

// What limits the products that a kernel executes; it follows from its activations.
enum class ProductKind : std::uint8_t { kInteger, kF32, kBf16, kIntegerTiles };
ProductKind product_kind(const LinearKernel& kernel);
double peak_of(ProductKind kind, const Roofline& roofline);
inline constexpr ProductKind kProductKinds[] = {ProductKind::kInteger, ProductKind::kF32, ProductKind::kBf16,
                                                ProductKind::kIntegerTiles};

// The higher of each limit.
Roofline better_of(const Roofline& a, const Roofline& b);

}  // namespace nibble::kernel
