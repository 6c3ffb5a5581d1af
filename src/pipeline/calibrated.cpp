#include "pipeline/calibrated.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "encoding/affine.h"
#include "pipeline/from_statistics.h"
#include "pipeline/loading.h"

namespace nibble::pipeline {

namespace {

using model::Role;
using model::WeightSlot;

constexpr std::int64_t kContext = 512;

// Does the walk through the blocks come by the input of this weight?
bool is_walked(const model::ModelSpec& spec, const WeightSlot& slot) {
  if (slot.bias || slot.shape.rank() < 2 || !model::is_matrix(slot.role)) return false;
  const bool head = slot.role == Role::kOutput || (slot.role == Role::kTokenEmbedding && spec.tied);
  return slot.layer >= 0 || head;
}

// Of a tensor that one weight makes up.
const WeightSlot* slot_of(const Conversion& conversion, const SourceTensor& tensor) {
  return tensor.slot == SourceTensor::kNoSlot || !tensor.shares.empty()
             ? nullptr
             : &conversion.model->spec().weights[tensor.slot];
}

}  // namespace

std::int64_t default_context(const model::ModelSpec& spec) {
  return spec.context > 0 ? std::min(kContext, spec.context) : kContext;
}

calib::TokenChunks calibration_chunks(const model::ModelSource& source, const CalibrationText& text) {
  const std::int64_t context = text.context > 0 ? text.context : default_context(source.spec());
  const std::int64_t n_chunks = std::max<std::int64_t>(1, text.tokens / context);
  return calib::chunk_file(*load_tokenizer(source), text.file, {calib::Protocol::kLlamaCpp, context, n_chunks});
}

void settle_methods(const Conversion& conversion, QuantPlan& plan) {
  if (conversion.model == nullptr)
    fail(ErrorCode::kUnsupported, "architecture '{}' is not known: it cannot be run over a calibration text",
         conversion.facts.arch);
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    TensorPlan& tensor = plan.tensors[i];
    const WeightSlot* slot = slot_of(conversion, conversion.tensors[i]);
    if (tensor.method == nullptr || (slot != nullptr && is_walked(conversion.model->spec(), *slot))) continue;
    tensor.target = &encoding::without_kept(*tensor.target);
    tensor.bytes = encoding::tensor_bytes(*tensor.target, tensor.tensor.shape);
    const method::Method& method = method::default_for(*tensor.target);
    if (&method == tensor.method) continue;
    tensor.note += format_text("{}no statistics: {} instead of {}", tensor.note.empty() ? "" : ", ", method.name,
                               tensor.method->name);
    tensor.method = &method;
  }
}

std::vector<SlotTarget> slot_targets(const Conversion& conversion, const QuantPlan& plan) {
  std::vector<SlotTarget> targets(conversion.model->spec().weights.size());
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    const TensorPlan& tensor = plan.tensors[i];
    if (slot_of(conversion, conversion.tensors[i]) == nullptr) continue;
    const SlotTarget to = {tensor.target, tensor.method, nullptr, tensor.inputs},
                     kept = {nullptr, nullptr, tensor.target};
    targets[conversion.tensors[i].slot] = tensor.method != nullptr ? to : kept;
  }
  return targets;
}

std::vector<TensorOutcome> transfer_calibrated(ExecContext& context, Conversion& conversion, QuantPlan& plan,
                                               const TransferOptions& options, const BlockwiseOptions& blockwise,
                                               const calib::TokenChunks& chunks, container::CheckpointWriter& writer,
                                               PhaseSeconds& spent) {
  const auto source = conversion.model->exchangeable();
  const model::ModelSpec& spec = source->spec();
  std::vector<SlotTarget> targets(spec.weights.size());
  std::vector<std::size_t> others;
  std::map<int, std::vector<std::size_t>> by_layer;
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    const WeightSlot* slot = slot_of(conversion, conversion.tensors[i]);
    const TensorPlan& tensor = plan.tensors[i];
    const bool solved = tensor.method != nullptr && slot != nullptr && is_walked(spec, *slot);
    if (slot != nullptr) {
      const SlotTarget to = {tensor.target, tensor.method, nullptr, tensor.inputs},
                       kept = {nullptr, nullptr, tensor.target};
      targets[conversion.tensors[i].slot] = solved ? to : kept;
    }
    // Transforms may rewrite any weight of a block.
    const bool of_block = slot != nullptr && slot->layer >= 0 && !blockwise.transforms.empty();
    if (solved || of_block) {
      by_layer[slot->layer].push_back(i);
    } else {
      others.push_back(i);
    }
  }
  std::vector<TensorOutcome> outcomes(plan.tensors.size());
  transfer(context, conversion, plan, options, others, writer, outcomes);

  conversion.model = source;
  NullProgress silent;
  ExecContext quiet{context.pool, context.cancel, silent};
  const auto write_block = [&](int layer) {
    for (const std::size_t i : by_layer[layer]) conversion.take_again(conversion.tensors[i]);
    transfer(quiet, conversion, plan, options, by_layer[layer], writer, outcomes);
    for (const std::size_t i : by_layer[layer]) source->restore(conversion.tensors[i].slot);
  };
  const std::vector<SlotOutcome> solved =
      blockwise.statistics
          ? quantize_from_statistics(context, source, *blockwise.statistics, targets, blockwise.method, write_block)
          : quantize_blockwise(context, source, chunks, targets, blockwise, write_block, spent);
  for (const auto& [layer, indices] : by_layer) {
    for (const std::size_t i : indices) {
      if (plan.tensors[i].method == nullptr) continue;
      const SlotOutcome& outcome = solved[conversion.tensors[i].slot];
      outcomes[i].errors = outcome.errors;
      outcomes[i].cpu_s = outcome.seconds;
      if (!outcome.note.empty()) plan.tensors[i].note += (plan.tensors[i].note.empty() ? "" : ", ") + outcome.note;
    }
  }
  return outcomes;
}

}  // namespace nibble::pipeline
