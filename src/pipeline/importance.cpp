#include "pipeline/importance.h"

#include <algorithm>

#include "base/error.h"

namespace nibble::pipeline {

namespace {

constexpr std::string_view kHead = "output.weight";
constexpr std::string_view kEmbedding = "token_embd.weight";

const calib::ImatrixEntry* find_entry(const calib::Imatrix& imatrix, const QuantPlan& plan, const std::string& name) {
  if (const calib::ImatrixEntry* entry = imatrix.find(name)) return entry;
  const bool tied = std::none_of(plan.tensors.begin(), plan.tensors.end(),
                                 [](const TensorPlan& t) { return t.tensor.name == kHead; });
  return name == kEmbedding && tied ? imatrix.find(kHead) : nullptr;
}

// Does the target's method look at importance? Plain types do not.
bool wants_importance(const TensorPlan& plan) { return plan.method != nullptr; }

}  // namespace

std::vector<std::vector<float>> importance_of(const calib::Imatrix& imatrix, QuantPlan& plan,
                                              std::vector<std::string>& notes) {
  std::vector<std::vector<float>> importance(plan.tensors.size());
  std::size_t wanted = 0, missing = 0;
  std::string first;
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    TensorPlan& tensor = plan.tensors[i];
    if (!wants_importance(tensor)) continue;
    ++wanted;
    const calib::ImatrixEntry* entry = find_entry(imatrix, plan, tensor.tensor.name);
    if (entry == nullptr) {
      if (missing++ == 0) first = tensor.tensor.name;
      tensor.note += tensor.note.empty() ? "no importance" : ", no importance";
      continue;
    }
    importance[i] = calib::mean_square(*entry);
    const Shape& shape = tensor.tensor.shape;
    const std::int64_t experts =
        shape.rank() > 2 ? shape.elements() / std::max<std::int64_t>(1, shape[shape.rank() - 2] * shape.cols()) : 1;
    if (static_cast<std::int64_t>(importance[i].size()) != experts * shape.cols()) {
      fail(ErrorCode::kInvalidArgument,
           "importance matrix: '{}' has {} values, the tensor {} columns: it belongs to another model",
           tensor.tensor.name, importance[i].size(), experts * shape.cols());
    }
  }
  if (wanted > 0 && missing == wanted) {
    fail(ErrorCode::kInvalidArgument, "the importance matrix names no tensor of this model: it belongs to another one");
  }
  if (missing > 0) {
    notes.push_back(format_text("{} of {} quantized tensors have no entry in the importance matrix ('{}'{})", missing,
                                wanted, first, missing > 1 ? ", ..." : ""));
  }
  return importance;
}

void set_imatrix_keys(const calib::Imatrix& imatrix, const std::filesystem::path& path, container::Metadata& metadata) {
  std::string datasets;
  for (const std::string& name : imatrix.datasets) datasets += (datasets.empty() ? "" : ", ") + name;
  metadata.set("quantize.imatrix.file", path.string());
  if (!datasets.empty()) metadata.set("quantize.imatrix.dataset", datasets);
  metadata.set("quantize.imatrix.entries_count", static_cast<std::uint32_t>(imatrix.entries.size()));
  metadata.set("quantize.imatrix.chunks_count", static_cast<std::uint32_t>(imatrix.chunk_count));
}

}  // namespace nibble::pipeline
