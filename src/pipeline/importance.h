// An importance matrix meets a plan: which weights it speaks of, and what the output says about it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "calib/imatrix.h"
#include "container/metadata.h"
#include "pipeline/plan.h"

namespace nibble::pipeline {

// Mean square of the inputs of each tensor of the plan, (cols) or (experts, cols); empty where none is needed or known.
// Tensors that are quantized without an entry get a note, and one is added to `notes`. A tied embedding takes the entry
// of the head. Throws Error{kInvalidArgument} when an entry has another size than its tensor, or no entry names a
// tensor of the plan.
std::vector<std::vector<float>> importance_of(const calib::Imatrix& imatrix, QuantPlan& plan,
                                              std::vector<std::string>& notes);

// The quantize.imatrix.* keys.
void set_imatrix_keys(const calib::Imatrix& imatrix, const std::filesystem::path& path, container::Metadata& metadata);

}  // namespace nibble::pipeline
