#include <algorithm>
#include <atomic>
#include <numeric>

#include "model/decoder.h"

namespace nibble::model {

namespace {

constexpr std::int64_t kSerialNumbers = 16384;  // below this many numbers, waking the threads costs more than the work
// Shares are handed out as threads become free: a core may be busy elsewhere. With many tokens fewer, as each share
// reads all activations.
constexpr std::int64_t kTilesPerThread = 24, kManyTokens = 64, kTilesOfManyTokens = 8;
constexpr std::int64_t kStreams = 4;  // panels that a kernel reads side by side

}  // namespace

void ForwardPart::observe_input(int layer, std::span<const Role> roles, const float* x, std::int64_t cols) {
  if (observer_ != nullptr) observer_->linear_input(context_, layer, roles, x, n_, cols);
}

// Rows of the mixer's size, in its basis.
void ForwardPart::mix(const linalg::Mixer* mixer, float* rows) {
  if (mixer == nullptr) return;
  for_rows(mixer->size(), [&](std::int64_t row) { mixer->multiply(rows + row * mixer->size(), 1); });
}

// Does it hold the rows that the use takes, or has it room for them?
bool ForwardPart::serves(const Rounded& rounded, const LinearUse& use) const {
  const Matrix& matrix = *use.linear->matrix;
  const std::int32_t* order = matrix.column_order();
  if (rounded.format != matrix.activation(batch_size()) || rounded.inputs != matrix.inputs()) return false;
  if (rounded.orders.empty() != (order == nullptr)) return false;
  const std::int32_t* equal = order;
  for (std::int64_t row = 0; row < rows_of(use) && order != nullptr; ++row) {
    const std::int32_t* other = rounded.orders[static_cast<std::size_t>(first_input(use) + row)];
    if (other == nullptr || other == equal) continue;
    if (!std::equal(order, order + matrix.cols(), other)) return false;
    equal = other;
  }
  return true;
}

void ForwardPart::plan_rounding(std::int64_t cols, std::span<const LinearUse> uses) {
  n_rounded_ = 0;
  for (const LinearUse& use : uses) {
    const kernel::ActivationFormat* format = use.linear->matrix->activation(batch_size());
    if (format == nullptr) continue;
    const std::int32_t* order = use.linear->matrix->column_order();
    std::size_t i = 0;
    while (i < n_rounded_ && !serves(rounded_[i], use)) ++i;
    if (i == n_rounded_) {
      if (i == Workspace::kRounded) fail(ErrorCode::kUnsupported, "an input that is rounded in more than {} ways", i);
      cache_.work.activations[i].bytes(static_cast<std::uint64_t>(n_) * format->row_bytes(cols));
      rounded_[i].format = format;
      rounded_[i].inputs = use.linear->matrix->inputs();
      rounded_[i].orders.assign(static_cast<std::size_t>(order != nullptr ? n_ : 0), nullptr);
      ++n_rounded_;
    }
    if (order != nullptr) std::fill_n(rounded_[i].orders.begin() + first_input(use), rows_of(use), order);
  }
}

void ForwardPart::round_row(const float* x, std::int64_t cols, std::int64_t row, std::vector<float>& sorted) {
  for (std::size_t i = 0; i < n_rounded_; ++i) {
    const Rounded& rounded = rounded_[i];
    const float* from = x;
    if (!rounded.orders.empty()) {
      const std::int32_t* order = rounded.orders[static_cast<std::size_t>(row)];
      if (order == nullptr) continue;
      sorted.resize(static_cast<std::size_t>(cols));
      for (std::int64_t c = 0; c < cols; ++c) sorted[static_cast<std::size_t>(c)] = x[order[c]];
      from = sorted.data();
    }
    std::byte* out =
        cache_.work.activations[i].bytes(0) + static_cast<std::uint64_t>(row) * rounded.format->row_bytes(cols);
    rounded.format->quantize(rounded.inputs, from, cols, 1, cols, out);
  }
}

void ForwardPart::round_activations(const float* x, std::int64_t cols, std::span<const LinearUse> uses) {
  plan_rounding(cols, uses);
  if (n_rounded_ == 0) return;
  const auto body = [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> sorted;
    for (std::int64_t row = begin; row < end; ++row) round_row(x + row * cols, cols, row, sorted);
  };
  context_.pool.parallel_for(n_, n_ * cols < kSerialNumbers ? n_ : 1, body);
}

void ForwardPart::norm(const Norm& norm, const float* x, std::int64_t n, float* out) const {
  const auto eps = static_cast<float>(decoder_.spec.norm_eps);
  if (decoder_.spec.norm == NormKind::kRms) return ops_.rms_norm(x, norm.weight.data(), eps, n, out);
  ops_.layer_norm(x, norm.weight.data(), norm.bias.empty() ? nullptr : norm.bias.data(), eps, n, out);
}

const float* ForwardPart::norm_and_round(const float* x, const Norm& norm, std::span<const LinearUse> uses) {
  const std::int64_t hidden = decoder_.spec.hidden;
  if (norm.empty()) {
    round_activations(x, hidden, uses);
    return x;
  }
  plan_rounding(hidden, uses);
  float* normed = cache_.work.normed.floats();
  const auto body = [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> sorted;
    for (std::int64_t row = begin; row < end; ++row) {
      this->norm(norm, x + row * hidden, hidden, normed + row * hidden);
      round_row(normed + row * hidden, hidden, row, sorted);
    }
  };
  context_.pool.parallel_for(n_, n_ * hidden < kSerialNumbers ? n_ : 1, body);
  return normed;
}

void ForwardPart::for_rows(std::int64_t cols, const std::function<void(std::int64_t row)>& body) {
  context_.pool.parallel_for(n_, n_ * cols < kSerialNumbers ? n_ : 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) body(row);
  });
}

