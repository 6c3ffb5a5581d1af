#include "cli/command_inspect.h"

#include <memory>

#include "nibble/inspect.h"

namespace nibble::cli {

Command inspect_command() {
  return {"inspect", "show what is in a model", false, [](CLI::App& app) -> RunCommand {
            auto request = std::make_shared<InspectRequest>();
            app.add_option("MODEL", request->model, "folder, .safetensors or .gguf file")->required();
            return [request](const Invocation& invocation) {
              const InspectReport report = inspect_model(*request);
              if (invocation.wants_text()) print(to_text(report));
              invocation.write_json(to_json(report));
            };
          }};
}

}  // namespace nibble::cli
