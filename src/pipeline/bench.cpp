#include "nibble/bench.h"

#include "base/cpu.h"
#include "eval/speed.h"
#include "json/json.h"
#include "pipeline/choices.h"
#include "pipeline/loading.h"

namespace nibble {

namespace {

void report_rate(std::string_view name, std::int64_t tokens, const eval::Rate& rate, json::Value& object,
                 std::string& text) {
  if (rate.seconds.empty()) return;
  const std::string key(name);
  object.set(key + "_tok_s", rate.median_tok_s);
  object.set(key + "_tok_s_min", rate.min_tok_s);
  object.set(key + "_tok_s_max", rate.max_tok_s);
  json::Array seconds;
  for (const double value : rate.seconds) seconds.push_back(value);
  object.set(key + "_seconds", std::move(seconds));
  text += format_text("{:<8} {:>6} tokens {:>10.2f} tokens/s  (median of {}, {:.2f} to {:.2f})\n", name, tokens,
                      rate.median_tok_s, rate.seconds.size(), rate.min_tok_s, rate.max_tok_s);
}

}  // namespace

Report bench(const RunContext& run, const BenchRequest& request) {
  OwnedExecContext context(run);
  const auto source = model::ModelSource::open(request.model);
  const eval::SpeedOptions options{request.prompt, request.generate, request.repetitions,
                                   pipeline::parse_kv_type(request.kv_cache)};
  const auto model = pipeline::load_model(*context, source, model::MathPath::kFast);
  const eval::Speed speed = eval::measure_speed(*context, *model, options);

  json::Value object;
  object.set("model", request.model.string());
  object.set("parameters", source->spec().parameters());
  object.set("file_bytes", source->reader().file_bytes());
  object.set("bits_per_weight", pipeline::bits_per_weight(*source));
  object.set("weight_bytes", model->weight_bytes());
  object.set("threads", context->pool.size());
  object.set("cpu", cpu_name());
  object.set("isa", isa_name(best_isa()));
  object.set("kv_cache", request.kv_cache);
  object.set("prompt", request.prompt);
  object.set("generate", request.generate);
  std::string text = format_text("{}: {}, {:.3f} bits per weight\n{}, {}, {} threads\n", request.model.string(),
                                 format_bytes(source->reader().file_bytes()), pipeline::bits_per_weight(*source),
                                 cpu_name(), isa_name(best_isa()), context->pool.size());
  report_rate("prefill", request.prompt, speed.prefill, object, text);
  report_rate("decode", request.generate, speed.decode, object, text);
  return {std::move(text), json::dump(object)};
}

}  // namespace nibble
