#include "cli/command_run.h"

#include <memory>

#include "base/terminal.h"
#include "cli/generation_options.h"
#include "nibble/generate.h"

namespace nibble::cli {

Command run_command() {
  return {"run", "continue a text", false, [](CLI::App& app) -> RunCommand {
            auto request = std::make_shared<GenerateRequest>();
            app.add_option("MODEL", request->model, "folder or .gguf file")->required();
            app.add_option("-p,--prompt", request->prompt, "text to continue")->required();
            app.add_option("-n,--tokens", request->max_tokens, "tokens to write at most")->capture_default_str();
            app.add_flag("--ignore-end", request->ignore_end, "go on when the model ends the text");
            add_generation_options(app, *request);
            return [request](const Invocation& invocation) {
              const bool show = invocation.wants_text();
              const Report report = generate_text(invocation.run, *request, [&](std::string_view piece) {
                if (show) print(piece);
              });
              if (show) print("\n");
              write_stderr(report.text);
              invocation.write_json(report.json);
            };
          }};
}

}  // namespace nibble::cli
