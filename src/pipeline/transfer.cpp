#include "pipeline/transfer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "encoding/encoding.h"

namespace nibble::pipeline {

namespace {

constexpr std::int64_t kChunkWeights = std::int64_t{1} << 21;  // of one task: what a thread writes at once
constexpr std::int64_t kStepWeights = std::int64_t{1} << 15;   // of one step inside a task: stays in the cache
constexpr std::int64_t kBatchWeights = std::int64_t{1} << 26;  // between two meetings of all threads

// Fingerprint of bytes; not cryptographic.
std::uint64_t hash_bytes(std::span<const std::byte> bytes) {
  std::uint64_t hash = bytes.size();
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + i, sizeof word);
    hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
    hash ^= hash >> 29;
  }
  for (; i < bytes.size(); ++i) hash = (hash ^ static_cast<std::uint64_t>(bytes[i])) * 0x100000001B3ull;
  return hash;
}

// One tensor on its way.
struct Work {
  std::size_t index = 0;
  const SourceTensor* source = nullptr;
  const TensorPlan* plan = nullptr;
  std::unique_ptr<method::Quantizer> quantizer;
  std::int64_t rows = 0, cols = 0, chunk_rows = 0, step_rows = 0;
  std::uint64_t row_bytes = 0;  // of the target
  bool copy = false;            // the bytes go over unchanged, or
  bool repack = false;          // in another order

  struct Chunk {
    ErrorSums errors;
    double cpu_s = 0;
    std::uint64_t hash = 0;
  };
  std::vector<Chunk> chunks;
};

struct Task {
  Work* work;
  std::size_t chunk;
};

class Source final : public method::RowSource {
 public:
  Source(const SourceTensor& tensor, std::int64_t rows, std::int64_t cols)
      : tensor_(tensor), rows_(rows), cols_(cols) {}
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  void read(std::int64_t row_begin, std::int64_t row_end, float* out) const override {
    tensor_.read(row_begin, row_end, out);
  }

 private:
  const SourceTensor& tensor_;
  std::int64_t rows_, cols_;
};

Work make_work(std::size_t index, const Conversion& conversion, const QuantPlan& plan, const TransferOptions& options) {
  Work work;
  work.index = index;
  work.source = &conversion.tensors[index];
  work.plan = &plan.tensors[index];
  const Shape& shape = work.plan->tensor.shape;
  work.cols = shape.cols();
  work.rows = shape.rows();
  if (work.cols == 0) work.rows = 0;
  work.chunk_rows = std::max<std::int64_t>(1, kChunkWeights / std::max<std::int64_t>(1, work.cols));
  // A row of a tensor that several weights make up may hold a number of each of their rows: few large steps.
  const std::int64_t step_weights = work.source->shares.empty() ? kStepWeights : kChunkWeights;
  work.step_rows = std::max<std::int64_t>(1, step_weights / std::max<std::int64_t>(1, work.cols));
  work.row_bytes = encoding::row_bytes(*work.plan->target, work.cols);
  if (work.source->bytes_survive()) {
    work.repack = encoding::repacks(work.source->source_type(), *work.plan->target);
    work.copy = work.repack || work.plan->target == &work.source->source_type();
  }
  work.chunks.resize(static_cast<std::size_t>((work.rows + work.chunk_rows - 1) / work.chunk_rows));
  if (work.plan->method != nullptr && !work.copy) {
    method::Job job;
    job.tensor = work.plan->tensor.name;
    job.target = work.plan->target;
    job.shape = shape;
    if (!options.importance.empty()) job.statistics.importance = options.importance[index];
    job.options = options.method;
    work.quantizer = work.plan->method->make(job);
  }
  return work;
}

// What one thread works with.
struct Scratch {
  std::vector<float> read, decoded;
  std::vector<std::byte> packed;
};

// The packed rows of a task, gathered in the order of the output.
void copy_rows(const Work& work, std::int64_t row, std::int64_t n_rows, std::byte* out) {
  const TensorView& view = work.source->stored.entry->view;
  const std::byte* data = view.data().data();
  const auto& map = work.source->stored.row_map;
  if (map.empty() && !work.repack) {
    std::memcpy(out, data + static_cast<std::uint64_t>(row) * work.row_bytes,
                static_cast<std::uint64_t>(n_rows) * work.row_bytes);
    return;
  }
  for (std::int64_t i = 0; i < n_rows; ++i, out += work.row_bytes) {
    const std::int64_t at = map.empty() ? row + i : map[static_cast<std::size_t>(row + i)];
    if (work.repack) {
      encoding::repack_row(view, at, out);
    } else {
      std::memcpy(out, data + static_cast<std::uint64_t>(at) * work.row_bytes, work.row_bytes);
    }
  }
}

