#include "method/gptq/block.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "encoding/block_grid.h"
#include "linalg/gemm.h"
#include "method/gptq/hessian.h"
#include "method/gptq/metric.h"
#include "method/input.h"
#include "method/layer.h"
#include "method/level.h"
#include "method/target.h"
#include "tensor/half.h"

namespace nibble::method::gptq {

namespace {

using encoding::BlockFields;
using encoding::BlockGrid;

// The rows of one call.
struct Rows {
  std::int64_t n = 0, cols = 0;
  std::vector<float> target;        // (n, cols)
  std::vector<float> gradient;      // (n, cols): (values - target) gram
  std::vector<float> values;        // (n, cols)
  std::vector<BlockFields> fields;  // (n, blocks)
};

class Block final : public Quantizer {
 public:
  explicit Block(const Job& job)
      : job_(job), grid_(*job.target->grid), kernel_(job.options.isa == Isa::kScalar ? kLocalScalar : kLocalAvx2) {
    job_.options.act_order = false;  // blocks are whole columns side by side
    local_ = {.block = grid_.block,
              .sub = grid_.sub,
              .n_subs = grid_.n_subs(),
              .has_min = grid_.has_min,
              .scale_min = static_cast<float>(grid_.scale_min),
              .scale_max = static_cast<float>(grid_.scale_max),
              .min_max = static_cast<float>(grid_.min_max),
              .level_lo = level_of(grid_, grid_.code_min),
              .level_hi = level_of(grid_, grid_.code_max),
              .cells = nullptr};
    if (grid_.table == nullptr) return;
    cells_ = level_cells(grid_);
    local_.cells = cells_.data();
  }

  void prepare(ExecContext& context, const RowSource& weights) override {
    corrected_.prepare(context, job_, weights);  // its memory is free again before more is taken
    hessian_ = make_hessian(job_);
    const std::int64_t n_blocks = job_.shape.cols() / grid_.block;
    conditional_.resize(static_cast<std::size_t>(n_blocks));
    fixed_.resize(static_cast<std::size_t>(job_.options.effort > 0 ? n_blocks : 0));
    context.pool.parallel_dynamic(n_blocks, [&](std::int64_t b) {
      const auto i = static_cast<std::size_t>(b);
      conditional_[i] = conditional_metric(*hessian_, b * grid_.block, grid_.block, grid_.sub);
      if (fixed_.empty()) return;
      fixed_[i] = fixed_metric(job_.statistics.gram, job_.shape.cols(), b * grid_.block, grid_.block, grid_.sub,
                               hessian_->damping);
    });
  }

  void quantize_rows(const float* weights, std::int64_t row_begin, std::int64_t n_rows,
                     const RowsOut& out) const override {
    require_representable(job_, weights, row_begin, n_rows);
    if (!hessian_) fail(ErrorCode::kInternal, "tensor '{}': not prepared", job_.tensor);
    Rows rows;
    rows.n = n_rows;
    rows.cols = job_.shape.cols();
    rows.target.assign(weights, weights + n_rows * rows.cols);
    corrected_.correct(rows.target.data(), row_begin, n_rows);
    for (std::int64_t i = 0; i < n_rows * rows.cols; ++i)
      if (hessian_->dead[static_cast<std::size_t>(i % rows.cols)]) rows.target[static_cast<std::size_t>(i)] = 0;
    rows.values.resize(rows.target.size());
    rows.fields.resize(static_cast<std::size_t>(n_rows * n_blocks()));
    sweep(rows);
    rows.gradient = gradient_of(rows.n, rows.cols, rows.values, rows.target, job_.statistics.gram);
    descend(rows);
    unshrink(rows);
    keep_nearest(rows, row_begin);
    for (std::size_t i = 0; i < rows.fields.size(); ++i)
      grid_.pack(rows.fields[i], out.parts[0] + i * job_.target->block_bytes);
  }

 private:
  std::int64_t n_blocks() const { return job_.shape.cols() / grid_.block; }

