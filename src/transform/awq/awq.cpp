// awq: channels that carry much are made larger in the weights and smaller in what flows, so that rounding costs them
// less (Lin et al., arXiv 2306.00978, 3.2; auto_scale of its reference, and the form of AutoAWQ that looks at the
// weights, too). The clip search that follows there is a range of method rtn (method/output_range.h).
#include <algorithm>

#include "transform/awq/link_search.h"
#include "transform/fold.h"

namespace nibble::transform::awq {

namespace {

using calib::Stage;
using model::Link;

void apply(BlockScope& scope) {
  const std::vector<Stage> stages = scope.walk.stages(scope.context, scope.layer);
  for (const Link& link : model::block_links(scope.source.spec(), scope.layer)) {
    std::vector<std::size_t> slots;
    for (const model::Role role : link.consumers) {
      const std::size_t slot = slot_index(scope.source.spec(), role, scope.layer);
      if (scope.targets[slot].target != nullptr) slots.push_back(slot);
    }
    const auto stage = std::ranges::find_if(stages, [&](const Stage& each) {
      return std::ranges::find(link.consumers, each.roles[0]) != link.consumers.end();
    });
    if (slots.empty() || stage == stages.end()) continue;
    LinkSearch search(scope, link, *stage, std::move(slots));
    std::vector<float> scale = search.confirmed(search.best({Form::kInputs, Form::kInputsAndWeights}));
    if (scale.empty()) continue;
    fold(scope, link, scale);
    scope.walk.reload(scope.context, scope.layer);
  }
}

}  // namespace

const Transform& entry() {
  static const Transform transform = {
      .name = "awq",
      .summary = "channels scaled by what flows through them, folded into the operation before",
      .origin = "Lin et al., arXiv 2306.00978",
      .apply = apply,
  };
  return transform;
}

}  // namespace nibble::transform::awq
