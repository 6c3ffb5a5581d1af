#include "cli/command_imatrix.h"

#include <CLI/Validators.hpp>
#include <memory>

#include "nibble/imatrix.h"

namespace nibble::cli {

Command imatrix_command() {
  return {"imatrix", "collect an importance matrix from a text", true, [](CLI::App& app) -> RunCommand {
            auto request = std::make_shared<ImatrixRequest>();
            app.add_option("MODEL", request->model, "folder or .gguf file; not needed to merge files");
            app.add_option("-t,--text", request->text, "calibration text")->type_name("FILE");
            app.add_option("-o,--output", request->out, "file to write")->type_name("FILE")->required();
            app.add_option("-c,--ctx", request->context, "tokens per chunk")->capture_default_str();
            app.add_option("--chunks", request->chunks, "stop after so many chunks");
            app.add_option("--format", request->format, "gguf or dat (by the ending of the output's name)")
                ->check(CLI::IsMember({"gguf", "dat"}));
            app.add_option("--merge", request->merge, "importance matrices to add")->type_name("FILE");
            app.add_flag("--fast", request->fast, "run the model by its integer kernels instead of exactly");
            return [request](const Invocation& invocation) {
              request->dry_run = invocation.dry_run;
              const Report report = make_imatrix(invocation.run, *request);
              if (invocation.wants_text()) print(report.text);
              invocation.write_json(report.json);
            };
          }};
}

}  // namespace nibble::cli
