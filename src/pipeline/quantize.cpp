// The corridor: open, describe, plan, reserve, transfer, commit, verify.
#include "nibble/quantize.h"

#include <filesystem>

#include "base/error.h"
#include "pipeline/adapters.h"
#include "pipeline/auto_types.h"
#include "pipeline/cache_scheme.h"
#include "pipeline/corridor.h"
#include "pipeline/hf_folder.h"
#include "pipeline/output_form.h"

namespace nibble {

namespace {

using namespace pipeline;
namespace fs = std::filesystem;

// Every tensor as `type`: what a Hugging Face folder holds.
QuantPlan plain_plan(const Conversion& conversion, const encoding::EncodingInfo& type) {
  QuantPlan plan;
  plan.recipe = type.name;
  for (const SourceTensor& tensor : conversion.tensors) {
    TensorPlan& item = plan.tensors.emplace_back();
    item.tensor = tensor.tensor;
    item.source = &tensor.source_type();
    item.target = &type;
    item.bytes = encoding::tensor_bytes(type, tensor.tensor.shape);
  }
  return plan;
}

const encoding::EncodingInfo& plain_type(const std::string& name) {
  const encoding::EncodingInfo& type = encoding::get(name);
  const bool plain = type.name == "f32" || type.name == "f16" || type.name == "bf16";
  if (!plain)
    fail(ErrorCode::kInvalidArgument, "convert makes f32, f16 and bf16; 'nibble quantize' makes '{}'", type.name);
  return type;
}

// Into a folder of quantized weights.
QuantizeReport quantize_to_folder(const QuantizeRequest& request, OutputForm form, const RunContext& run,
                                  const Adjust& adjust) {
  if (!request.imatrix.empty() || !request.overrides.empty() || request.pure)
    fail(ErrorCode::kInvalidArgument, "--imatrix, --override and --pure are for GGUF files, not for '{}'",
         form.format->name);
  PlanOptions options;
  options.method = chosen_method(request);
  Corridor corridor;
  corridor.options.method = method_options(request);
  corridor.options.method.least_zero = form.format->least_zero;
  const bool plain = form.type->family == encoding::Family::kPlain;  // with a cache's scales alone
  corridor.conversion = describe_for_hf(request.input, plain ? form.type : nullptr, chosen_rewrite(request));
  if (request.format.empty() && corridor.conversion.model != nullptr &&
      corridor.conversion.model->spec().online_rotation)
    form.format = container::hf::find_format("nibble");
  refuse_online_rotation(corridor.conversion, form.format);
  check_output(request.output, corridor.conversion);
  corridor.plan = plain ? plain_plan(corridor.conversion, plain_type(form.type->name))
                        : make_folder_plan(corridor.conversion, form, options);
  if (!form.note.empty()) corridor.conversion.notes.push_back(form.note);
  note_requantized(corridor.plan, corridor.conversion.notes);
  set_calibration(request, corridor);
  corridor.report = report_plan(corridor.conversion, corridor.plan);
  if (adjust) adjust(corridor);
  return carry_out(corridor, request.output, request.dry_run, run, [&](ExecContext& context) {
    corridor.write_hf(context, request.output, container::kShardBytes, form.format);
  });
}

QuantizeReport quantize_to_gguf(const QuantizeRequest& request, const RunContext& run, const Adjust& adjust) {
  Corridor corridor = prepare_gguf(request, load_recipe(request.type));
  if (adjust) adjust(corridor);
  return carry_out(corridor, request.output, request.dry_run, run,
                   [&](ExecContext& context) { corridor.write_gguf(context, request.output); });
}

}  // namespace

QuantizeReport pipeline::quantize_adjusted(const QuantizeRequest& request, const RunContext& run,
                                           const Adjust& adjust) {
  const OutputForm form = chosen_cache(request) != nullptr
                              ? choose_cached_form(request)
                              : choose_form(request.type, request.format, request.output, !request.calib.empty());
  return form.format != nullptr ? quantize_to_folder(request, form, run, adjust)
                                : quantize_to_gguf(request, run, adjust);
}

QuantizeReport pipeline::convert_adjusted(const ConvertRequest& request, const RunContext& run, const Adjust& adjust) {
  const encoding::EncodingInfo* type = request.type.empty() ? nullptr : &plain_type(request.type);
  const fs::path output = request.output;
  const std::uint64_t shard_size = shard_bytes(request.shard_bytes, output);
  const bool to_gguf = output.extension() == ".gguf";
  Corridor corridor;
  const Rewrite merge = merging(request.adapters);
  corridor.conversion = to_gguf ? describe_for_gguf(request.input, merge) : describe_for_hf(request.input, type, merge);
  if (type == nullptr) {
    const bool known = corridor.conversion.model != nullptr;
    type = known ? &sixteen_bits(*corridor.conversion.model) : &encoding::get("f16");
  }
  check_output(output, corridor.conversion);
  corridor.plan =
      to_gguf ? make_plan(load_recipe(type->name), corridor.conversion.facts, plan_inputs(corridor.conversion), {})
              : plain_plan(corridor.conversion, *type);
  corridor.report = report_plan(corridor.conversion, corridor.plan);
  if (adjust) adjust(corridor);
  return carry_out(corridor, request.output, request.dry_run, run, [&](ExecContext& context) {
    to_gguf ? corridor.write_gguf(context, output) : corridor.write_hf(context, output, shard_size);
  });
}

QuantizeReport quantize_model(const QuantizeRequest& request, const RunContext& run) {
  if (request.type == "auto" && chosen_cache(request) != nullptr)
    fail(ErrorCode::kInvalidArgument, "type auto makes GGUF files, which have no place for the scales of a KV cache");
  if (request.type == "auto") return quantize_auto(request, run);
  if (request.size_bytes > 0 || request.bits_per_weight > 0 || !request.emit_recipe.empty())
    fail(ErrorCode::kInvalidArgument, "--size, --bpw and --emit-recipe go with --type auto; '{}' has a size of its own",
         request.type);
  return quantize_adjusted(request, run);
}

QuantizeReport convert_model(const ConvertRequest& request, const RunContext& run) {
  return convert_adjusted(request, run);
}

}  // namespace nibble
