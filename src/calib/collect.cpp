#include "calib/collect.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble::calib {

namespace {

const std::string& weight_name(const model::ModelSpec& spec, model::Role role, int layer) {
  const model::WeightSlot* slot = spec.find(role, layer);
  if (slot == nullptr && role == model::Role::kOutput) slot = spec.find(model::Role::kTokenEmbedding, -1);
  if (slot == nullptr) fail(ErrorCode::kInternal, "layer {} has no {}", layer, model::role_name(role));
  return slot->gguf_name;
}

}  // namespace

void SquareSums::linear_input(ExecContext& context, int layer, std::span<const model::Role> roles, const float* x,
                              std::int64_t n, std::int64_t cols) {
  const std::int64_t begins[] = {0, n};
  stack_inputs(context, layer, roles, x, begins, cols);
}

void SquareSums::stack_inputs(ExecContext& context, int layer, std::span<const model::Role> roles, const float* x,
                              std::span<const std::int64_t> begins, std::int64_t cols) {
  const std::size_t n_matrices = begins.size() - 1;
  Input& input = inputs_[{layer, roles[0]}];
  if (input.roles.empty()) {
    input.roles.assign(roles.begin(), roles.end());
    input.entry.sums.resize(n_matrices * static_cast<std::size_t>(cols));
    input.entry.counts.resize(n_matrices);
  }
  for (std::size_t m = 0; m < n_matrices; ++m) input.entry.counts[m] += begins[m + 1] - begins[m];
  double* all_sums = input.entry.sums.data();
  context.pool.parallel_for(cols, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::size_t m = 0; m < n_matrices; ++m) {
      double* sums = all_sums + static_cast<std::int64_t>(m) * cols;
      for (std::int64_t t = begins[m]; t < begins[m + 1]; ++t) {
        const float* row = x + t * cols;
        for (std::int64_t c = begin; c < end; ++c) sums[c] += static_cast<double>(row[c]) * row[c];
      }
    }
  });
}

Imatrix SquareSums::to_imatrix() const {
  Imatrix imatrix;
  for (const auto& [key, input] : inputs_) {
    for (const model::Role role : input.roles) {
      const std::string& name = weight_name(spec_, role, key.first);
      const auto& sums = input.entry.sums;
      if (!std::all_of(sums.begin(), sums.end(), [](double sum) { return std::isfinite(sum); })) {
        fail(ErrorCode::kFormat, "the inputs of '{}' are not finite; are the model's weights?", name);
      }
      imatrix.entries[name] = input.entry;
    }
  }
  return imatrix;
}

Imatrix collect_imatrix(ExecContext& context, const model::Model& model, const TokenChunks& chunks,
                        std::int64_t batch_tokens) {
  SquareSums sums(model.spec());
  const std::int64_t batch = std::clamp(batch_tokens / chunks.context, std::int64_t{1}, chunks.n_chunks);
  ProgressTask progress(context.progress, "imatrix", static_cast<std::uint64_t>(chunks.n_chunks * chunks.context),
                        "tokens");
  for (std::int64_t first = 0; first < chunks.n_chunks; first += batch) {
    context.check_cancelled();
    const std::int64_t n_chunks = std::min(batch, chunks.n_chunks - first);
    model::KvCache cache(model.spec(), model::KvType::kF32, static_cast<int>(n_chunks), chunks.context);
    std::vector<model::Segment> segments;
    for (std::int64_t i = 0; i < n_chunks; ++i) segments.push_back({static_cast<int>(i), chunks.chunk(first + i), 0});
    model.forward(
        context, cache, segments, [](std::size_t, std::int64_t, std::int64_t, const float*) {}, &sums);
    progress.add(static_cast<std::uint64_t>(n_chunks * chunks.context));
  }
  Imatrix imatrix = sums.to_imatrix();
  imatrix.chunk_count = chunks.n_chunks;
  imatrix.chunk_size = chunks.context;
  return imatrix;
}

Imatrix planned_imatrix(const model::ModelSpec& spec, const TokenChunks& chunks) {
  Imatrix imatrix;
  imatrix.chunk_count = chunks.n_chunks;
  imatrix.chunk_size = chunks.context;
  const auto add = [&](const std::string& name, std::int64_t matrices, std::int64_t cols) {
    const std::vector<std::int64_t> counts(static_cast<std::size_t>(matrices), chunks.n_chunks * chunks.context);
    imatrix.entries[name] = {std::vector<double>(static_cast<std::size_t>(matrices * cols)), counts};
  };
  for (const model::WeightSlot& slot : spec.weights) {
    const bool projection = slot.role == model::Role::kEmbeddingIn || slot.role == model::Role::kEmbeddingOut;
    if ((slot.layer >= 0 || projection) && !slot.bias && model::is_matrix(slot.role))
      add(slot.gguf_name, slot.shape.rank() == 3 ? slot.shape[0] : 1, slot.shape.cols());
  }
  add(weight_name(spec, model::Role::kOutput, -1), 1, spec.embedding_size());
  return imatrix;
}

}  // namespace nibble::calib
