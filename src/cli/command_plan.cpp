#include "cli/command_plan.h"

#include <CLI/Validators.hpp>
#include <memory>
#include <string>
#include <vector>

#include "nibble/memory_plan.h"
#include "pipeline/choices.h"

namespace nibble::cli {

namespace {
struct Arguments {
  MemoryPlanRequest request;
  std::string parameters;
  std::vector<std::string> memory, vram;
};
}  // namespace

Command plan_command() {
  return {"plan", "does a model fit, and in what format", false, [](CLI::App& app) -> RunCommand {
            auto arguments = std::make_shared<Arguments>();
            MemoryPlanRequest& request = arguments->request;
            app.add_option("MODEL", request.model, "folder, .gguf file, or a config.json alone");
            app.add_option("--params", arguments->parameters, "number of parameters instead of a model (671B)");
            app.add_option("--context", request.context, "tokens of context");
            app.add_option("--batch", request.batch, "sequences at a time")->capture_default_str();
            app.add_option("--memory", arguments->memory,
                           "memory to fit into (24G), several may be given; default: the RAM and VRAM of this machine")
                ->type_name("SIZE");
            app.add_option("--vram", arguments->vram, "graphics memory to fit into, beside --memory or the RAM found")
                ->type_name("SIZE");
            app.add_option("--goal", request.goal, "run, finetune or int8")
                ->check(CLI::IsMember({"run", "finetune", "int8"}))
                ->capture_default_str();
            app.add_option("--kv-cache", request.kv_cache, pipeline::kv_type_list())->capture_default_str();
            return [arguments](const Invocation& invocation) {
              MemoryPlanRequest call = arguments->request;
              if (!arguments->parameters.empty()) call.parameters = parse_parameters(arguments->parameters);
              for (const std::string& size : arguments->memory) call.memory.push_back(parse_memory(size));
              for (const std::string& size : arguments->vram) call.vram.push_back(parse_memory(size));
              const Report report = plan_memory(call);
              if (invocation.wants_text()) print(report.text);
              invocation.write_json(report.json);
            };
          }};
}

}  // namespace nibble::cli
