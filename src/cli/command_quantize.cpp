#include "cli/command_quantize.h"

#include <memory>

#include "nibble/memory_plan.h"
#include "nibble/quantize.h"

namespace nibble::cli {

namespace {

std::string list_text() {
  std::string text =
      "Types (a recipe, an encoding's name, a recipe file ending in .json, or auto: the best mix for a size):\n";
  for (const NamedText& recipe : list_recipes()) text += format_text("  {:<8} {}\n", recipe.name, recipe.text);
  text += "Formats:\n";
  for (const NamedText& format : list_formats()) text += format_text("  {:<18} {}\n", format.name, format.text);
  text += "Methods:\n";
  for (const NamedText& method : list_methods()) text += format_text("  {:<8} {}\n", method.name, method.text);
  return text;
}

std::string methods_text() {
  std::string text;
  for (const MethodText& method : describe_methods()) {
    std::string formats;
    for (const std::string& format : method.formats) formats += (formats.empty() ? "" : ", ") + format;
    text += format_text("{}: {}\n  source      {}\n  learns from {}\n  costs       {}\n  files       {}\n", method.name,
                        method.summary, method.source, method.statistics, method.cost, formats);
  }
  return text;
}

RunCommand setup(CLI::App& app) {
  auto request = std::make_shared<QuantizeRequest>();
  auto prepare = add_quantize_options(app, *request);
  return [request, prepare](const Invocation& invocation) {
    prepare();
    request->dry_run = invocation.dry_run;
    const QuantizeReport report = quantize_model(*request, invocation.run);
    if (invocation.wants_text()) print(to_text(report));
    invocation.write_json(to_json(report));
  };
}

}  // namespace

std::function<void()> add_quantize_options(CLI::App& app, QuantizeRequest& request) {
  app.add_option("IN", request.input, "Hugging Face folder or .gguf file")->required();
  app.add_option("-o,--output", request.output, "the .gguf file, or the folder, to write")
      ->type_name("OUT")
      ->required();
  app.add_option("-t,--type", request.type, "recipe, encoding or recipe file; listed below")
      ->type_name("TYPE")
      ->required();
  auto size = std::make_shared<std::string>();
  app.add_option("--size", *size, "of type auto: bytes of the file, at most (4.5GB)")->type_name("SIZE");
  app.add_option("--bpw", request.bits_per_weight, "of type auto: bits per weight of the whole file, at most")
      ->type_name("BITS");
  app.add_option("--judge-tokens", request.judge_tokens,
                 "of type auto: tokens of --calib, behind those to learn from, that it measures by")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--emit-recipe", request.emit_recipe, "of type auto: write the mix as a recipe file, too")
      ->type_name("FILE");
  app.add_option("--format", request.format, "form of the weights; default: what type and output allow; listed below")
      ->type_name("NAME");
  app.add_option("--imatrix", request.imatrix, "importance matrix made by 'nibble imatrix' or llama-imatrix")
      ->type_name("FILE");
  app.add_option("--transform", request.transforms,
                 "rewrite that makes a model easier to quantize (repeatable): rotate; awq, smoothquant[:alpha=A|auto], "
                 "which need --calib")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_option("--calib", request.calib, "text that methods learn from, block by block")->type_name("TEXT");
  app.add_option("--calib-stats", request.calib_stats, "statistics saved by 'nibble calibrate', instead of a text")
      ->type_name("STATS");
  app.add_option("--calib-tokens", request.calib_tokens, "tokens of it, at most")
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--calib-ctx", request.calib_context,
                 "tokens of a sequence of it; default: 512, or what the model was trained for if less")
      ->type_name("N");
  app.add_option("--method", request.method, "how values are chosen; default: the best for each type")
      ->type_name("NAME");
  app.add_option("--effort", request.effort, "passes over a first answer, of gptq and adaround: more lose less")
      ->type_name("N");
  app.add_option("--correction", request.correction,
                 "of gptq and adaround: share of the way to weights that suit the layers quantized before; 0: none")
      ->type_name("A")
      ->capture_default_str();
  app.add_option("--pull-back", request.pull_back, "of gptq on integers: towards the weights as they were")
      ->type_name("B")
      ->capture_default_str();
  app.add_flag("--act-order", request.act_order, "of gptq on integers: columns that carry most first");
  app.add_option("--damping", request.damping, "of gptq and adaround: share of the inputs' mean square")
      ->type_name("D")
      ->capture_default_str();
  app.add_option("--override", request.overrides,
                 "tensors whose name the expression is found in get this type (repeatable)")
      ->type_name("REGEX=TYPE")
      ->allow_extra_args(false);
  app.add_flag("--pure", request.pure, "the type's base for every weight, the head included");
  app.add_option("--rounding", request.rounding, "of rtn: nearest, stochastic, floor, ceil")
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--range", request.range, "of rtn: minmax, mse, output; default: output behind awq, else minmax")
      ->type_name("NAME");
  app.add_option(
         "--observer", request.observer,
         "of types that fix the scales of inputs, and of --kv-cache: minmax, percentile, mse, kl; default: mse, "
         "of --kv-cache minmax")
      ->type_name("NAME");
  app.add_option("--kv-cache", request.kv_cache,
                 "KV cache that the folder is made for, int8-static or fp8-static: its scales are learned from --calib")
      ->type_name("TYPE");
  app.add_option("--seed", request.seed, "of stochastic rounding, of rotations")->type_name("N")->capture_default_str();
  app.add_flag_callback(
      "--list-methods",
      [] {
        print(methods_text());
        throw CLI::Success();
      },
      "each method: its origin, cost, statistics and files");
  app.footer(list_text);
  return [&request, size] {
    if (!size->empty()) request.size_bytes = parse_memory(*size);
  };
}

Command quantize_command() { return {"quantize", "write a model with smaller weights", true, setup}; }

}  // namespace nibble::cli
