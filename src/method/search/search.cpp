// search: the weighted scale search of the block types. Per sub-block a few real-valued scales with least-squares
// refits (recipes: K-quant scale search), then d and dmin of the block, then sub-scales and mins tried on the grid of
// those with codes of their own, then d and dmin refitted, and last the block freed of shrinkage. The measure is sum
// importance * (w - w^)^2.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "encoding/block_grid.h"
#include "method/input.h"
#include "method/level.h"
#include "method/quantizer.h"
#include "method/rtn/quantizers.h"
#include "method/search/fit.h"

namespace nibble::method::search {

namespace {

using encoding::BlockFields;
using encoding::BlockGrid;
using encoding::EncodingInfo;

constexpr float kLargestF16 = 65504.0f;
alignas(64) constexpr std::array<float, 32> kOnes = [] {
  std::array<float, 32> ones{};
  ones.fill(1.0f);
  return ones;
}();

FitBatch fit_for(Isa isa) {
  switch (isa) {
    case Isa::kAmx:
    case Isa::kAvx512:
      return fit_batch_avx512;
    case Isa::kAvx2:
      return fit_batch_avx2;
    case Isa::kScalar:
      break;
  }
  return fit_batch_scalar;
}

// How hard to look, by the kind of grid: found by weighted error against time on real weights (search_bench.cpp).
void set_effort(const BlockGrid& grid, Layout& layout) {
  const bool super = layout.subs_per_block > 1;
  const int n_codes = grid.code_max - grid.code_min + 1;
  const float code_step = (layout.level_hi - layout.level_lo) / static_cast<float>(n_codes - 1);
  layout.super_lo = -0.2f;
  layout.super_hi = 0.05f;
  layout.n_rounds = 1;
  if (grid.has_min) {
    layout.n_coarse = super ? 8 : 12;
    layout.coarse_lo = super ? -0.9f : -2.0f;
    layout.coarse_hi = super ? 0.9f : 2.0f;
    layout.n_polish = super ? 0 : 1;
    layout.n_scales = 8;
    layout.min_window = 1;
    return;
  }
  layout.n_scales = std::clamp((grid.scale_max - grid.scale_min) / 16, 8, 12);
  layout.n_coarse = super ? 4 : 8;
  layout.n_mirrored = n_codes <= 64 ? 4 : 0;
  const float least = super ? -1.5f : n_codes <= 64 ? -2.0f : -8.0f;
  layout.coarse_lo = least * code_step;
  layout.coarse_hi = (n_codes <= 64 ? 0.9f : 0.4f) * code_step;
}

class Search final : public Quantizer {
 public:
  explicit Search(const Job& job)
      : job_(job), grid_(*job.target->grid), importance_(prepare_importance(job)), fit_(fit_for(job.options.isa)) {
    layout_.sub = grid_.sub;
    layout_.subs_per_block = grid_.n_subs();
    layout_.has_min = grid_.has_min;
    layout_.scale_min = static_cast<float>(grid_.scale_min);
    layout_.scale_max = static_cast<float>(grid_.scale_max);
    layout_.min_max = static_cast<float>(grid_.min_max);
    layout_.level_lo = level_of(grid_, grid_.code_min);
    layout_.level_hi = level_of(grid_, grid_.code_max);
    for (int level = -128; level < 128; ++level) {
      codes_[static_cast<std::size_t>(level + 128)] =
          static_cast<std::int8_t>(grid_.table != nullptr ? nearest_code(grid_, static_cast<float>(level)) : level);
    }
    if (grid_.table != nullptr) {
      cells_ = level_cells(grid_);
      layout_.cells = cells_.data();
    }
    set_effort(grid_, layout_);
    const float steps = std::max(std::fabs(layout_.level_lo), layout_.level_hi);
    limit_ = kLargestF16 * steps * std::max(std::fabs(layout_.scale_min), layout_.scale_max);
  }

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows, limit_);
    const std::int64_t blocks_per_row = job_.shape.cols() / grid_.block;
    const std::int64_t n_blocks = n_rows * blocks_per_row;
    const std::int64_t per_batch = kLanes / layout_.subs_per_block;
    std::byte* dst = out.parts[0];
    Batch batch;
    BlockFields fields;
    alignas(64) float padded[kMaxElements];
    for (std::int64_t first = 0; first < n_blocks; first += per_batch) {
      const std::int64_t n = std::min(per_batch, n_blocks - first);
      batch.x = weights + first * grid_.block;
      if (n < per_batch) {  // empty lanes are zeros
        std::fill_n(padded, kMaxElements, 0.0f);
        std::copy_n(batch.x, n * grid_.block, padded);
        batch.x = padded;
      }
      for (std::int64_t i = 0; i < per_batch; ++i) {
        point_importance(row_begin, first + std::min(i, n - 1), blocks_per_row,
                         batch.importance + i * layout_.subs_per_block);
      }
      fit_(layout_, batch);
      for (std::int64_t i = 0; i < n; ++i, dst += job_.target->block_bytes)
        pack(batch, static_cast<int>(i), fields, dst);
    }
  }

