#include "eval/token_work.h"

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
    const auto macs = static_cast<double>(weight.shape.elements());
    const bool head = embedding || weight.role == Role::kOutput;
    double& sum = head ? (in_f32 ? work.head_float_macs : work.head_integer_macs)
                       : (in_f32 ? work.float_macs : work.integer_macs);
    sum += macs;
    work.weight_bytes += static_cast<double>(entry->view.n_bytes());
  }
  return work;
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
