// The plain path: what panel.h says, row by row.
#include <cmath>

#include "kernel/blocks/layout.h"

namespace nibble::kernel::blocks {

namespace {

template <int kFormat>
void compute(const Job& job) noexcept {
  constexpr Format kF = kFormats[kFormat];
  constexpr int kSubs = kBlock / kF.sub;
  std::uint8_t code[kBlock];
  for (std::int64_t row = job.row_begin; row < job.row_end; ++row) {
    const int lane = static_cast<int>(row % kPanelRows);
    for (std::int64_t t = 0; t < job.n; ++t) job.out[t * job.ldo + row] = 0;
    const std::uint8_t* header = job.packed + row / kPanelRows * job.panel_bytes;
    for (std::int64_t b = 0; b < job.blocks; ++b) {
      const int in_super = static_cast<int>(b % kSuperBlocks);
      if (in_super == 0 && b > 0) header += kF.header_bytes + kSuperBlocks * kF.block_bytes;
      load_codes(kF.planes(), header + kF.header_bytes + in_super * kF.block_bytes, lane, code);
      for (int s = 0; s < kSubs; ++s) {
        const SubScale scale = sub_scale(kF, header, in_super * kSubs + s, lane);
        for (std::int64_t t = 0; t < job.n; ++t) {
          const std::uint8_t* activations = job.activations.rows + t * job.activations.stride;
          const auto* a = reinterpret_cast<const std::int8_t*>(activations) + b * kBlock + s * kF.sub;
          const float a_scale = reinterpret_cast<const float*>(activations + job.activations.scales_at)[b];
          std::int32_t dot = 0;
          std::int32_t sum = 0;
          for (int i = 0; i < kF.sub; ++i) {
            const int u = code[s * kF.sub + i];
            const int level = (kF.table ? job.levels[u] : u) - kF.offset;
            dot += level * a[i];
            sum += a[i];
          }
          float& y = job.out[t * job.ldo + row];
          y = std::fma(static_cast<float>(dot) * a_scale, scale.scale, y);
          if constexpr (kF.has_min) y = std::fma(-scale.min, a_scale * static_cast<float>(sum), y);
        }
      }
    }
  }
}

}  // namespace

const Compute kComputeScalar[kFormatCount] = {
    compute<0>, compute<1>, compute<2>, compute<3>,  compute<4>,  compute<5>,  compute<6>,
    compute<7>, compute<8>, compute<9>, compute<10>, compute<11>, compute<12>,
};

}  // namespace nibble::kernel::blocks
