#include "cli/command_sweep.h"

#include <memory>

#include "nibble/sweep.h"

namespace nibble::cli {

Command sweep_command() {
  return {
      "sweep", "quantize in many ways and measure each: accuracy against size", false, [](CLI::App& app) -> RunCommand {
        auto request = std::make_shared<SweepRequest>();
        app.add_option("MODEL", request->model, "the unquantized model: folder or .gguf file")->required();
        app.add_option("--types", request->types, "as of quantize, separated by commas")
            ->type_name("TYPE,...")
            ->delimiter(',')
            ->required();
        app.add_option("--methods", request->methods, "each with every type; default: the default of the type")
            ->type_name("NAME,...")
            ->delimiter(',');
        app.add_option("--transforms", request->transforms,
                       "each with every type and method; none is one, rotate+awq is both")
            ->type_name("NAME,...")
            ->delimiter(',')
            ->capture_default_str();
        app.add_option("-t,--text", request->texts, "text to measure on (repeatable)")
            ->type_name("FILE")
            ->allow_extra_args(false)
            ->required();
        app.add_option("--calib", request->calib, "text that methods and transforms learn from")->type_name("TEXT");
        app.add_option("--calib-tokens", request->calib_tokens, "tokens of it, at most")->capture_default_str();
        app.add_option("--effort", request->effort, "passes of gptq and adaround over a first answer");
        app.add_option("-c,--ctx", request->context, "tokens per chunk of the texts (512)");
        app.add_option("--chunks", request->chunks, "of each text, at most");
        app.add_option("--keep", request->folder, "keep the quantized models in this folder")->type_name("DIR");
        app.add_option("--svg", request->svg, "write a plot of KL divergence over bits per weight")->type_name("FILE");
        return [request](const Invocation& invocation) {
          const Report report = sweep(invocation.run, *request);
          if (invocation.wants_text()) print(report.text);
          invocation.write_json(report.json);
        };
      }};
}

}  // namespace nibble::cli
