#include "eval/requantize.h"

#include <algorithm>
#include <deque>
#include <vector>

#include "container/checkpoint.h"
#include "encoding/encoding.h"

namespace nibble::eval {

namespace {

using container::CheckpointReader;
using container::TensorEntry;
using encoding::EncodingInfo;
using model::ModelSource;
using SourcePtr = std::shared_ptr<const ModelSource>;

constexpr std::int64_t kRowsPerTask = 32;

// The checkpoint of a source, some of its tensors replaced.
class Overlay final : public CheckpointReader {
 public:
  Overlay(SourcePtr source, std::vector<TensorEntry> entries, std::deque<Tensor> tensors)
      : source_(std::move(source)), entries_(std::move(entries)), tensors_(std::move(tensors)) {
    build_index();
  }
  container::Kind kind() const override { return base().kind(); }
  const std::filesystem::path& path() const override { return base().path(); }
  std::span<const std::filesystem::path> files() const override { return base().files(); }
  std::span<const TensorEntry> tensors() const override { return entries_; }
  const container::Metadata& metadata() const override { return base().metadata(); }
  const json::Value& config() const override { return base().config(); }
  void drop(const TensorEntry& /*entry*/) const override {}
  void will_need(const TensorEntry& /*entry*/) const override {}

 private:
  const CheckpointReader& base() const { return source_->reader(); }
  SourcePtr source_;
  std::vector<TensorEntry> entries_;
  std::deque<Tensor> tensors_;  // behind the replaced entries
};

class ViewRows final : public method::RowSource {
 public:
  explicit ViewRows(const TensorView& view) : view_(view) {}
  std::int64_t rows() const override { return view_.rows(); }
  std::int64_t cols() const override { return view_.cols(); }
  void read(std::int64_t row_begin, std::int64_t row_end, float* out) const override {
    encoding::decode_rows(view_, row_begin, row_end, out);
  }

 private:
  const TensorView& view_;
};

// Where row `row` of each part begins; a part without rows (a scale of the whole tensor) has one place for all.
method::RowsOut rows_at(Tensor& tensor, std::int64_t row) {
  const TensorView& view = tensor.view();
  method::RowsOut out;
  for (int i = 0; i < view.n_parts; ++i) {
    const Part& part = view.parts[static_cast<std::size_t>(i)];
    const bool by_rows = view.n_parts == 1 || part.shape[0] == view.rows();
    const std::size_t stride = by_rows ? part.bytes.size() / static_cast<std::size_t>(view.rows()) : 0;
    out.parts[static_cast<std::size_t>(i)] =
        tensor.mutable_part(part.role).data() + stride * static_cast<std::size_t>(row);
  }
  return out;
}

Tensor quantize(ExecContext& context, const TensorEntry& entry, const method::Method& method,
                const EncodingInfo& target, const method::Options& options) {
  const TensorView& view = entry.view;
  method::Job job;
  job.tensor = entry.name;
  job.target = &target;
  job.shape = view.shape;
  job.options = options;
  const ViewRows rows(view);
  Tensor result = encoding::allocate(target, view.shape);
  const auto quantizer = method.make(job);
  quantizer->prepare(context, rows);
  context.pool.parallel_dynamic((rows.rows() + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t task) {
    const std::int64_t begin = task * kRowsPerTask;
    const std::int64_t n = std::min(kRowsPerTask, rows.rows() - begin);
    std::vector<float> values(static_cast<std::size_t>(n * rows.cols()));
    rows.read(begin, begin + n, values.data());
    quantizer->quantize_rows(values.data(), begin, n, rows_at(result, begin));
  });
  return result;
}

}  // namespace

SourcePtr requantize(ExecContext& context, SourcePtr source, const method::Method& method, const EncodingInfo& target,
                     const method::Options& options) {
  const auto tensors = source->reader().tensors();
  std::vector<TensorEntry> entries(tensors.begin(), tensors.end());
  std::deque<Tensor> owned;
  for (std::size_t slot = 0; slot < source->spec().weights.size(); ++slot) {
    const model::WeightSlot& weight = source->spec().weights[slot];
    if (weight.layer < 0 || weight.bias || weight.shape.rank() < 2) continue;
    context.check_cancelled();
    for (const TensorEntry* entry : source->weight(slot).entries()) {
      owned.push_back(quantize(context, *entry, method, target, options));
      entries[static_cast<std::size_t>(entry - tensors.data())].view = owned.back().view();
    }
  }
  return ModelSource::from_reader(std::make_unique<Overlay>(std::move(source), std::move(entries), std::move(owned)));
}

}  // namespace nibble::eval