  // Block after block, on the weights that the errors of earlier blocks have left.
  void sweep(Rows& rows) const {
    const std::int64_t width = grid_.block;
    std::vector<float> rest = rows.target, x(static_cast<std::size_t>(rows.n * width)), errors(x.size());
    for (std::int64_t b = 0; b < n_blocks(); ++b) {
      const std::int64_t begin = b * width, end = begin + width;
      for (std::int64_t r = 0; r < rows.n; ++r)
        std::copy_n(rest.data() + r * rows.cols + begin, width, x.data() + r * width);
      const Metric& metric = conditional_[static_cast<std::size_t>(b)];
      std::vector<LocalState> states = propose(metric, x, false);
      if (job_.options.effort > 0) {
        consider(propose(metric, x, true), states);
        for (LocalState& state : states) kernel_.refine(local_, metric.local(), job_.options.effort, state);
      }
      for (std::int64_t r = 0; r < rows.n; ++r) {
        const LocalState& state = states[static_cast<std::size_t>(r)];
        store(state, rows, r, b);
        spread(metric, x.data() + r * width, state.value, errors.data() + r * width);
      }
      if (end == rows.cols) break;
      linalg::gemm_subtract(rows.n, rows.cols - end, width, errors.data(), width,
                            hessian_->factor.data() + begin * rows.cols + end, rows.cols, rest.data() + end, rows.cols);
    }
  }

  // The errors e of the sweep, of which e U = x - value.
  void spread(const Metric& metric, const float* x, const float* value, float* error) const {
    const std::int64_t width = grid_.block;
    for (std::int64_t e = 0; e < width; ++e) error[e] = x[e] - value[e];
    for (std::int64_t e = 0; e < width; ++e) {
      const float* row = metric.factor.data() + e * width;
      error[e] /= row[e];
      for (std::int64_t next = e + 1; next < width; ++next) error[next] -= error[e] * row[next];
    }
  }

  // Scales of each row of x (n, block), searched with the diagonal of the metric as importance, or with what of it is
  // left once the later columns follow: 1 / pivot².
  std::vector<std::byte> search(const Metric& metric, const std::vector<float>& x, bool by_pivots) const {
    const std::int64_t width = grid_.block, n = static_cast<std::int64_t>(x.size()) / width;
    std::vector<float> importance(static_cast<std::size_t>(width));
    for (std::int64_t c = 0; c < width; ++c) {
      const auto at = static_cast<std::size_t>(c * width + c);
      importance[static_cast<std::size_t>(c)] = by_pivots ? 1 / (metric.factor[at] * metric.factor[at]) : metric.m[at];
    }
    Job job = job_;
    job.shape = {n, width};
    job.statistics = {};
    job.statistics.importance = importance;
    std::vector<std::byte> packed(static_cast<std::size_t>(n) * job_.target->block_bytes);
    RowsOut out;
    out.parts[0] = packed.data();
    get("search").make(job)->quantize_rows(x.data(), 0, n, out);
    return packed;
  }

  // Searched scales with the codes swept.
  std::vector<LocalState> propose(const Metric& metric, const std::vector<float>& x, bool by_pivots) const {
    const std::int64_t width = grid_.block, n = static_cast<std::int64_t>(x.size()) / width;
    const std::vector<std::byte> packed = search(metric, x, by_pivots);
    std::vector<LocalState> states(static_cast<std::size_t>(n));
    std::vector<float> target = x, change(x.size()), gradient(x.size()), errors(static_cast<std::size_t>(width));
    BlockFields fields;
    for (std::int64_t r = 0; r < n; ++r) {
      grid_.unpack(packed.data() + static_cast<std::size_t>(r) * job_.target->block_bytes, fields);
      LocalState& state = states[static_cast<std::size_t>(r)];
      load(fields, state);
      kernel_.sweep(local_, metric.factor.data(), width, target.data() + r * width, errors.data(), state);
      for (std::int64_t e = 0; e < width; ++e)
        change[static_cast<std::size_t>(r * width + e)] = state.value[e] - x[static_cast<std::size_t>(r * width + e)];
    }
    linalg::gemm(n, width, width, change.data(), width, metric.m.data(), width, gradient.data(), width);
    for (std::int64_t r = 0; r < n; ++r)
      std::copy_n(gradient.data() + r * width, width, states[static_cast<std::size_t>(r)].gradient);
    return states;
  }

