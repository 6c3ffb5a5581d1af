#include "cli/bench_command.h"

#include <memory>

#include "cli/lora_option.h"
#include "nibble/bench.h"
#include "pipeline/choices.h"

namespace nibble::cli {

Command bench_command() {
  return {
      "bench", "measure the speed of prefill and decode", false, [](CLI::App& app) -> RunCommand {
        auto request = std::make_shared<BenchRequest>();
        app.add_option("MODEL", request->model, "folder or .gguf file")->required();
        app.add_option("-p,--prompt", request->prompt, "tokens of the prefill, 0 to skip")->capture_default_str();
        app.add_option("-n,--generate", request->generate, "tokens to decode, 0 to skip")->capture_default_str();
        app.add_option("-d,--depth", request->depth, "tokens in the cache before either begins")->capture_default_str();
        app.add_option("-b,--batch", request->batch, "sequences that decode together")->capture_default_str();
        app.add_option("-r,--repetitions", request->repetitions, "timed runs after the warm-up")->capture_default_str();
        add_lora_option(app, request->adapters, "adapter to run with");
        app.add_option("--kv-cache", request->kv_cache, pipeline::kv_type_list() + " (the folder's, else f16)");
        app.add_option("--compare", request->compare,
                       "bench command of another program, run in turn with ours; several may be given")
            ->type_name("CMD");
        app.add_option("--roofline-bytes", request->roofline_bytes,
                       "memory read to measure its bandwidth; 0: measure no limits")
            ->capture_default_str();
        return [request](const Invocation& invocation) {
          const Report report = bench(invocation.run, *request);
          if (invocation.wants_text()) print(report.text);
          invocation.write_json(report.json);
        };
      }};
}

}  // namespace nibble::cli
