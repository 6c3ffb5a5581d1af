// awq: channels that carry much are made larger in the weights and smaller in what flows, so that rounding costs them
// less (Lin et al., arXiv 2306.00978, 3.2; auto_scale of its reference, and the form of AutoAWQ that looks at the
// weights, too). The clip search that follows there is a range of method rtn (method/output_range.h).
#include <utility>

#include "transform/awq/link_search.h"
#include "transform/fold.h"

namespace nibble::transform::awq {

namespace {

using calib::Stage;
using model::Link;

void apply(BlockScope& scope) {
  fold_links(scope, [&](const Link& link, const Stage& stage, std::vector<std::size_t> slots) {
    LinkSearch search(scope, link, stage, std::move(slots));
    return search.confirmed(search.best({Form::kInputs, Form::kInputsAndWeights}));
  });
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
