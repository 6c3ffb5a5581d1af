#include "cli/command_eval.h"

#include <CLI/Validators.hpp>
#include <algorithm>
#include <memory>

#include "base/error.h"
#include "cli/lora_option.h"
#include "cli/outlier_options.h"
#include "nibble/evaluate.h"
#include "pipeline/choices.h"

namespace nibble::cli {

namespace {

// --outliers is a run of its own, block by block: what it goes with, and all others.
std::vector<const CLI::Option*> others_than_outliers(const CLI::App& app) {
  constexpr std::string_view kShared[] = {"--help", "MODEL", "--text", "--ctx", "--chunks", "--seed"};
  return app.get_options(
      [&](const CLI::Option* option) { return std::ranges::find(kShared, option->get_name()) == std::end(kShared); });
}

void refuse_others(const std::vector<const CLI::Option*>& others) {
  for (const CLI::Option* other : others) {
    if (other->count() > 0)
      fail(ErrorCode::kInvalidArgument, "--outliers loads no model that could be measured: give {} in another run",
           other->get_name());
  }
}

}  // namespace

Command eval_command() {
  return {"eval", "measure perplexity, tasks and the distance from the unquantized model", false,
          [](CLI::App& app) -> RunCommand {
            auto request = std::make_shared<EvaluateRequest>();
            app.add_option("MODEL", request->model, "folder or .gguf file")->required();
            app.add_option("-t,--text", request->text, "text to evaluate on")->type_name("FILE");
            app.add_option("--protocol", request->protocol,
                           "llama.cpp: second halves of chunks; window: all of disjoint windows")
                ->check(CLI::IsMember({"llama.cpp", "window"}))
                ->capture_default_str();
            app.add_option("-c,--ctx", request->context, "tokens per chunk (512, window: 2048)");
            app.add_option("--chunks", request->chunks, "stop after so many chunks");
            app.add_option("-r,--reference", request->reference, "the unquantized model; computed exactly, in f32")
                ->type_name("MODEL");
            app.add_option("--versus", request->versus, "another candidate, compared by a paired bootstrap")
                ->type_name("MODEL");
            app.add_flag("--exact", request->exact, "also run the model with decoded f32 weights and f32 math");
            add_lora_option(app, request->adapters, "adapter of MODEL");
            app.add_option("--kv-cache", request->kv_cache,
                           pipeline::kv_type_list() + " (the folder's, else f16; by the exact path f32)")
                ->type_name("TYPE");
            app.add_option("--per-token", request->per_token, "write the figures of each token (.csv, else f32)")
                ->type_name("FILE");
            app.add_option("--save-logits", request->save_logits,
                           "write all log-probabilities, of the exact path with --exact, as llama-perplexity does")
                ->type_name("FILE");
            app.add_option("--tasks", request->tasks,
                           "multiple choice and last words, one JSON object a line; repeatable")
                ->type_name("FILE")
                ->allow_extra_args(false);
            app.add_option("--task-ctx", request->task_context, "most tokens of a task's item (the model's own)");
            app.add_flag("--tensors", request->tensors, "error of each weight");
            app.add_flag("--layers", request->layers, "error of the hidden states after each block");
            app.add_flag("--energy", request->energy, "energy model of one generated token");
            app.add_option("--energy-ctx", request->energy_context, "context of the energy model");
            app.add_option("--rounding-table", request->rounding, "compare rounding rules on this encoding (int4-g128)")
                ->type_name("TYPE");
            app.add_option("--draws", request->draws, "of stochastic rounding")->capture_default_str();
            const CLI::Option* seed = app.add_option("--seed", request->seed, "of the bootstrap (1), of rotations (0)");
            auto outlier_request = std::make_shared<OutlierRequest>();
            const auto others = others_than_outliers(app);
            const CLI::Option* outliers = add_outlier_options(app, *outlier_request);
            return [request, outlier_request, seed, outliers, others](const Invocation& invocation) {
              if (outliers->count() > 0) refuse_others(others);
              outlier_request->model = request->model;
              outlier_request->text = request->text;
              outlier_request->context = request->context;
              outlier_request->chunks = request->chunks;
              if (seed->count() > 0) outlier_request->seed = request->seed;
              const Report report = outliers->count() > 0 ? find_outliers(invocation.run, *outlier_request)
                                                          : evaluate(invocation.run, *request);
              if (invocation.wants_text()) print(report.text);
              invocation.write_json(report.json);
            };
          }};
}

}  // namespace nibble::cli