 private:
  // The importance of a block's sub-blocks; `block` counts from the first of row `row_begin`.
  void point_importance(std::int64_t row_begin, std::int64_t block, std::int64_t blocks_per_row,
                        const float** lanes) const {
    if (importance_.empty()) {
      std::fill_n(lanes, layout_.subs_per_block, kOnes.data());
      return;
    }
    const std::int64_t cols = job_.shape.cols();
    const std::int64_t rows_per_expert = job_.shape.rows() * cols / static_cast<std::int64_t>(importance_.size());
    const std::int64_t expert = (row_begin + block / blocks_per_row) / rows_per_expert;
    const float* at = importance_.data() + expert * cols + block % blocks_per_row * grid_.block;
    for (int i = 0; i < layout_.subs_per_block; ++i) lanes[i] = at + i * grid_.sub;
  }

  void pack(const Batch& batch, int block, BlockFields& fields, std::byte* dst) const {
    const int lane = block * layout_.subs_per_block;
    const std::int8_t* level = batch.level + lane * grid_.sub;
    fields.d = batch.d[lane];
    fields.dmin = batch.dmin[lane];
    for (int i = 0; i < layout_.subs_per_block; ++i) {
      fields.scale[i] = static_cast<std::int8_t>(batch.scale[lane + i]);
      fields.min[i] = static_cast<std::uint8_t>(batch.min[lane + i]);
    }
    if (grid_.table == nullptr) {
      std::memcpy(fields.code, level, static_cast<std::size_t>(grid_.block));
    } else {
      for (int e = 0; e < grid_.block; ++e) fields.code[e] = codes_[static_cast<std::size_t>(level[e] + 128)];
    }
    grid_.pack(fields, dst);
  }

  Job job_;
  const BlockGrid& grid_;
  std::vector<float> importance_;
  FitBatch fit_;
  Layout layout_{};
  float limit_ = 0;
  alignas(64) std::array<float, 64> cells_{};
  std::array<std::int8_t, 256> codes_{};
};

bool has_grid(const EncodingInfo& target) { return target.grid != nullptr && target.grid->pack != nullptr; }
// Small floats, whose scales alone are searched.
bool has_float_scales(const EncodingInfo& target) {
  return target.family == encoding::Family::kScaled || target.name == "mxfp4";
}
bool supports(const EncodingInfo& target) { return has_grid(target) || has_float_scales(target); }

std::unique_ptr<Quantizer> make(const Job& job) {
  if (!supports(*job.target) || !encoding::fits(*job.target, job.shape)) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': method 'search' cannot make {} of shape {}", job.tensor,
         job.target->name, job.shape.to_string());
  }
  if (has_grid(*job.target)) return std::make_unique<Search>(job);
  Job searched = job;
  searched.options.range = RangeRule::kMse;
  searched.options.rounding = Rounding::kNearest;
  return job.target->family == encoding::Family::kScaled ? rtn::make_scaled(searched)
                                                         : rtn::make_mxfp4_blocks(searched);
}

}  // namespace

const Method& entry() {
  static const Method method = {
      .name = "search",
      .summary = "weighted search of scales, mins and codes of the block types, of the scales of FP8 and MXFP",
      .source = "least squares on the grid of each block; docs/search.md",
      .statistics = "mean x² of the inputs, if given (--imatrix, --calib)",
      .cost = "0.2 to 0.4 µs of a core per weight",
      .supports = supports,
      .make = make,
  };
  return method;
}

}  // namespace nibble::method::search
