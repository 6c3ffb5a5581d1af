#include "eval/requantize.h"

#include <algorithm>
#include <deque>
#include <vector>

#include "container/checkpoint.h"
#include "encoding/encoding.h"
#include "method/quantize_tensor.h"

namespace nibble::eval {

namespace {

using container::CheckpointReader;
using container::TensorEntry;
using encoding::EncodingInfo;
using model::ModelSource;
using SourcePtr = std::shared_ptr<const ModelSource>;

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

Tensor quantize(ExecContext& context, const TensorEntry& entry, const method::Method& method,
                const EncodingInfo& target, const method::Options& options, std::span<const float> importance) {
  const TensorView& view = entry.view;
  method::Job job;
  job.tensor = entry.name;
  job.target = &target;
  job.shape = view.shape;
  job.options = options;
  job.statistics.importance = importance;
  const ViewRows rows(view);
  Tensor result = encoding::allocate(target, view.shape);
  method::quantize_into(context, method, job, rows, 0, result);
  return result;
}

// The mean squares of a linear's inputs; empty where none are known, or where inputs lie along the rows of the file.
std::vector<float> importance_of(const calib::Imatrix* importance, const model::WeightSlot& weight,
                                 const model::StoredRows& stored) {
  const calib::ImatrixEntry* entry = importance != nullptr ? importance->find(weight.gguf_name) : nullptr;
  return entry != nullptr && !stored.transposed ? calib::mean_square(*entry) : std::vector<float>();
}

}  // namespace

SourcePtr requantize(ExecContext& context, SourcePtr source, const method::Method& method, const EncodingInfo& target,
                     const method::Options& options, const calib::Imatrix* importance) {
  const auto tensors = source->reader().tensors();
  std::vector<TensorEntry> entries(tensors.begin(), tensors.end());
  std::deque<Tensor> owned;
  for (std::size_t slot = 0; slot < source->spec().weights.size(); ++slot) {
    const model::WeightSlot& weight = source->spec().weights[slot];
    if (weight.layer < 0 || weight.bias || weight.shape.rank() < 2) continue;
    context.check_cancelled();
    const model::StoredRows& stored = source->weight(slot);
    const std::vector<float> all = importance_of(importance, weight, stored);
    const auto parts = stored.entries();
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const TensorEntry* entry = parts[i];
      const std::size_t share = all.size() / parts.size();  // one expert's, where each is a tensor of its own
      owned.push_back(quantize(context, *entry, method, target, options, std::span(all).subspan(i * share, share)));
      entries[static_cast<std::size_t>(entry - tensors.data())].view = owned.back().view();
    }
  }
  return ModelSource::from_reader(std::make_unique<Overlay>(std::move(source), std::move(entries), std::move(owned)));
}

}  // namespace nibble::eval
