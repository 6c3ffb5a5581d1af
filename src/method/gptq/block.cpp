#include "method/gptq/block.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "encoding/block_grid.h"
#include "linalg/gemm.h"
#include "method/gptq/descent.h"
#include "method/gptq/hessian.h"
#include "method/input.h"

namespace nibble::method::gptq {

namespace {

using encoding::BlockFields;
using encoding::BlockGrid;

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
    std::vector<float> target = rest;
    std::vector<std::byte> packed(static_cast<std::size_t>(n_rows) * job_.target->block_bytes);
    std::vector<BlockFields> fields(static_cast<std::size_t>(n_rows * n_blocks));
    for (std::int64_t block = 0; block < n_blocks; ++block) {
      const std::int64_t begin = block * width, end = begin + width;
      search_scales(rest.data() + begin, n_rows, begin, packed.data());
      for (std::int64_t row = 0; row < n_rows; ++row) {
        BlockFields& found = fields[static_cast<std::size_t>(row * n_blocks + block)];
        grid_.unpack(packed.data() + static_cast<std::size_t>(row) * job_.target->block_bytes, found);
        sweep(rest.data() + row * cols, begin, found, errors.data() + row * width);
      }
      if (end == cols) break;
      linalg::gemm_subtract(n_rows, cols - end, width, errors.data(), width,
                            hessian_->factor.data() + begin * cols + end, cols, rest.data() + end, cols);
    }
    if (job_.options.descents > 0) descend_rows(target, n_rows, fields);
    for (std::size_t i = 0; i < fields.size(); ++i) grid_.pack(fields[i], out.parts[0] + i * job_.target->block_bytes);
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
  void sweep(float* row, std::int64_t begin, BlockFields& fields, float* errors) const {
    const std::int64_t cols = job_.shape.cols(), width = grid_.block;
    for (std::int64_t e = 0; e < width; ++e) {
      const int sub = static_cast<int>(e) / grid_.sub;
      const float step = fields.d * static_cast<float>(fields.scale[sub]);
      const float low = fields.dmin * static_cast<float>(fields.min[sub]);
      const std::int64_t at = begin + e;
      const float* factor = hessian_->factor.data() + at * cols;
      const int code = nearest_code(grid_, step != 0 ? (row[at] + low) / step : 0.0f);
      fields.code[e] = static_cast<std::int8_t>(code);
      const float error = (row[at] - (step * level_of(grid_, code) - low)) / factor[at];
      errors[e] = error;
      for (std::int64_t next = at + 1; next < begin + width; ++next) row[next] -= error * factor[next];
    }
  }

  // target: (n_rows, cols), the weights as they were; lost.
  void descend_rows(std::vector<float>& target, std::int64_t n_rows, std::span<BlockFields> fields) const {
    const std::int64_t cols = job_.shape.cols(), n_blocks = cols / grid_.block;
    for (std::int64_t i = 0; i < n_rows * cols; ++i) {
      const BlockFields& block = fields[static_cast<std::size_t>(i / grid_.block)];
      const std::int64_t e = i % grid_.block, sub = e / grid_.sub;
      const float value = block.d * static_cast<float>(block.scale[sub]) * level_of(grid_, block.code[e]) -
                          block.dmin * static_cast<float>(block.min[sub]);
      target[static_cast<std::size_t>(i)] = value - target[static_cast<std::size_t>(i)];
    }
    const float* gram = job_.statistics.gram.data();
    std::vector<float> gradient(target.size());
    linalg::gemm(n_rows, cols, cols, target.data(), cols, gram, cols, gradient.data(), cols);
    for (std::int64_t row = 0; row < n_rows; ++row) {
      descend(grid_, fields.subspan(static_cast<std::size_t>(row * n_blocks), static_cast<std::size_t>(n_blocks)), gram,
              job_.options.descents, gradient.data() + row * cols);
    }
  }

  Job job_;
  const BlockGrid& grid_;
  std::optional<Hessian> hessian_;
};

}  // namespace

std::unique_ptr<Quantizer> make_block(const Job& job) { return std::make_unique<Block>(job); }

}  // namespace nibble::method::gptq
