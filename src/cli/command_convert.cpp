#include "cli/command_convert.h"

#include <memory>

#include "nibble/quantize.h"

namespace nibble::cli {

namespace {

RunCommand setup(CLI::App& app) {
  auto request = std::make_shared<ConvertRequest>();
  app.add_option("IN", request->input, "Hugging Face folder or .gguf file")->required();
  app.add_option("-o,--output", request->output, "a .gguf file, or a new folder (Hugging Face form)")
      ->type_name("OUT")
      ->required();
  app.add_option("-t,--type", request->type, "f32, f16 or bf16")->type_name("TYPE")->required();
  return [request](const Invocation& invocation) {
    request->dry_run = invocation.dry_run;
    const QuantizeReport report = convert_model(*request, invocation.run);
    if (invocation.wants_text()) print(to_text(report));
    invocation.write_json(to_json(report));
  };
}

}  // namespace

Command convert_command() {
  return {"convert", "write a model as plain weights, to GGUF or a Hugging Face folder", true, setup};
}

}  // namespace nibble::cli
