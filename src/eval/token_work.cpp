#include "eval/token_work.h"

#include <cmath>

#include "kernel/linear.h"

namespace nibble::eval {

using model::Role;

TokenWork token_work(const model::ModelSource& source, Isa isa) {
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
    const bool in_f32 = kernel::choose_linear(encoding, entry->view.cols(), isa).activation->name == "f32";
    const double share = spec.used_share(weight);
    const double macs = static_cast<double>(weight.shape.elements()) * share;
    const bool head = embedding || weight.role == Role::kOutput;
    double& sum = head ? (in_f32 ? work.head_float_macs : work.head_integer_macs)
                       : (in_f32 ? work.float_macs : work.integer_macs);
    sum += macs;
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
  const auto n = static_cast<double>(tokens);
  return 2 * (work.integer_macs * n + work.head_integer_macs) / roofline.int8_ops_per_s +
         2 * (work.float_macs * n + work.head_float_macs) / roofline.f32_ops_per_s;
}

double prefill_macs(const TokenWork& work, std::int64_t tokens) {
  return (work.integer_macs + work.float_macs) * static_cast<double>(tokens) + work.head_integer_macs +
         work.head_float_macs;
}

}  // namespace nibble::eval
