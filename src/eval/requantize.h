// A model with some weights in other encodings, in memory: what a scheme costs can be measured before any file format
// knows it.
#pragma once

#include <memory>

#include "base/exec_context.h"
#include "calib/imatrix.h"
#include "method/quantizer.h"
#include "model/source.h"

namespace nibble::eval {

// Every linear of the blocks quantized by `method` to `target`; embedding, head, norms and biases stay as they are.
// `importance`, where it is not null and has the linear, goes to the method. The source's files stay mapped as long as
// the result lives.
std::shared_ptr<const model::ModelSource> requantize(ExecContext& context,
                                                     std::shared_ptr<const model::ModelSource> source,
                                                     const method::Method& method, const encoding::EncodingInfo& target,
                                                     const method::Options& options,
                                                     const calib::Imatrix* importance = nullptr);

}  // namespace nibble::eval