  // Takes a proposal over where it lowers the measure; the gradients of both are relative to the same target.
  void consider(const std::vector<LocalState>& proposals, std::vector<LocalState>& states) const {
    for (std::size_t r = 0; r < states.size(); ++r) {
      double difference = 0;
      // (v' - x) m (v' - x)ᵀ - (v - x) m (v - x)ᵀ = (v' - v) (g' + g)
      for (int e = 0; e < grid_.block; ++e) {
        difference += static_cast<double>(proposals[r].value[e] - states[r].value[e]) *
                      static_cast<double>(proposals[r].gradient[e] + states[r].gradient[e]);
      }
      if (difference < 0) states[r] = proposals[r];
    }
  }

  void load(const BlockFields& fields, LocalState& state) const {
    state.d = fields.d;
    state.dmin = fields.dmin;
    for (int i = 0; i < grid_.n_subs(); ++i) {
      state.scale[i] = static_cast<float>(fields.scale[i]);
      state.min[i] = static_cast<float>(fields.min[i]);
    }
    for (int e = 0; e < grid_.block; ++e) {
      const int sub = e / grid_.sub;
      state.level[e] = level_of(grid_, fields.code[e]);
      state.value[e] = state.d * state.scale[sub] * state.level[e] - state.dmin * state.min[sub];
    }
  }

  void store(const LocalState& state, Rows& rows, std::int64_t row, std::int64_t block) const {
    BlockFields& fields = rows.fields[static_cast<std::size_t>(row * n_blocks() + block)];
    fields.d = state.d;
    fields.dmin = state.dmin;
    for (int i = 0; i < grid_.n_subs(); ++i) {
      fields.scale[i] = static_cast<std::int8_t>(state.scale[i]);
      fields.min[i] = static_cast<std::uint8_t>(state.min[i]);
    }
    for (int e = 0; e < grid_.block; ++e)
      fields.code[e] = static_cast<std::int8_t>(nearest_code(grid_, state.level[e]));
    std::copy_n(state.value, grid_.block, rows.values.data() + row * rows.cols + block * grid_.block);
  }

  // Every block again with the others as they are, some times over. Of each row the state with the least error on what
  // was held out stays.
  void descend(Rows& rows) const {
    const std::span<const float> held_out = job_.statistics.held_out;
    Rows best;
    if (!held_out.empty()) best = rows;
    std::vector<double> least;
    if (!held_out.empty()) least = row_errors(rows.n, rows.cols, rows.values, rows.target, held_out);
    for (int round = 0; round < job_.options.effort; ++round) {
      for (std::int64_t b = 0; b < n_blocks(); ++b) revise(rows, b);
      if (held_out.empty()) continue;
      const std::vector<double> now = row_errors(rows.n, rows.cols, rows.values, rows.target, held_out);
      for (std::int64_t r = 0; r < rows.n; ++r) {
        if (!(now[static_cast<std::size_t>(r)] < least[static_cast<std::size_t>(r)])) continue;
        least[static_cast<std::size_t>(r)] = now[static_cast<std::size_t>(r)];
        copy_row(rows, r, best);
      }
    }
    if (held_out.empty()) return;
    rows = std::move(best);
    rows.gradient = gradient_of(rows.n, rows.cols, rows.values, rows.target, job_.statistics.gram);
  }

  void copy_row(const Rows& from, std::int64_t row, Rows& to) const {
    std::copy_n(from.values.begin() + row * from.cols, from.cols, to.values.begin() + row * from.cols);
    std::copy_n(from.fields.begin() + row * n_blocks(), n_blocks(), to.fields.begin() + row * n_blocks());
  }

