#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>

#include "model/decoder.h"
#include "model/expert_choice.h"

namespace nibble::model {

// A mixture of experts. The tokens are sorted by expert, so that each expert's matrices are read once, for all of its
// tokens, and those of experts without tokens not at all.
void ForwardPart::run_experts(int layer, const DecoderBlock& block) {
  Workspace& work = cache_.work;
  static constexpr Role kInputs[] = {Role::kRouter, Role::kSharedGate, Role::kSharedUp};
  const bool shared = block.spec.experts.shared > 0;
  const LinearUse uses[] = {
      {&block.router, work.scores.floats()}, {&block.experts[0].gate, nullptr}, {&block.experts[0].up, nullptr}};
  const float* x = norm_and_round(x_, block.ffn_norm, std::span(uses, takes_input_as_it_is(block) ? 3 : 1));
  observe_input(layer, std::span(kInputs, shared ? 3 : 1), x, decoder_.spec.hidden);
  run_linears(std::span(uses, 1), x, After::kKeep);
  route(block, work.scores.floats());
  const std::int64_t hidden = decoder_.spec.hidden;
  float* out = work.projected.floats();
  run_routed_experts(layer, block, x, out);
  if (shared) {
    const float* other = work.shared.floats();
    run_shared_expert(layer, block, x, work.shared.floats());
    for_rows(hidden, [&](std::int64_t row) { ops_.add(out + row * hidden, other + row * hidden, hidden); });
  }
  finish_half(block.ffn_post_norm, out, true);
}

void ForwardPart::route(const DecoderBlock& block, const float* scores) {
  const ExpertSpec& spec = block.spec.experts;
  const auto used = static_cast<std::size_t>(spec.used);
  std::vector<std::size_t> chosen(static_cast<std::size_t>(n_) * used);
  std::vector<float> weights(chosen.size());
  expert_begin_.assign(static_cast<std::size_t>(spec.count) + 1, 0);
  ExpertChoice choice(spec, block.router_bias);
  for (std::int64_t row = 0; row < n_; ++row) {
    const float* score = scores + row * spec.count;
    const std::size_t at = static_cast<std::size_t>(row) * used;
    const std::span<const std::size_t> experts = choice.choose(score);
    choice.weigh(score, experts, weights.data() + at);
    std::ranges::copy(experts, chosen.begin() + static_cast<std::ptrdiff_t>(at));
    for (const std::size_t expert : experts) ++expert_begin_[expert + 1];
  }
  std::partial_sum(expert_begin_.begin(), expert_begin_.end(), expert_begin_.begin());
  std::vector<std::int64_t> next(expert_begin_.begin(), expert_begin_.end() - 1);
  routed_.resize(chosen.size());
  routed_of_row_.resize(chosen.size());
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const std::int64_t at = next[chosen[i]]++;
    routed_[static_cast<std::size_t>(at)] = {static_cast<std::int64_t>(i / used), weights[i]};
    routed_of_row_[i] = at;
  }
}

void ForwardPart::run_shared_expert(int layer, const DecoderBlock& block, const float* x, float* out) {
  Workspace& work = cache_.work;
  const std::int64_t hidden = decoder_.spec.hidden, ffn = block.spec.experts.shared;
  float* inner = work.gate.floats();
  const LinearUse gate_up[] = {{&block.shared.gate, inner}, {&block.shared.up, work.up.floats()}};
  round_activations(x, hidden, gate_up);
  run_linears(gate_up, x, After::kGate, block.spec.activation);
  static constexpr Role kOutputs[] = {Role::kSharedDown};
  const LinearUse down[] = {{&block.shared.down, out}};
  observe_input(layer, kOutputs, inner, ffn);
  round_activations(inner, ffn, down);
  run_linears(down, inner, After::kKeep);
  if (block.shared_scale.empty()) return;
  for_rows(hidden, [&](std::int64_t row) {
    const float* in = x + row * hidden;
    double score = 0;
    for (std::int64_t i = 0; i < hidden; ++i)
      score += static_cast<double>(in[i]) * static_cast<double>(block.shared_scale[static_cast<std::size_t>(i)]);
    ops_.scale(out + row * hidden, static_cast<float>(1 / (1 + std::exp(-score))), hidden);
  });
}

