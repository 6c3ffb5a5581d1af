#include "pipeline/output_form.h"

#include <algorithm>

#include "base/error.h"
#include "encoding/affine.h"
#include "encoding/scaled.h"
#include "pipeline/joint_types.h"

namespace nibble::pipeline {

namespace {

using container::hf::Format;
using encoding::EncodingInfo;
using encoding::Family;

constexpr std::string_view kGguf = "gguf";

bool lies_in_parts(const EncodingInfo& type) { return type.family != Family::kPlain && type.family != Family::kBlock; }

// Does its name leave the type of the scales to the format? Integers and small floats with those of f32.
bool leaves_scales(const EncodingInfo& type) {
  if (type.family == Family::kScaled) return type.scaled.scale_dtype == Dtype::kF32;
  return type.family == Family::kAffine && type.affine.scale_dtype == Dtype::kF32;
}

// Such a type with scales of that dtype.
const EncodingInfo& with_scales(const EncodingInfo& type, Dtype scales) {
  encoding::ScaledParams floats = type.scaled;
  floats.scale_dtype = scales;
  if (type.family == Family::kScaled) return encoding::scaled_encoding(floats);
  encoding::AffineParams params = type.affine;
  params.scale_dtype = scales;
  return encoding::affine_encoding(params);
}

// A block type that lies in parts in a folder (mxfp4) has another name there.
const EncodingInfo* find_type(const std::string& name, bool file) {
  const EncodingInfo* in_parts = file ? nullptr : encoding::find(name + "-hf");
  return in_parts != nullptr ? in_parts : encoding::find(name);
}

// A name without a suffix leaves the type of the scales to the format.
bool holds_some(const Format& format, const EncodingInfo& type, const encoding::ActivationInfo* inputs) {
  if (container::hf::holds(format, type, inputs)) return true;
  if (!leaves_scales(type)) return false;
  return std::ranges::any_of(
      format.scales, [&](Dtype scales) { return container::hf::holds(format, with_scales(type, scales), inputs); });
}

std::vector<std::string_view> possible_forms(const EncodingInfo* type, const encoding::ActivationInfo* inputs) {
  if (type == nullptr || !lies_in_parts(*type)) return {kGguf};
  std::vector<std::string_view> names;
  for (const Format* format : container::hf::all_formats()) {
    if (holds_some(*format, *type, inputs)) names.push_back(format->name);
  }
  // Those that add to the type stand last.
  if (inputs == nullptr)
    std::ranges::stable_partition(
        names, [](std::string_view name) { return container::hf::find_format(name)->inputs_of_all == nullptr; });
  return names;
}

std::string joined(const std::vector<std::string_view>& names) {
  std::string text;
  for (const std::string_view name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text.empty() ? "none" : text;
}

[[noreturn]] void fail_form(const std::string& type, const std::string& what,
                            const std::vector<std::string_view>& possible) {
  const bool file = possible.size() == 1 && possible[0] == kGguf;
  fail(ErrorCode::kInvalidArgument, "type '{}' {}; it can be written as: {} ({})", type, what, joined(possible),
       file ? "name a .gguf file" : "name a folder");
}

// Types of the same weights that the form's format holds, as they round the inputs, too: words for a fault.
std::string with_inputs(const EncodingInfo* type, const OutputForm& form) {
  std::string names;
  for (const std::string_view name : joint_type_names()) {
    const std::optional<JointType> joint = find_joint_type(name);
    if (joint && form.inputs == nullptr && form.format != nullptr && joint->weights == type &&
        holds_some(*form.format, *type, joint->inputs))
      names += format_text("{}'{}'", names.empty() ? "" : ", ", name);
  }
  return names.empty() ? "" : format_text(", whose integers round the inputs, too (types {})", names);
}

bool takes_over(const SourceTensor& tensor, const EncodingInfo& type) {
  const std::vector<const TensorView*> views = tensor.stored_views();
  return !views.empty() && encoding::repacking(*views.front(), type) == encoding::Repacking::kExact;
}

// What the linears become: scales as the format has them.
const EncodingInfo& linear_type(const Conversion& conversion, const OutputForm& form, const EncodingInfo& type,
                                const EncodingInfo& plain) {
  if (!leaves_scales(type)) return type;
  const auto allowed = [&](Dtype scales) {
    return container::hf::holds(*form.format, with_scales(type, scales), form.inputs);
  };
  for (const SourceTensor& tensor : conversion.tensors) {
    if (tensor.module != Module::kBlockLinear) continue;
    const EncodingInfo& own = tensor.source_type();
    for (const Dtype scales : {Dtype::kF16, Dtype::kBf16, Dtype::kF32}) {
      const EncodingInfo& same = with_scales(type, scales);
      if (allowed(scales) && (&own == &same || takes_over(tensor, same))) return same;
    }
    break;
  }
  if (form.format->scales.empty()) return type;
  return with_scales(type, allowed(plain.dtype) ? plain.dtype : form.format->scales.front());
}

bool is_of_attention(const Conversion& conversion, const SourceTensor& tensor) {
  constexpr model::Role kRoles[] = {model::Role::kAttnQ,   model::Role::kAttnK,     model::Role::kAttnV,
                                    model::Role::kAttnQkv, model::Role::kAttnQA,    model::Role::kAttnQB,
                                    model::Role::kAttnKvA, model::Role::kAttnOutput};
  return tensor.slot != SourceTensor::kNoSlot &&
         std::ranges::count(kRoles, conversion.model->spec().weights[tensor.slot].role) > 0;
}

// Experts have outliers of their own, and few columns need none kept.
const EncodingInfo& type_for(const Shape& shape, const EncodingInfo& type) {
  return shape.rank() > 2 || !encoding::fits(type, shape) ? encoding::without_kept(type) : type;
}

}  // namespace

OutputForm choose_form(const std::string& type, const std::string& format, const std::filesystem::path& output,
                       bool calibrated) {
  const bool file = output.extension() == ".gguf";
  const bool to_file = output.empty() ? format.empty() || format == kGguf : file;
  const std::optional<JointType> joint = find_joint_type(type);
  const EncodingInfo* encoding = joint ? joint->weights : find_type(type, to_file);
  OutputForm form;
  if (joint) form.attention = joint->attention, form.inputs = joint->inputs;
  const std::vector<std::string_view> possible = possible_forms(encoding, form.inputs);
  form.format = container::hf::find_format(format);
  if (!format.empty() && format != kGguf && form.format == nullptr) {
    std::vector<std::string_view> known = {kGguf};
    for (const Format* each : container::hf::all_formats()) known.push_back(each->name);
    fail(ErrorCode::kInvalidArgument, "no format '{}'; there are: {}", format, joined(known));
  }
  if (!format.empty() && std::ranges::find(possible, std::string_view(format)) == possible.end())
    fail_form(type, format_text("cannot be written as '{}'{}", format, with_inputs(encoding, form)), possible);
  if (possible.empty()) fail_form(type, "cannot be written", possible);
  const bool as_gguf = possible.front() == kGguf;
  if (file != as_gguf && !output.empty()) {
    fail_form(type, format_text("cannot be written to '{}'", output.string()), possible);
  }
  if (as_gguf) return {};
  if (form.format == nullptr)
    form.format = container::hf::find_format(joint && !joint->format.empty() ? joint->format : possible.front());
  form.type = encoding;
  if (form.inputs == nullptr && form.format->inputs_of_all != nullptr) {
    form.inputs = form.format->inputs_of_all(*encoding);
    form.note = format_text("'{}' folders say that inputs are rounded to {}, too: so are they computed",
                            form.format->name, form.inputs->name);
  }
  const bool keeps = calibrated && joint && joint->calibrated != nullptr;
  if (keeps && holds_some(*form.format, *joint->calibrated, form.inputs)) form.type = joint->calibrated;
  return form;
}

QuantPlan make_folder_plan(const Conversion& conversion, const OutputForm& form, const PlanOptions& options) {
  const EncodingInfo& plain = *conversion.tensors.at(0).kept_as;
  const EncodingInfo& type = linear_type(conversion, form, *form.type, plain);
  const EncodingInfo& attention =
      form.attention != nullptr ? linear_type(conversion, form, *form.attention, plain) : type;
  const method::Method& chosen = options.method != nullptr ? *options.method : method::default_for(type);
  if (!chosen.supports(type))
    fail(ErrorCode::kInvalidArgument, "method '{}' cannot make type '{}'", chosen.name, type.name);
  QuantPlan plan;
  plan.recipe = form.type->name;
  bool any = false;
  for (const SourceTensor& tensor : conversion.tensors) {
    TensorPlan& item = plan.tensors.emplace_back();
    item.tensor = tensor.tensor;
    item.source = &tensor.source_type();
    item.target = &plain;
    if (tensor.module == Module::kBlockLinear) {
      const EncodingInfo& wanted =
          type_for(tensor.tensor.shape, is_of_attention(conversion, tensor) ? attention : type);
      item.note = container::hf::misfit(*form.format, wanted, tensor.tensor.shape);
      item.fallback = !item.note.empty();
      if (!item.fallback) item.target = &wanted, item.inputs = form.inputs;
      any = any || !item.fallback;
    }
    choose_method(chosen, tensor.stored_views(), item);
    item.bytes = encoding::tensor_bytes(*item.target, tensor.tensor.shape);
  }
  if (!any)
    fail(ErrorCode::kInvalidArgument, "'{}' has no linears that '{}' could hold as {}",
         conversion.reader().path().string(), form.format->name, type.name);
  return plan;
}

void refuse_online_rotation(const Conversion& conversion, const Format* format) {
  if (conversion.model == nullptr || !conversion.model->spec().online_rotation) return;
  if (format != nullptr && format->any_parts) return;
  fail(ErrorCode::kUnsupported,
       "the inputs of this model are rotated as it runs, which Nibble alone does: name a folder, and --format nibble");
}

container::hf::QuantizedWeights quantized_weights(const Conversion& conversion, const QuantPlan& plan) {
  container::hf::QuantizedWeights weights;
  weights.online_rotation = conversion.model != nullptr && conversion.model->spec().online_rotation;
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    const TensorPlan& tensor = plan.tensors[i];
    if (lies_in_parts(*tensor.target)) {
      weights.tensors.push_back({tensor.tensor.name, tensor.target, tensor.tensor.shape, tensor.inputs});
      if (tensor.method != nullptr) weights.method = tensor.method->name;
    } else if (conversion.tensors[i].module != Module::kNone) {
      weights.kept.push_back(container::hf::module_of(tensor.tensor.name));
    }
  }
  const std::string head(container::hf::kHeadModule);
  if (std::ranges::find(weights.kept, head) == weights.kept.end()) weights.kept.push_back(head);  // it may be tied
  return weights;
}

}  // namespace nibble::pipeline