  void revise(Rows& rows, std::int64_t b) const {
    const std::int64_t width = grid_.block, begin = b * width;
    const Metric& metric = fixed_[static_cast<std::size_t>(b)];
    std::vector<LocalState> states(static_cast<std::size_t>(rows.n));
    std::vector<float> change(static_cast<std::size_t>(rows.n * width));
    for (std::int64_t r = 0; r < rows.n; ++r) {
      LocalState& state = states[static_cast<std::size_t>(r)];
      load(rows.fields[static_cast<std::size_t>(r * n_blocks() + b)], state);
      std::copy_n(rows.gradient.data() + r * rows.cols + begin, width, state.gradient);
      kernel_.refine(local_, metric.local(), 1, state);
      const float* before = rows.values.data() + r * rows.cols + begin;
      for (std::int64_t e = 0; e < width; ++e)
        change[static_cast<std::size_t>(r * width + e)] = before[e] - state.value[e];
      store(state, rows, r, b);
    }
    linalg::gemm_subtract(rows.n, rows.cols, width, change.data(), width,
                          job_.statistics.gram.data() + begin * rows.cols, rows.cols, rows.gradient.data(), rows.cols);
  }

  // Least squares shrinks: what it gives projects on the target below 1, which adds up over the layers of a model where
  // the rest of the error averages out. Scales each row to projection 1 (docs/search.md, Gain).
  void unshrink(Rows& rows) const {
    std::vector<float> zeros(rows.values.size());
    const std::vector<double> energy = row_errors(rows.n, rows.cols, zeros, rows.target, job_.statistics.gram);
    for (std::int64_t r = 0; r < rows.n; ++r) {
      double across = 0;  // target · gradient
      for (std::int64_t i = r * rows.cols; i < (r + 1) * rows.cols; ++i)
        across += static_cast<double>(rows.target[static_cast<std::size_t>(i)]) *
                  static_cast<double>(rows.gradient[static_cast<std::size_t>(i)]);
      const double whole = energy[static_cast<std::size_t>(r)];
      if (!(whole > 0) || !(whole + across > 0.5 * whole)) continue;
      const auto gain = static_cast<float>(whole / (whole + across));
      for (std::int64_t b = 0; b < n_blocks(); ++b) {
        BlockFields& fields = rows.fields[static_cast<std::size_t>(r * n_blocks() + b)];
        fields.d = f16_to_f32(f32_to_f16(std::clamp(gain * fields.d, -65504.0f, 65504.0f)));
        fields.dmin = f16_to_f32(f32_to_f16(std::clamp(gain * fields.dmin, -65504.0f, 65504.0f)));
        LocalState state;
        load(fields, state);
        store(state, rows, r, b);
      }
    }
  }

  // Rows that nearest rounding serves better after all.
  void keep_nearest(Rows& rows, std::int64_t row_begin) const {
    std::vector<std::byte> packed(rows.fields.size() * job_.target->block_bytes);
    RowsOut out;
    out.parts[0] = packed.data();
    get("rtn").make(job_)->quantize_rows(rows.target.data(), row_begin, rows.n, out);
    std::vector<float> values(rows.values.size());
    job_.target->decode(packed.data(), values.data(), rows.n * rows.cols);
    const std::span<const float> gram = job_.statistics.gram;
    const std::vector<double> nearest = row_errors(rows.n, rows.cols, values, rows.target, gram);
    const std::vector<double> ours = row_errors(rows.n, rows.cols, rows.values, rows.target, gram);
    for (std::int64_t i = 0; i < rows.n * n_blocks(); ++i) {
      const auto row = static_cast<std::size_t>(i / n_blocks());
      if (!(nearest[row] < ours[row])) continue;
      grid_.unpack(packed.data() + static_cast<std::size_t>(i) * job_.target->block_bytes,
                   rows.fields[static_cast<std::size_t>(i)]);
    }
  }

  Job job_;
  const BlockGrid& grid_;
  LocalKernel kernel_;
  LocalGrid local_{};
  std::array<float, 64> cells_{};
  std::optional<Hessian> hessian_;
  Target corrected_;
  std::vector<Metric> conditional_, fixed_;  // of each block
};

}  // namespace

std::unique_ptr<Quantizer> make_block(const Job& job) { return std::make_unique<Block>(job); }

}  // namespace nibble::method::gptq
