// The form in which a request writes its weights: a GGUF file, or a folder in one of the formats of quantized Hugging
// Face checkpoints (container/hf/format.h).
#pragma once

#include <filesystem>
#include <string>

#include "container/hf/format.h"
#include "pipeline/conversion.h"
#include "pipeline/plan.h"

namespace nibble::pipeline {

struct OutputForm {
  const container::hf::Format* format = nullptr;      // null: GGUF
  const encoding::EncodingInfo* type = nullptr;       // of a folder's linears
  const encoding::EncodingInfo* attention = nullptr;  // of those of the attention half; null: as the others
  const encoding::ActivationInfo* inputs = nullptr;   // how those of linears are rounded; null: not at all
  std::string note;                                   // of what the format adds to the type; usually empty
};

// `type` and `format` as a request has them (an empty format: what type and output allow). `calibrated`: a text tells
// about inputs. Throws Error{kInvalidArgument} for what cannot be together, naming what can.
OutputForm choose_form(const std::string& type, const std::string& format, const std::filesystem::path& output,
                       bool calibrated);

// The linears of the blocks in the form's type, everything else in 16 bits. Scales take the type that the format has
// them in; where the input is quantized alike, its own. Throws Error{kInvalidArgument} when no linear can be.
QuantPlan make_folder_plan(const Conversion& conversion, const OutputForm& form, const PlanOptions& options);

// Throws Error{kUnsupported} where inputs are rotated as the model runs (ModelSpec::online_rotation) and the form,
// null: none of quantized weights, does not say so: any program would run it without.
void refuse_online_rotation(const Conversion& conversion, const container::hf::Format* format);

// What its quantization_config is made from.
container::hf::QuantizedWeights quantized_weights(const Conversion& conversion, const QuantPlan& plan);

}  // namespace nibble::pipeline
