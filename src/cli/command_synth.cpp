#include "cli/command_synth.h"

#include <memory>

#include "nibble/memory_plan.h"
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
  app.add_option("--layers", request->layers, "instead of the shape's own number, for a model that fits the machine")
      ->type_name("N");
  app.add_option("--seed", request->seed, "of the random numbers")->type_name("N")->capture_default_str();
  app.footer(list_text);
  auto shard_size = std::make_shared<std::string>();
  app.add_option("--shard-size", *shard_size, "of a folder: weight files of at most this size (default 5GB)")
      ->type_name("SIZE");
  return [request, shard_size](const Invocation& invocation) {
    if (!shard_size->empty()) request->shard_bytes = parse_memory(*shard_size);
    request->dry_run = invocation.dry_run;
    const SynthReport report = synthesize_model(*request, invocation.run);
    if (invocation.wants_text()) print(to_text(report));
    invocation.write_json(to_json(report));
  };
}

}  // namespace

Command synth_command() { return {"synth", "write a random-weight model of a known shape", true, setup}; }

}  // namespace nibble::cli
