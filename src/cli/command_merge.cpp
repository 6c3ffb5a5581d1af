#include "cli/command_merge.h"

#include <algorithm>
#include <memory>

#include "cli/command_quantize.h"
#include "cli/lora_option.h"
#include "nibble/quantize.h"

namespace nibble::cli {

namespace {

constexpr std::string_view kPlainTypes[] = {"", "f32", "f16", "bf16"};

// Plain weights: the others go through quantize.
QuantizeReport convert(const QuantizeRequest& request, const Invocation& invocation) {
  ConvertRequest plain;
  plain.input = request.input;
  plain.output = request.output;
  plain.type = request.type;
  plain.adapters = request.adapters;
  plain.dry_run = request.dry_run;
  return convert_model(plain, invocation.run);
}

RunCommand setup(CLI::App& app) {
  auto request = std::make_shared<QuantizeRequest>();
  add_lora_option(app, request->adapters, "adapter to merge")->required();
  auto prepare = add_quantize_options(app, *request);
  app.get_option("--type")->required(false)->description("as of quantize, or f32, f16, bf16; default: 16 bits");
  return [request, prepare](const Invocation& invocation) {
    prepare();
    request->dry_run = invocation.dry_run;
    const bool plain = std::ranges::find(kPlainTypes, request->type) != std::end(kPlainTypes);
    const QuantizeReport report = plain ? convert(*request, invocation) : quantize_model(*request, invocation.run);
    if (invocation.wants_text()) print(to_text(report));
    invocation.write_json(to_json(report));
  };
}

}  // namespace

Command merge_command() { return {"merge", "write a model with LoRA adapters in its weights", true, setup}; }

}  // namespace nibble::cli
