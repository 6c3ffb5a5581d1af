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

bool lies_in_parts(const encoding::EncodingInfo& type) {
  return type.family != encoding::Family::kPlain && type.family != encoding::Family::kBlock;
}

// One tensor on its way.
struct Work {
  std::size_t index = 0;
  const SourceTensor* source = nullptr;
  const TensorPlan* plan = nullptr;
  std::unique_ptr<method::Quantizer> quantizer;
  std::int64_t rows = 0, cols = 0, chunk_rows = 0, step_rows = 0;
  bool in_parts = false;        // the target has several parts:
  Tensor tensor;                // it is held here until it is whole
  std::uint64_t row_bytes = 0;  // of the target otherwise
  bool copy = false;            // the bytes go over unchanged, or
  bool repack = false;          // in another order

  struct Chunk {
    ErrorSums errors;
    double cpu_s = 0;
    std::uint64_t hash = 0;
  };
  std::vector<Chunk> chunks;
  std::int64_t begin_of(std::size_t chunk) const { return static_cast<std::int64_t>(chunk) * chunk_rows; }
  std::int64_t end_of(std::size_t chunk) const { return std::min(rows, begin_of(chunk) + chunk_rows); }
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

// Can rows be taken from parts that are of all rows? The integers share those; others have their blocks there.
bool rows_go_over(const SourceTensor& source, const Shape& shape) {
  const TensorView& view = source.stored.view;
  if (view.n_parts == 1 || view.encoding->family == encoding::Family::kAffine) return true;
  return source.stored.row_map.empty() && view.shape.elements() == shape.elements();
}

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
  const std::int64_t row_step = encoding::row_step(*work.plan->target, shape);
  work.step_rows = (work.step_rows + row_step - 1) / row_step * row_step;
  work.chunk_rows = (work.chunk_rows + row_step - 1) / row_step * row_step;
  work.in_parts = lies_in_parts(*work.plan->target);
  if (work.in_parts) {
    work.tensor = encoding::allocate(*work.plan->target, shape);
    const encoding::ActivationInfo* inputs = work.plan->inputs;
    const InputRounding& own = work.source->stored.view.inputs;
    work.tensor.set_inputs(own.activation == inputs ? own : InputRounding{inputs});
  } else {
    work.row_bytes = encoding::row_bytes(*work.plan->target, work.cols);
  }
  if (work.source->bytes_survive()) {
    work.repack = work.plan->repacking != encoding::Repacking::kNo;
    work.copy = work.repack || (work.plan->target == &work.source->source_type() && rows_go_over(*work.source, shape));
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

// Rows of one tensor as they are, `at(i)` the place of the i-th of them; those that lie in parts of all rows go with
// row 0 of the output.
template <typename At>
void copy_stored(const Work& work, const TensorView& view, std::int64_t n_rows, bool first, At&& at,
                 const encoding::RowParts& out) {
  const std::vector<encoding::PartPlan> parts = encoding::plan_parts(*view.encoding, view.shape);
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const std::span<const std::byte> from = view.parts[p].bytes;
    std::byte* to = out.parts[p];
    if (!parts[p].by_rows && work.in_parts) {
      if (first) std::ranges::copy(from, to);
      continue;
    }
    // A view may be of a vector that is written as rows.
    const std::size_t stride = work.in_parts ? from.size() / static_cast<std::size_t>(view.rows()) : work.row_bytes;
    for (std::int64_t i = 0; i < n_rows; ++i, to += stride)
      std::memcpy(to, from.data() + static_cast<std::size_t>(at(i)) * stride, stride);
  }
}

// The packed rows of a step, gathered in the order of the output.
void take_rows(Work& work, std::int64_t row, std::int64_t n_rows, const encoding::RowParts& out) {
  const model::StoredRows& stored = work.source->stored;
  for (std::int64_t i = 0; i < n_rows;) {
    // Of the experts of a stack that lie apart, as far as one goes.
    const std::int64_t height = stored.parts.empty() ? work.rows : stored.view.rows();
    const std::int64_t part = (row + i) / height, first = row + i - part * height;
    const std::int64_t count = std::min(n_rows - i, height - first);
    const TensorView& view = stored.parts.empty() ? stored.view : stored.parts[static_cast<std::size_t>(part)]->view;
    const auto at = [&](std::int64_t r) {
      return stored.row_map.empty() ? first + r : stored.row_map[static_cast<std::size_t>(first + r)];
    };
    encoding::RowParts to = out;
    if (!work.in_parts) to.parts[0] += static_cast<std::uint64_t>(i) * work.row_bytes;
    if (work.repack) {
      for (std::int64_t r = 0; r < count; ++r) {
        encoding::repack_row(view, at(r), *work.plan->target,
                             work.in_parts ? encoding::rows_at(work.tensor, row + i + r) : to);
        if (!work.in_parts) to.parts[0] += work.row_bytes;
      }
    } else {
      copy_stored(work, view, count, row + i == 0, at, to);
    }
    i += count;
  }
}

[[noreturn]] void fail_not_finite(const Work& work, std::int64_t row, std::int64_t at, const std::string& what) {
  fail(ErrorCode::kFormat, "tensor '{}', row {}, column {}: {}", work.plan->tensor.name, row + at / work.cols,
       at % work.cols, what);
}

std::string spell(float value) { return std::isnan(value) ? "NaN" : value > 0 ? "infinity" : "-infinity"; }

// Rows as they are to be packed, all of them numbers.
void read_rows(const Work& work, std::int64_t row, std::int64_t n_rows, std::vector<float>& out) {
  const std::int64_t n = n_rows * work.cols;
  out.resize(static_cast<std::size_t>(n));
  work.source->read(row, row + n_rows, out.data());
  const std::int64_t bad = find_not_finite(out.data(), n);
  if (bad < n) fail_not_finite(work, row, bad, "the weight is " + spell(out[static_cast<std::size_t>(bad)]));
}

// What packing lost of rows that were read and are decoded.
ErrorSums measure(const Work& work, std::int64_t row, const Scratch& scratch) {
  const auto n = static_cast<std::int64_t>(scratch.read.size());
  const ErrorSums sums = sum_errors(scratch.read.data(), scratch.decoded.data(), n);
  if (!std::isfinite(sums.v2)) {  // a value that is not finite, or squares beyond f32
    const std::int64_t lost = find_not_finite(scratch.decoded.data(), n);
    if (lost < n) {
      fail_not_finite(work, row, lost,
                      format_text("{} cannot be held in {}", scratch.read[static_cast<std::size_t>(lost)],
                                  work.plan->target->name));
    }
  }
  return sums;
}

void pack_step(Work& work, std::int64_t row, std::int64_t n_rows, Scratch& scratch, const encoding::RowParts& out,
               ErrorSums& errors) {
  const std::int64_t n = n_rows * work.cols;
  read_rows(work, row, n_rows, scratch.read);
  if (work.copy) {
    take_rows(work, row, n_rows, out);
  } else if (work.quantizer != nullptr) {
    work.quantizer->quantize_rows(scratch.read.data(), row, n_rows, out);
  } else {
    work.plan->target->encode(scratch.read.data(), out.parts[0], n);
  }
  if (work.in_parts) return;  // measured when it is whole: rows may share a part
  if (work.copy && work.plan->repacking != encoding::Repacking::kRounded) {
    errors.add(sum_errors(scratch.read.data(), scratch.read.data(), n));
    return;
  }
  scratch.decoded.resize(static_cast<std::size_t>(n));
  work.plan->target->decode(out.parts[0], scratch.decoded.data(), n);
  errors.add(measure(work, row, scratch));
}

void pack_task(const Task& task, Scratch& scratch, container::CheckpointWriter& writer) {
  Work& work = *task.work;
  Work::Chunk& chunk = task.work->chunks[task.chunk];
  const std::int64_t begin = work.begin_of(task.chunk), end = work.end_of(task.chunk);
  scratch.packed.resize(static_cast<std::size_t>(end - begin) * work.row_bytes);
  for (std::int64_t row = begin; row < end; row += work.step_rows) {
    const std::int64_t n_rows = std::min(work.step_rows, end - row);
    encoding::RowParts out;
    if (work.in_parts) {
      out = encoding::rows_at(work.tensor, row);
    } else {
      out.parts[0] = scratch.packed.data() + static_cast<std::uint64_t>(row - begin) * work.row_bytes;
    }
    pack_step(work, row, n_rows, scratch, out, chunk.errors);
  }
  if (work.in_parts) return;
  writer.write(work.index, static_cast<std::uint64_t>(begin) * work.row_bytes, scratch.packed);
  if (task.chunk == 0 || task.chunk + 1 == work.chunks.size()) chunk.hash = hash_bytes(scratch.packed);
}

// Of a tensor of several parts that is whole; its first chunk writes it, too.
void finish_task(const Task& task, Scratch& scratch, container::CheckpointWriter& writer) {
  Work& work = *task.work;
  Work::Chunk& chunk = task.work->chunks[task.chunk];
  const std::int64_t begin = work.begin_of(task.chunk), end = work.end_of(task.chunk);
  if (task.chunk == 0) writer.write_tensor(work.index, work.tensor.view());
  read_rows(work, begin, end - begin, scratch.read);
  scratch.decoded.resize(scratch.read.size());
  encoding::decode_rows(work.tensor.view(), begin, end, scratch.decoded.data());
  chunk.errors.add(measure(work, begin, scratch));
  chunk.hash = hash_bytes(std::as_bytes(std::span(scratch.decoded)));
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

template <typename Body>
void run_tasks(ExecContext& context, const std::vector<Task>& tasks, Body&& body) {
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> failed = false;
  context.pool.run([&](int thread) {
    Scratch scratch;
    for (;;) {
      const std::size_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= tasks.size() || failed.load(std::memory_order_relaxed)) return;
      try {
        context.check_cancelled();
        const auto start = std::chrono::steady_clock::now();
        body(tasks[i], scratch, thread == 0);
        tasks[i].work->chunks[tasks[i].chunk].cpu_s +=
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      } catch (...) {
        failed.store(true, std::memory_order_relaxed);
        throw;
      }
    }
  });
}

// Runs the tasks of a batch on all threads; the first thread also tells how far the work is.
void run_batch(ExecContext& context, std::vector<Work>& works, container::CheckpointWriter& writer,
               std::uint64_t weights_before) {
  std::vector<Task> tasks, finishing;
  for (Work& work : works) {
    for (std::size_t chunk = 0; chunk < work.chunks.size(); ++chunk) {
      tasks.push_back({&work, chunk});
      if (work.in_parts) finishing.push_back({&work, chunk});
    }
  }
  std::atomic<std::uint64_t> weights = weights_before;
  run_tasks(context, tasks, [&](const Task& task, Scratch& scratch, bool first_thread) {
    pack_task(task, scratch, writer);
    const Work& work = *task.work;
    const auto own = static_cast<std::uint64_t>((work.end_of(task.chunk) - work.begin_of(task.chunk)) * work.cols);
    const std::uint64_t done = weights.fetch_add(own) + own;
    if (first_thread) context.progress.update(done);
  });
  for (Work& work : works) {
    if (work.in_parts) writer.settle(work.tensor);
  }
  run_tasks(context, finishing, [&](const Task& task, Scratch& scratch, bool) { finish_task(task, scratch, writer); });
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
      if (work.source->stored.made != nullptr) work.source->stored.made->forget();
      for (const Share& share : work.source->shares) {
        if (share.stored.made != nullptr) share.stored.made->forget();
      }
    }
    begin = end;
  }
}

