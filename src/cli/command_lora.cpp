#include "cli/command_lora.h"

#include <memory>

#include "nibble/lora.h"

namespace nibble::cli {

Command lora_command() {
  return {"lora", "show a LoRA adapter of a model, and write it in the other form", true,
          [](CLI::App& app) -> RunCommand {
            auto request = std::make_shared<LoraRequest>();
            app.add_option("ADAPTER", request->adapter, "PEFT folder or .gguf file")->required();
            app.add_option("-m,--model", request->model, "the model that it is of")->type_name("MODEL")->required();
            app.add_option("-o,--output", request->output, "write it as a .gguf file, or as a new PEFT folder")
                ->type_name("OUT");
            return [request](const Invocation& invocation) {
              request->dry_run = invocation.dry_run;
              const Report report = describe_lora(*request);
              if (invocation.wants_text()) print(report.text);
              invocation.write_json(report.json);
            };
          }};
}

}  // namespace nibble::cli
