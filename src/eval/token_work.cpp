#include "eval/token_work.h"

#include <cmath>

#include "kernel/linear.h"

namespace nibble::eval {

using model::Role;

namespace {

double limit_seconds(const Macs& macs, const kernel::Roofline& roofline) {
  double seconds = 0;
  for (const kernel::ProductKind kind : kernel::kProductKinds) {
    if (macs[kind] > 0) seconds += 2 * macs[kind] / kernel::peak_of(kind, roofline);
  }
  return seconds;
}

}  // namespace

TokenWork token_work(const model::ModelSource& source, Isa isa, std::int64_t batch) {
  const model::ModelSpec& spec = source.spec();
  TokenWork work;
  for (std::size_t slot = 0; slot < spec.weights.size(); ++slot) {
    const model::WeightSlot& weight = spec.weights[slot];
    const container::TensorEntry* entry = source.weight(slot).entry;
    if (entry == nullptr || weight.bias || !model::is_matrix(weight.role)) continue;
    if (weight.role == Role::kPositionEmbedding) continue;
    const bool embedding = weight.role == Role::kTokenEmbedding;
    if (embedding && !spec.tied) continue;
    const encoding::EncodingInfo& encoding = *entry->view.encoding;
    const double share = spec.used_share(weight);
    const bool head = embedding || weight.role == Role::kOutput;
    const bool even_groups = source.weight(slot).has_even_groups();
    const kernel::LinearKernel& one =
        kernel::choose_linear(encoding, entry->view.cols(), isa, even_groups, entry->view.inputs.activation);
    const kernel::LinearKernel& wide =
        kernel::choose_wide(encoding, entry->view.cols(), isa, even_groups, entry->view.inputs.activation);
    const double tokens = static_cast<double>(batch) * (model::is_expert_stack(weight.role) ? share : 1);
    const kernel::LinearKernel& linear = head || tokens < static_cast<double>(wide.min_tokens) ? one : wide;
    (head ? work.head : work.body)[kernel::product_kind(linear)] +=
        static_cast<double>(weight.shape.elements()) * share * linear.products;
    const auto n_bytes = static_cast<double>(source.weight(slot).n_bytes());
    if (model::is_expert_stack(weight.role)) {
      work.expert_bytes += n_bytes;
      work.expert_share = share;
    } else {
      work.weight_bytes += n_bytes;
    }
  }
  return work;
}

double step_bytes(const TokenWork& work, int batch) {
  return work.weight_bytes + work.expert_bytes * (1 - std::pow(1 - work.expert_share, batch));
}

double prefill_limit_seconds(const TokenWork& work, std::int64_t tokens, const kernel::Roofline& roofline) {
  return limit_seconds(work.body, roofline) * static_cast<double>(tokens) + limit_seconds(work.head, roofline);
}

double prefill_macs(const TokenWork& work, std::int64_t tokens) {
  return work.body.all() * static_cast<double>(tokens) + work.head.all();
}

}  // namespace nibble::eval