void ForwardPart::observe_stack(int layer, std::span<const Role> roles, const float* x,
                                std::span<const std::int64_t> begins, std::int64_t cols) {
  if (observer_ != nullptr) observer_->stack_inputs(context_, layer, roles, x, begins, cols);
}

// One token's experts all multiply the same row, so it need not be copied for each, unless its columns are sorted for
// each.
bool ForwardPart::takes_input_as_it_is(const DecoderBlock& block) const {
  const FeedForward& expert = block.experts[0];
  const bool sorted = expert.gate.matrix->column_order() != nullptr || expert.up.matrix->column_order() != nullptr;
  return n_ == 1 && observer_ == nullptr && !block.spec.experts.weigh_inputs && !sorted;
}

void ForwardPart::run_routed_experts(int layer, const DecoderBlock& block, const float* x, float* out) {
  Workspace& work = cache_.work;
  const std::int64_t hidden = decoder_.spec.hidden, ffn = block.spec.experts.ffn;
  const std::int64_t used = block.spec.experts.used, n_tokens = n_;
  const bool as_it_is = takes_input_as_it_is(block), weigh_inputs = block.spec.experts.weigh_inputs;
  float* routed = work.routed.floats();  // inputs, then outputs of the experts, sorted by expert
  n_ *= used;
  experts_in_flight_ = block.spec.experts.count;
  if (!as_it_is) {
    for_rows(hidden, [&](std::int64_t i) {
      const Routed& to = routed_[static_cast<std::size_t>(i)];
      std::memcpy(routed + i * hidden, x + to.row * hidden, static_cast<std::size_t>(hidden) * sizeof(float));
      if (weigh_inputs) ops_.scale(routed + i * hidden, to.weight, hidden);
    });
  }
  std::vector<LinearUse> gate_up, down;
  for (std::size_t e = 0; e < block.experts.size(); ++e) {
    const std::int64_t begin = expert_begin_[e], count = expert_begin_[e + 1] - begin;
    if (count == 0) continue;
    const FeedForward& expert = block.experts[e];
    const std::int64_t input = as_it_is ? 0 : kSameRow;
    gate_up.push_back({&expert.gate, work.gate.floats(), begin, count, input});
    gate_up.push_back({&expert.up, work.up.floats(), begin, count, input});
    down.push_back({&expert.down, routed, begin, count});
  }
  static constexpr Role kInputs[] = {Role::kExpertGate, Role::kExpertUp};
  if (!as_it_is) {
    observe_stack(layer, kInputs, routed, expert_begin_, hidden);
    round_activations(routed, hidden, gate_up);
  }
  run_linears(gate_up, as_it_is ? x : routed, After::kGate, block.spec.activation);
  static constexpr Role kOutputs[] = {Role::kExpertDown};
  observe_stack(layer, kOutputs, work.gate.floats(), expert_begin_, ffn);
  round_activations(work.gate.floats(), ffn, down);
  run_linears(down, work.gate.floats(), After::kKeep);

  n_ = n_tokens;
  experts_in_flight_ = 1;
  for_rows(hidden, [&](std::int64_t row) {
    float* sum = out + row * hidden;
    std::memset(sum, 0, static_cast<std::size_t>(hidden) * sizeof(float));
    for (std::int64_t i = 0; i < used; ++i) {
      const std::int64_t at = routed_of_row_[static_cast<std::size_t>(row * used + i)];
      if (!weigh_inputs) ops_.scale(routed + at * hidden, routed_[static_cast<std::size_t>(at)].weight, hidden);
      ops_.add(sum, routed + at * hidden, hidden);
    }
  });
}

}  // namespace nibble::model
