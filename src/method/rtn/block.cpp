// Block types: the reference encode for nearest rounding; for the other rules a scale that lets nothing clip, then the
// rule.
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

// The least f16 that is not below `value`.
float covering_f16(float value) {
  const std::uint16_t bits = f32_to_f16(value);
  const float rounded = f16_to_f32(bits);
  if (rounded >= value || rounded >= 65504.0f) return rounded;
  return f16_to_f32(static_cast<std::uint16_t>(value < 0 ? bits - 1 : bits + 1));
}

// The least multiple of `unit` that is not below `value`, as a factor in [0, most].
float covering_steps(float value, float unit, int most) {
  return unit > 0 ? std::clamp(std::ceil(value / unit), 0.0f, static_cast<float>(most)) : 0.0f;
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

  // Mins and then scales that cover the range of each sub-block, rounded up to what the block can hold.
  void choose_scales(const float* block, BlockFields& fields) const {
    const int n_subs = grid_.n_subs();
    float low[16] = {}, high[16] = {}, scale[16] = {};
    for (int i = 0; i < n_subs; ++i) {
      const auto [lo, hi] = std::minmax_element(block + i * grid_.sub, block + (i + 1) * grid_.sub);
      low[i] = *lo;
      high[i] = *hi;
    }
    if (grid_.has_min) {
      const float deepest = -*std::min_element(low, low + n_subs);
      fields.dmin = covering_f16(n_subs > 1 ? std::max(deepest, 0.0f) / static_cast<float>(grid_.min_max) : deepest);
      for (int i = 0; i < n_subs; ++i) {
        const float steps = n_subs > 1 ? covering_steps(-low[i], fields.dmin, grid_.min_max) : 1.0f;
        fields.min[i] = static_cast<std::uint8_t>(steps);
        scale[i] = (high[i] + fields.dmin * steps) / top_level();
      }
    } else {
      for (int i = 0; i < n_subs; ++i) scale[i] = std::max(high[i] / top_level(), low[i] / levels_[0]);
    }
    const float widest = std::max(*std::max_element(scale, scale + n_subs), 0.0f);
    fields.d = covering_f16(widest / static_cast<float>(grid_.scale_max));
    for (int i = 0; i < n_subs; ++i) {
      const float steps = n_subs > 1 ? covering_steps(scale[i], fields.d, grid_.scale_max) : 1.0f;
      fields.scale[i] = static_cast<std::int8_t>(steps);
    }
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
  if (job.options.rounding == Rounding::kNearest) return make_reference(job);
  if (job.target->grid == nullptr) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': {} is only rounded to nearest", job.tensor, job.target->name);
  }
  return std::make_unique<Ruled>(job);
}

}  // namespace nibble::method::rtn
