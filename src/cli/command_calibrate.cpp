#include "cli/command_calibrate.h"

#include <memory>

#include "nibble/calibrate.h"

namespace nibble::cli {

Command calibrate_command() {
  return {"calibrate", "save statistics of what flows into each linear, for quantize", true,
          [](CLI::App& app) -> RunCommand {
            auto request = std::make_shared<CalibrateRequest>();
            app.add_option("MODEL", request->model, "folder or .gguf file; not needed to merge files");
            app.add_option("-t,--text", request->text, "calibration text")->type_name("FILE");
            app.add_option("-o,--output", request->out, "file to write; without it, files are only looked at")
                ->type_name("FILE");
            app.add_option("--calib-tokens", request->tokens, "tokens of the text, at most")
                ->type_name("N")
                ->capture_default_str();
            app.add_option("--calib-ctx", request->context,
                           "tokens of a sequence; default: 512, or what the model was trained for if less")
                ->type_name("N");
            app.add_option("--statistics", request->statistics,
                           "which: gram (products of inputs), held-out (the same of sequences kept apart), ranges")
                ->type_name("LIST")
                ->capture_default_str();
            app.add_option("--merge", request->merge, "statistics to add (repeatable)")
                ->type_name("FILE")
                ->allow_extra_args(false);
            return [request](const Invocation& invocation) {
              request->dry_run = invocation.dry_run;
              const Report report = calibrate(invocation.run, *request);
              if (invocation.wants_text()) print(report.text);
              invocation.write_json(report.json);
            };
          }};
}

}  // namespace nibble::cli