[[noreturn]] void fail_not_finite(const Work& work, std::int64_t row, std::int64_t at, const std::string& what) {
  fail(ErrorCode::kFormat, "tensor '{}', row {}, column {}: {}", work.plan->tensor.name, row + at / work.cols,
       at % work.cols, what);
}

std::string spell(float value) { return std::isnan(value) ? "NaN" : value > 0 ? "infinity" : "-infinity"; }

void pack_step(const Work& work, std::int64_t row, std::int64_t n_rows, Scratch& scratch, std::byte* out,
               ErrorSums& errors) {
  const std::int64_t n = n_rows * work.cols;
  scratch.read.resize(static_cast<std::size_t>(n));
  scratch.decoded.resize(static_cast<std::size_t>(n));
  work.source->read(row, row + n_rows, scratch.read.data());
  const std::int64_t bad = find_not_finite(scratch.read.data(), n);
  if (bad < n) fail_not_finite(work, row, bad, "the weight is " + spell(scratch.read[static_cast<std::size_t>(bad)]));
  if (work.copy) {
    copy_rows(work, row, n_rows, out);
    errors.add(sum_errors(scratch.read.data(), scratch.read.data(), n));
    return;
  }
  if (work.quantizer != nullptr) {
    method::RowsOut rows;
    rows.parts[0] = out;
    work.quantizer->quantize_rows(scratch.read.data(), row, n_rows, rows);
  } else {
    work.plan->target->encode(scratch.read.data(), out, n);
  }
  work.plan->target->decode(out, scratch.decoded.data(), n);
  const ErrorSums sums = sum_errors(scratch.read.data(), scratch.decoded.data(), n);
  if (!std::isfinite(sums.v2)) {  // a value that is not finite, or squares beyond f32
    const std::int64_t lost = find_not_finite(scratch.decoded.data(), n);
    if (lost < n) {
      fail_not_finite(work, row, lost,
                      format_text("{} cannot be held in {}", scratch.read[static_cast<std::size_t>(lost)],
                                  work.plan->target->name));
    }
  }
  errors.add(sums);
}

void run_task(const Task& task, Scratch& scratch, container::CheckpointWriter& writer) {
  const auto start = std::chrono::steady_clock::now();
  const Work& work = *task.work;
  Work::Chunk& chunk = task.work->chunks[task.chunk];
  const std::int64_t begin = static_cast<std::int64_t>(task.chunk) * work.chunk_rows;
  const std::int64_t end = std::min(work.rows, begin + work.chunk_rows);
  scratch.packed.resize(static_cast<std::size_t>(end - begin) * work.row_bytes);
  for (std::int64_t row = begin; row < end; row += work.step_rows) {
    const std::int64_t n_rows = std::min(work.step_rows, end - row);
    pack_step(work, row, n_rows, scratch,
              scratch.packed.data() + static_cast<std::uint64_t>(row - begin) * work.row_bytes, chunk.errors);
  }
  writer.write(work.index, static_cast<std::uint64_t>(begin) * work.row_bytes, scratch.packed);
  if (task.chunk == 0 || task.chunk + 1 == work.chunks.size()) chunk.hash = hash_bytes(scratch.packed);
  chunk.cpu_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TensorOutcome finish(const Work& work) {
  TensorOutcome outcome;
  for (const Work::Chunk& chunk : work.chunks) {
    outcome.errors.add(chunk.errors);
    outcome.cpu_s += chunk.cpu_s;
  }
  if (work.chunks.empty()) return outcome;
  outcome.first_rows = std::min(work.rows, work.chunk_rows);
  outcome.last_row = static_cast<std::int64_t>(work.chunks.size() - 1) * work.chunk_rows;
  outcome.first_hash = work.chunks.front().hash;
  outcome.last_hash = work.chunks.back().hash;
  return outcome;
}

// Runs the tasks of a batch on all threads; the first thread also tells how far the work is.
void run_batch(ExecContext& context, std::vector<Work>& works, container::CheckpointWriter& writer,
               std::uint64_t weights_before) {
  std::vector<Task> tasks;
  for (Work& work : works) {
    for (std::size_t chunk = 0; chunk < work.chunks.size(); ++chunk) tasks.push_back({&work, chunk});
  }
  std::atomic<std::size_t> next = 0;
  std::atomic<std::uint64_t> weights = weights_before;
  std::atomic<bool> failed = false;
  context.pool.run([&](int thread) {
    Scratch scratch;
    for (;;) {
      const std::size_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= tasks.size() || failed.load(std::memory_order_relaxed)) return;
      try {
        context.check_cancelled();
        run_task(tasks[i], scratch, writer);
      } catch (...) {
        failed.store(true, std::memory_order_relaxed);
        throw;
      }
      const Work& work = *tasks[i].work;
      const std::int64_t begin = static_cast<std::int64_t>(tasks[i].chunk) * work.chunk_rows;
      const std::int64_t rows = std::min(work.chunk_rows, work.rows - begin);
      const std::uint64_t done = weights.fetch_add(static_cast<std::uint64_t>(rows * work.cols)) +
                                 static_cast<std::uint64_t>(rows * work.cols);
      if (thread == 0) context.progress.update(done);
    }
  });
  context.progress.update(weights.load());
}