void verify_output(const container::CheckpointReader& output, const QuantPlan& plan,
                   const std::vector<TensorOutcome>& outcomes, std::size_t beside) {
  if (output.tensors().size() != plan.tensors.size() + beside) {
    fail(ErrorCode::kInternal, "'{}' holds {} tensors instead of {}", output.path().string(), output.tensors().size(),
         plan.tensors.size() + beside);
  }
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    const TensorPlan& tensor = plan.tensors[i];
    const TensorOutcome& outcome = outcomes[i];
    const container::TensorEntry& entry = output.at(tensor.tensor.name);
    const bool in_parts = lies_in_parts(*tensor.target);
    if ((!in_parts && entry.view.encoding != tensor.target) || entry.view.shape != tensor.tensor.shape) {
      fail(ErrorCode::kInternal, "'{}': tensor '{}' is not what was written", output.path().string(), entry.name);
    }
    if (outcome.first_rows == 0) continue;
    const auto hash_of = [&](std::int64_t begin, std::int64_t end) {
      if (in_parts) {
        std::vector<float> values(static_cast<std::size_t>((end - begin) * entry.view.cols()));
        encoding::decode_rows(entry.view, begin, end, values.data());
        return hash_bytes(std::as_bytes(std::span(values)));
      }
      const std::uint64_t row_bytes = encoding::row_bytes(*tensor.target, tensor.tensor.shape.cols());
      return hash_bytes(entry.view.data().subspan(static_cast<std::uint64_t>(begin) * row_bytes,
                                                  static_cast<std::uint64_t>(end - begin) * row_bytes));
    };
    if (hash_of(0, outcome.first_rows) != outcome.first_hash ||
        hash_of(outcome.last_row, entry.view.rows()) != outcome.last_hash) {
      fail(ErrorCode::kInternal, "'{}': the data of tensor '{}' is not what was written", output.path().string(),
           entry.name);
    }
    output.drop(entry);
  }
}

}  // namespace nibble::pipeline
