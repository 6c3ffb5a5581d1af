// Block types: the reference encode for nearest rounding; for the other rules a scale that lets nothing clip, then the rule.
#include <algorithm>
#include <cmath>

#include "encoding/block_grid.h"
#include "method/input.h"
#include "method/rtn/quantizers.h"
#include "method/rtn/round.h"
#include "tensor/half.h"

namespace nibble::method::rtn {

namespace {

using encoding::BlockFields;
using encoding::BlockGrid;

class Reference final : public Quantizer {
 public:
  explicit Reference(const Job& job) : job_(job) {}
  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows);
    job_.target->encode(weights, out.parts[0], n_rows * job_.shape.cols());
  }

 private:
  Job job_;
};

// The least multiple of 1 / steps that covers `value`, in f16, so that d * steps >= value.
float covering_f16(float value) {
  const std::uint16_t bits = f32_to_f16(value);
  const float rounded = f16_to_f32(bits);
  return rounded >= value || rounded >= 65504.0f ? rounded : f16_to_f32(static_cast<std::uint16_t>(bits + 1));
}

class Ruled final : public Quantizer {
 public:
  explicit Ruled(const Job& job) : job_(job), grid_(*job.target->grid) {
    for (int code = grid_.code_min; code <= grid_.code_max; ++code) {
      levels_[code - grid_.code_min] = static_cast<float>(grid_.table != nullptr ? grid_.table[code] : code);
    }
    n_levels_ = grid_.code_max - grid_.code_min + 1;
  }

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows, f16_limit());
    const std::int64_t cols = job_.shape.cols();
    std::byte* dst = out.parts[0];
    for (std::int64_t row = 0; row < n_rows; ++row) {
      for (std::int64_t col = 0; col < cols; col += grid_.block, dst += job_.target->block_bytes) {
        BlockFields fields;
        const float* block = weights + row * cols + col;
        choose_scales(block, fields);
        for (int e = 0; e < grid_.block; ++e) {
          fields.code[e] = static_cast<std::int8_t>(code_of(block[e], fields, e / grid_.sub, row_begin + row, col + e));
        }
        grid_.pack(fields, dst);
      }
    }
  }

 private:
  float top_level() const { return levels_[n_levels_ - 1]; }
  float f16_limit() const { return 65504.0f * top_level() * static_cast<float>(grid_.scale_max); }

  // Min-max ranges, rounded up to the grid of sub-scales and mins.
  void choose_scales(const float* block, BlockFields& fields) const {
    const int n_subs = grid_.n_subs();
    float scale[16], min[16], widest = 0, deepest = 0;
    for (int i = 0; i < n_subs; ++i) {
      const auto [lo_at, hi_at] = std::minmax_element(block + i * grid_.sub, block + (i + 1) * grid_.sub);
      if (grid_.has_min) {
        const float lo = n_subs > 1 ? std::min(*lo_at, 0.0f) : *lo_at;
        scale[i] = (std::max(*hi_at, lo) - lo) / top_level();
        min[i] = -lo;
      } else {
        scale[i] = std::max(*hi_at / top_level(), *lo_at / levels_[0]);
        scale[i] = std::max(scale[i], 0.0f);
        min[i] = 0;
      }
      widest = std::max(widest, scale[i]);
      deepest = std::max(deepest, min[i]);
    }
    if (n_subs == 1) {
      fields.d = covering_f16(scale[0]);
      fields.scale[0] = 1;
      if (grid_.has_min) {
        fields.dmin = f16_to_f32(f32_to_f16(min[0]));
        fields.min[0] = 1;
      }
      return;
    }
    fields.d = covering_f16(widest / static_cast<float>(grid_.scale_max));
    fields.dmin = covering_f16(deepest / static_cast<float>(grid_.min_max));
    for (int i = 0; i < n_subs; ++i) {
      const float steps = fields.d > 0 ? std::ceil(scale[i] / fields.d) : 0.0f;
      fields.scale[i] = static_cast<std::int8_t>(std::min(steps, static_cast<float>(grid_.scale_max)));
      const float depth = fields.dmin > 0 ? std::ceil(min[i] / fields.dmin) : 0.0f;
      fields.min[i] = static_cast<std::uint8_t>(std::min(depth, static_cast<float>(grid_.min_max)));
    }
    if (!grid_.has_min) fields.dmin = 0;
  }

  int code_of(float value, const BlockFields& fields, int sub, std::int64_t row, std::int64_t col) const {
    const float scale = fields.d * static_cast<float>(fields.scale[sub]);
    const float min = fields.dmin * static_cast<float>(fields.min[sub]);
    const float level = scale != 0 ? (value + min) / scale : 0.0f;
    // Position between the levels around it, then the rule.
    int below = 0;
    if (grid_.table == nullptr) {
      below = static_cast<int>(std::floor(std::clamp(level, levels_[0], top_level()))) - grid_.code_min;
    } else {
      while (below + 1 < n_levels_ && levels_[below + 1] <= level) ++below;
    }
    const int above = std::min(below + 1, n_levels_ - 1);
    const float gap = levels_[above] - levels_[below];
    const float part = gap > 0 ? std::clamp((level - levels_[below]) / gap, 0.0f, 1.0f) : 0.0f;
    const float up = round_by(job_.options, part, row, col);
    return (up > 0.5f ? above : below) + grid_.code_min;
  }

  Job job_;
  const BlockGrid& grid_;
  float levels_[256] = {};
  int n_levels_ = 0;
};

}  // namespace

std::unique_ptr<Quantizer> make_block(const Job& job) {
  if (job.options.range == RangeRule::kMse) {
    fail(ErrorCode::kInvalidArgument,
         "tensor '{}': a searched range belongs to the affine types; for {} there is the method 'search'", job.tensor,
         job.target->name);
  }
  if (job.options.rounding == Rounding::kNearest) return std::make_unique<Reference>(job);
  if (job.target->grid == nullptr) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': {} is only rounded to nearest", job.tensor, job.target->name);
  }
  return std::make_unique<Ruled>(job);
}

}  // namespace nibble::method::rtn
