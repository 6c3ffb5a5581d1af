#include "cli/command_synth.h"

#include <memory>

#include "nibble/synth.h"

namespace nibble::cli {

namespace {

std::string list_text() {
  std::string text = "Shapes:";
  for (const std::string& name : list_shapes()) text += " " + name;
  return text + "\n";
}

RunCommand setup(CLI::App& app) {
  auto request = std::make_shared<SynthRequest>();
  app.add_option("SHAPE", request->shape, "a name listed below, or the path of a config.json")->required();
  app.add_option("-o,--output", request->output, "a .gguf file, or a new folder (Hugging Face form)")
      ->type_name("OUT")
      ->required();
  app.add_option("--dtype", request->dtype, "f16, bf16 or f32")->type_name("TYPE")->capture_default_str();
  app.add_option("--seed", request->seed, "of the random numbers")->type_name("N")->capture_default_str();
  app.footer(list_text);
  return [request](const Invocation& invocation) {
    request->dry_run = invocation.dry_run;
    const SynthReport report = synthesize_model(*request, invocation.run);
    if (invocation.wants_text()) print(to_text(report));
    invocation.write_json(to_json(report));
  };
}

}  // namespace

Command synth_command() { return {"synth", "write a random-weight model of a known shape", true, setup}; }

}  // namespace nibble::cli
