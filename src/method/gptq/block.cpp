#include "method/gptq/block.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "encoding/block_grid.h"
#include "linalg/gemm.h"
#include "method/gptq/hessian.h"
#include "method/input.h"

namespace nibble::method::gptq {

namespace {

using encoding::BlockFields;
using encoding::BlockGrid;

// The code whose level is nearest to `level`.
int nearest_code(const BlockGrid& grid, float level) {
  if (grid.table == nullptr) {
    const float held = std::clamp(level, static_cast<float>(grid.code_min), static_cast<float>(grid.code_max));
    return static_cast<int>(std::nearbyint(held));
  }
  const std::int8_t* end = grid.table + grid.code_max + 1;
  const std::int8_t* above = std::lower_bound(grid.table, end, level);
  if (above == grid.table) return 0;
  if (above == end) return grid.code_max;
  const bool lower = level - static_cast<float>(above[-1]) < static_cast<float>(*above) - level;
  return static_cast<int>(above - grid.table) - (lower ? 1 : 0);
}

class Block final : public Quantizer {
 public:
  explicit Block(const Job& job) : job_(job), grid_(*job.target->grid) {
    job_.options.act_order = false;  // blocks are whole columns side by side
  }

  void prepare(ExecContext& /*context*/, const RowSource& /*weights*/) override { hessian_ = make_hessian(job_); }

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows);
    if (!hessian_) fail(ErrorCode::kInternal, "tensor '{}': not prepared", job_.tensor);
    const std::int64_t cols = job_.shape.cols(), width = grid_.block, n_blocks = cols / width;
    std::vector<float> rest(weights, weights + n_rows * cols), errors(static_cast<std::size_t>(n_rows * width));
    for (std::int64_t row = 0; row < n_rows; ++row) {
      for (std::int64_t c = 0; c < cols; ++c)
        if (hessian_->dead[static_cast<std::size_t>(c)]) rest[static_cast<std::size_t>(row * cols + c)] = 0;
    }
    std::vector<std::byte> packed(static_cast<std::size_t>(n_rows) * job_.target->block_bytes);
    for (std::int64_t block = 0; block < n_blocks; ++block) {
      const std::int64_t begin = block * width, end = begin + width;
      search_scales(rest.data() + begin, n_rows, begin, packed.data());
      for (std::int64_t row = 0; row < n_rows; ++row) {
        const std::byte* found = packed.data() + static_cast<std::size_t>(row) * job_.target->block_bytes;
        std::byte* to = out.parts[0] + static_cast<std::size_t>(row * n_blocks + block) * job_.target->block_bytes;
        sweep(rest.data() + row * cols, begin, found, errors.data() + row * width, to);
      }
      if (end == cols) break;
      linalg::gemm_subtract(n_rows, cols - end, width, errors.data(), width,
                            hessian_->factor.data() + begin * cols + end, cols, rest.data() + end, cols);
    }
  }

 private:
  // One block of each row, weights `cols` apart, to blocks one after the other.
  void search_scales(const float* weights, std::int64_t n_rows, std::int64_t begin, std::byte* packed) const {
    const std::int64_t cols = job_.shape.cols(), width = grid_.block;
    std::vector<float> values(static_cast<std::size_t>(n_rows * width)), importance(static_cast<std::size_t>(width));
    for (std::int64_t row = 0; row < n_rows; ++row)
      std::copy_n(weights + row * cols, width, values.begin() + row * width);
    for (std::int64_t c = 0; c < width; ++c)
      importance[static_cast<std::size_t>(c)] =
          job_.statistics.gram[static_cast<std::size_t>((begin + c) * cols + begin + c)];
    Job job = job_;
    job.shape = {n_rows, width};
    job.statistics = {importance, {}};
    RowsOut out;
    out.parts[0] = packed;
    get("search").make(job)->quantize_rows(values.data(), 0, n_rows, out);
  }

  // Rounds the block's codes again, from its first column on, with the scales that were found.
  void sweep(float* row, std::int64_t begin, const std::byte* found, float* errors, std::byte* to) const {
    BlockFields fields;
    grid_.unpack(found, fields);
    const std::int64_t cols = job_.shape.cols(), width = grid_.block;
    for (std::int64_t e = 0; e < width; ++e) {
      const int sub = static_cast<int>(e) / grid_.sub;
      const float step = fields.d * static_cast<float>(fields.scale[sub]);
      const float low = fields.dmin * static_cast<float>(fields.min[sub]);
      const std::int64_t at = begin + e;
      const float* factor = hessian_->factor.data() + at * cols;
      const int code = nearest_code(grid_, step != 0 ? (row[at] + low) / step : 0.0f);
      fields.code[e] = static_cast<std::int8_t>(code);
      const auto level = static_cast<float>(grid_.table != nullptr ? grid_.table[code] : code);
      const float error = (row[at] - (step * level - low)) / factor[at];
      errors[e] = error;
      for (std::int64_t next = at + 1; next < begin + width; ++next) row[next] -= error * factor[next];
    }
    grid_.pack(fields, to);
  }

  Job job_;
  const BlockGrid& grid_;
  std::optional<Hessian> hessian_;
};

}  // namespace

std::unique_ptr<Quantizer> make_block(const Job& job) { return std::make_unique<Block>(job); }

}  // namespace nibble::method::gptq
