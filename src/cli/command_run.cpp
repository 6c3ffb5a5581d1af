#include "cli/command_run.h"

#include <memory>

#include "base/terminal.h"
#include "nibble/generate.h"

namespace nibble::cli {

Command run_command() {
  return {
      "run", "continue a text", false, [](CLI::App& app) -> RunCommand {
        auto request = std::make_shared<GenerateRequest>();
        app.add_option("MODEL", request->model, "folder or .gguf file")->required();
        app.add_option("-p,--prompt", request->prompt, "text to continue")->required();
        app.add_option("-n,--tokens", request->max_tokens, "tokens to write at most")->capture_default_str();
        app.add_option("-c,--ctx", request->context, "tokens of room (the trained context)");
        app.add_option("--temp", request->temperature, "0: always the likeliest token")->capture_default_str();
        app.add_option("--seed", request->seed, "of the sampling")->capture_default_str();
        app.add_option("--top-k", request->top_k, "sample from the k likeliest tokens; 0: all")->capture_default_str();
        app.add_option("--top-p", request->top_p, "from the likeliest that sum to p")->capture_default_str();
        app.add_option("--min-p", request->min_p, "from those at least this share of the likeliest")
            ->capture_default_str();
        app.add_option("--repeat-penalty", request->repetition_penalty, "of tokens seen lately; 1: none")
            ->capture_default_str();
        app.add_flag("--ignore-end", request->ignore_end, "go on when the model ends the text");
        app.add_flag("--exact", request->exact, "decoded f32 weights and f32 math");
        app.add_option("--kv-cache", request->kv_cache, "f32, f16 or q8_0")->capture_default_str();
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
