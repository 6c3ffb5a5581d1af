// rtn: every weight to a neighbouring code, the scales from the range alone.
#include "method/rtn/quantizers.h"

namespace nibble::method::rtn {

namespace {

bool supports(const encoding::EncodingInfo& target) {
  if (target.family == encoding::Family::kAffine) return !target.affine.group_index;
  return target.family == encoding::Family::kCodebook || target.family == encoding::Family::kScaled ||
         target.encode != nullptr;
}

std::unique_ptr<Quantizer> make(const Job& job) {
  if (!supports(*job.target) || !encoding::fits(*job.target, job.shape)) {
    fail(ErrorCode::kInvalidArgument, "tensor '{}': method 'rtn' cannot make {} of shape {}", job.tensor,
         job.target->name, job.shape.to_string());
  }
  switch (job.target->family) {
    case encoding::Family::kPlain:
      return make_reference(job);
    case encoding::Family::kBlock:
      return make_block(job);
    case encoding::Family::kCodebook:
      return make_codebook(job);
    case encoding::Family::kScaled:
      return make_scaled(job);
    case encoding::Family::kAffine:
      break;
  }
  return make_affine(job);
}

}  // namespace

const Method& entry() {
  static const Method method = {
      .name = "rtn",
      .summary = "round to nearest (or stochastic, floor, ceil) with min-max or MSE-searched ranges",
      .source =
          "uniform affine quantization; block types: the reference rounding of GGML; nf4, fp4: bitsandbytes; "
          "FP8, MXFP: OCP",
      .statistics = "none",
      .cost = "one pass over the weights",
      .supports = supports,
      .make = make,
  };
  return method;
}

}  // namespace nibble::method::rtn