const std::byte* ForwardPart::activations_of(const LinearUse& use, const float* x) {
  const std::int64_t row = first_input(use), cols = use.linear->matrix->cols();
  for (std::size_t i = 0; i < n_rounded_; ++i) {
    if (!serves(rounded_[i], use)) continue;
    return cache_.work.activations[i].bytes(0) + static_cast<std::uint64_t>(row) * rounded_[i].format->row_bytes(cols);
  }
  return reinterpret_cast<const std::byte*>(x + row * cols);
}

void ForwardPart::finish_tile(std::span<const LinearUse> uses, After after, Activation activation,
                              std::int64_t row_begin, std::int64_t row_end) {
  const std::int64_t count = row_end - row_begin;
  for (const LinearUse& use : uses) {
    if (use.linear->bias.empty()) continue;
    const std::int64_t ldo = use.linear->matrix->rows();
    for (std::int64_t t = use.first_row; t < use.first_row + rows_of(use); ++t)
      ops_.add(use.out + t * ldo + row_begin, use.linear->bias.data() + row_begin, count);
  }
  const std::int64_t ldo = uses[0].linear->matrix->rows();
  for (std::int64_t t = uses[0].first_row; t < uses[0].first_row + rows_of(uses[0]); ++t) {
    const std::int64_t at = t * ldo + row_begin;
    if (after == After::kAddTo) ops_.add(x_ + at, uses[0].out + at, count);
    if (after == After::kGate) ops_.gate[static_cast<int>(activation)](uses[0].out + at, uses[1].out + at, count);
    if (after == After::kActivate) ops_.activate[static_cast<int>(activation)](uses[0].out + at, count);
  }
}

void ForwardPart::run_linears(std::span<const LinearUse> uses, const float* x, After after, Activation activation) {
  // A job is what must share row ranges: gate and up together, everything else alone.
  const std::size_t per_job = after == After::kGate ? 2 : 1;
  std::int64_t total_rows = 0;
  for (std::size_t job = 0; job < uses.size(); job += per_job) total_rows += uses[job].linear->matrix->rows();
  const std::int64_t tiles = context_.pool.size() * (n_ < kManyTokens ? kTilesPerThread : kTilesOfManyTokens);
  const std::int64_t wished = (total_rows + tiles - 1) / tiles;

  struct Job {
    std::span<const LinearUse> uses;
    const std::byte* activations[2];
    const float* reduced[2];
    std::int64_t step, first_tile, end_tile;
  };
  const std::vector<const float*> reduced = reduce_inputs(uses, x);
  std::vector<Job> jobs(uses.size() / per_job);
  std::size_t n_jobs = 0;
  std::int64_t n_tiles = 0;
  for (std::size_t i = 0; i < uses.size(); i += per_job) {
    Job& job = jobs[n_jobs++];
    job.uses = uses.subspan(i, per_job);
    std::int64_t grain = 1;
    for (std::size_t u = 0; u < per_job; ++u) {
      grain = std::lcm(grain, job.uses[u].linear->matrix->grain());
      job.activations[u] = activations_of(job.uses[u], x);
      job.reduced[u] = reduced.empty() ? nullptr : reduced[i + u];
    }
    const std::int64_t unit = wished > 2 * grain ? kStreams * grain : grain;
    job.step = (wished + unit - 1) / unit * unit;
    job.first_tile = n_tiles;
    n_tiles += (job.uses[0].linear->matrix->rows() + job.step - 1) / job.step;
    job.end_tile = n_tiles;
  }
  std::atomic<std::int64_t> next{0};
  context_.pool.run([&](int thread) {
    for (std::int64_t tile; (tile = next.fetch_add(1, std::memory_order_relaxed)) < n_tiles;) {
      const Job& job = *std::ranges::find_if(jobs, [tile](const Job& j) { return tile < j.end_tile; });
      const std::int64_t rows = job.uses[0].linear->matrix->rows();
      const std::int64_t begin = (tile - job.first_tile) * job.step;
      const std::int64_t end = std::min(begin + job.step, rows);
      for (std::size_t u = 0; u < job.uses.size(); ++u) {
        const LinearUse& use = job.uses[u];
        use.linear->matrix->compute(job.activations[u], batch_size(), rows_of(use), begin, end,
                                    use.out + use.first_row * rows, rows, thread_scratch(thread));
        if (job.reduced[u] != nullptr) add_low_rank(use, job.reduced[u], begin, end);
      }
      finish_tile(job.uses, after, activation, begin, end);
    }
  });
}

}  // namespace nibble::model