// Of the tensors from `begin` on, those before the result make the next batch.
std::size_t batch_end(const QuantPlan& plan, std::span<const std::size_t> tensors, std::size_t begin) {
  std::int64_t weights = 0;
  std::size_t end = begin;
  while (end < tensors.size() && (end == begin || weights < kBatchWeights))
    weights += plan.tensors[tensors[end++]].tensor.shape.elements();
  return end;
}

std::uint64_t count_weights(const QuantPlan& plan, std::span<const std::size_t> tensors) {
  std::uint64_t sum = 0;
  for (const std::size_t i : tensors) sum += static_cast<std::uint64_t>(plan.tensors[i].tensor.shape.elements());
  return sum;
}

}  // namespace

void transfer(ExecContext& context, const Conversion& conversion, const QuantPlan& plan, const TransferOptions& options,
              std::span<const std::size_t> tensors, container::CheckpointWriter& writer,
              std::vector<TensorOutcome>& outcomes) {
  const container::CheckpointReader& reader = conversion.reader();
  const ProgressTask progress(context.progress, plan.recipe, count_weights(plan, tensors), "weights");
  std::uint64_t weights = 0;
  for (std::size_t begin = 0; begin < tensors.size();) {
    const std::size_t end = batch_end(plan, tensors, begin);
    std::vector<Work> works;
    for (std::size_t i = begin; i < end; ++i) works.push_back(make_work(tensors[i], conversion, plan, options));
    for (std::size_t i = end; i < batch_end(plan, tensors, end); ++i) {
      for (const container::TensorEntry* entry : conversion.tensors[tensors[i]].stored.entries())
        reader.will_need(*entry);
    }
    for (Work& work : works) {
      if (work.quantizer != nullptr) work.quantizer->prepare(context, Source(*work.source, work.rows, work.cols));
    }
    run_batch(context, works, writer, weights);
    for (const Work& work : works) {
      outcomes[work.index] = finish(work);
      weights += static_cast<std::uint64_t>(work.rows * work.cols);
      for (const container::TensorEntry* entry : work.source->stored.entries()) reader.drop(*entry);
    }
    begin = end;
  }
}

void verify_output(const container::CheckpointReader& output, const QuantPlan& plan,
                   const std::vector<TensorOutcome>& outcomes) {
  if (output.tensors().size() != plan.tensors.size()) {
    fail(ErrorCode::kInternal, "'{}' holds {} tensors instead of {}", output.path().string(), output.tensors().size(),
         plan.tensors.size());
  }
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    const TensorPlan& tensor = plan.tensors[i];
    const TensorOutcome& outcome = outcomes[i];
    const container::TensorEntry& entry = output.at(tensor.tensor.name);
    if (entry.view.encoding != tensor.target || entry.view.shape != tensor.tensor.shape) {
      fail(ErrorCode::kInternal, "'{}': tensor '{}' is not what was written", output.path().string(), entry.name);
    }
    if (outcome.first_rows == 0) continue;
    const std::uint64_t row_bytes = encoding::row_bytes(*tensor.target, tensor.tensor.shape.cols());
    const auto data = entry.view.data();
    const bool same =
        hash_bytes(data.first(static_cast<std::uint64_t>(outcome.first_rows) * row_bytes)) == outcome.first_hash &&
        hash_bytes(data.subspan(static_cast<std::uint64_t>(outcome.last_row) * row_bytes)) == outcome.last_hash;
    if (!same)
      fail(ErrorCode::kInternal, "'{}': the data of tensor '{}' is not what was written", output.path().string(),
           entry.name);
    output.drop(entry);
  }
}

}  // namespace nibble::pipeline
