#include "cli/command_convert.h"

#include <memory>

#include "nibble/memory_plan.h"
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
  auto shard_size = std::make_shared<std::string>();
  app.add_option("--shard-size", *shard_size, "of a folder: weight files of at most this size (default 5GB)")
      ->type_name("SIZE");
  return [request, shard_size](const Invocation& invocation) {
    if (!shard_size->empty()) request->shard_bytes = parse_memory(*shard_size);
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
