// gptq: the error of each weight that is rounded goes to the weights of its row that are not yet, by what calibration
// knows of the inputs.
#include "encoding/block_grid.h"
#include "method/gptq/affine.h"
#include "method/gptq/block.h"

namespace nibble::method::gptq {

namespace {

bool supports(const encoding::EncodingInfo& target) {
  if (target.family == encoding::Family::kAffine) return !target.affine.group_index;
  return target.grid != nullptr && target.grid->pack != nullptr;
}

std::unique_ptr<Quantizer> make(const Job& job) {
  if (!supports(*job.target) || !encoding::fits(*job.target, job.shape)) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': method 'gptq' cannot make {} of shape {}", job.tensor,
         job.target->name, job.shape.to_string());
  }
  return job.target->family == encoding::Family::kAffine ? make_affine(job) : make_block(job);
}

}  // namespace

const Method& entry() {
  static const Method method = {
      .name = "gptq",
      .summary = "rounding with feedback of the error to later columns, on the affine family and the block types",
      .source = "Frantar et al., arXiv 2210.17323; docs/gptq.md",
      .statistics = "x xᵀ of the inputs (--calib)",
      .cost = "runs over the text; 1 to 3 µs of a core per weight",
      .supports = supports,
      .make = make,
      .needs_gram = true,
  };
  return method;
}

}  // namespace nibble::method::gptq
