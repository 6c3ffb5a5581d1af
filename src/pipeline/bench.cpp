#include "nibble/bench.h"

#include <algorithm>

#include "base/cpu.h"
#include "eval/speed.h"
#include "eval/statistics.h"
#include "eval/token_work.h"
#include "json/json.h"
#include "kernel/roofline.h"
#include "pipeline/adapters.h"
#include "pipeline/choices.h"
#include "pipeline/loading.h"
#include "pipeline/peer_speed.h"

namespace nibble {

namespace {

// What was measured of one program.
struct Runs {
  std::vector<double> prefill, decode;  // tokens per second of each repetition
};

struct Measured {
  eval::Rate prefill, decode;
  std::vector<Runs> peers;  // as request.compare
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return eval::quantile(values, 0.5);
}

model::KvType kv_of(const model::ModelSpec& spec, const BenchRequest& request) {
  return pipeline::choose_kv_type(request.kv_cache, spec, model::MathPath::kFast);
}

Measured measure(ExecContext& context, const model::Model& model, const BenchRequest& request) {
  if (request.repetitions < 1) fail(ErrorCode::kInvalidArgument, "nothing to measure: 0 repetitions");
  eval::SpeedTrial trial(
      context, model, {request.prompt, request.generate, request.depth, request.batch, kv_of(model.spec(), request)});
  Measured measured;
  measured.peers.resize(request.compare.size());
  std::vector<double> prefill, decode;
  const std::int64_t tokens = request.prompt + trial.decoded_tokens();
  ProgressTask progress(context.progress, "bench", static_cast<std::uint64_t>(tokens * (request.repetitions + 1)),
                        "tokens");
  for (int round = 0; round <= request.repetitions; ++round) {  // the first one warms up
    context.check_cancelled();
    if (request.prompt > 0) prefill.push_back(trial.prefill());
    if (request.generate > 0) decode.push_back(trial.decode());
    progress.add(static_cast<std::uint64_t>(tokens));
    if (round == 0) continue;
    for (std::size_t i = 0; i < request.compare.size(); ++i) {
      context.check_cancelled();
      const pipeline::PeerSpeed peer = pipeline::run_peer(request.compare[i]);
      if (peer.prefill_tok_s) measured.peers[i].prefill.push_back(*peer.prefill_tok_s);
      if (peer.decode_tok_s) measured.peers[i].decode.push_back(*peer.decode_tok_s);
    }
  }
  if (!prefill.empty()) prefill.erase(prefill.begin());
  if (!decode.empty()) decode.erase(decode.begin());
  measured.prefill = eval::make_rate(request.prompt, std::move(prefill));
  measured.decode = eval::make_rate(trial.decoded_tokens(), std::move(decode));
  return measured;
}

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

// Below this many bytes a token the caches may hold what is read, and the bandwidth of memory is no limit.
constexpr double kBeyondCaches = 256e6;

// What was reached of the limits.
struct Reached {
  double prefill_gops = 0, prefill_fraction = 0;
  double step_bytes = 0, decode_gb_s = 0, decode_fraction = 0;
  bool decode_is_bound = false;
};

Reached reached_of(const kernel::Roofline& limits, const model::ModelSource& source, const BenchRequest& request,
                   const Measured& measured) {
  const eval::TokenWork work = eval::token_work(source, best_isa(), request.prompt);
  Reached reached;
  if (request.prompt > 0) {
    const double seconds = static_cast<double>(request.prompt) / measured.prefill.median_tok_s;
    reached.prefill_gops = 2 * eval::prefill_macs(work, request.prompt) / seconds / 1e9;
    reached.prefill_fraction = prefill_limit_seconds(work, request.prompt, limits) / seconds;
  }
  if (request.generate > 0) {
    const double held = static_cast<double>(request.depth) + static_cast<double>(request.generate + 1) / 2;  // mean
    const auto context = request.depth + request.generate;
    const double kv_bytes =
        static_cast<double>(model::kv_cache_bytes(source.spec(), kv_of(source.spec(), request), context)) /
        static_cast<double>(context) * held;
    reached.step_bytes = eval::step_bytes(work, request.batch) + kv_bytes * request.batch;
    const double rate = reached.step_bytes * measured.decode.median_tok_s / request.batch;
    reached.decode_gb_s = rate / 1e9;
    reached.decode_is_bound = reached.step_bytes >= kBeyondCaches;
    if (reached.decode_is_bound) reached.decode_fraction = rate / limits.read_bytes_per_s;
  }
  return reached;
}

void report_limits(const kernel::Roofline& limits, const Reached& reached, const BenchRequest& request,
                   json::Value& object, std::string& text) {
  object.set("read_gb_s", limits.read_bytes_per_s / 1e9);
  object.set("int8_peak_gops", limits.int8_ops_per_s / 1e9);
  object.set("f32_peak_gflops", limits.f32_ops_per_s / 1e9);
  text += format_text("limits   read {:.1f} GB/s, int8 {:.0f} GOPS, f32 {:.0f} GFLOPS", limits.read_bytes_per_s / 1e9,
                      limits.int8_ops_per_s / 1e9, limits.f32_ops_per_s / 1e9);
  if (limits.bf16_ops_per_s > 0) {
    object.set("bf16_tile_peak_gflops", limits.bf16_ops_per_s / 1e9);
    object.set("int8_tile_peak_gops", limits.int8_tile_ops_per_s / 1e9);
    text += format_text(", bf16 tiles {:.0f} GFLOPS, int8 tiles {:.0f} GOPS", limits.bf16_ops_per_s / 1e9,
                        limits.int8_tile_ops_per_s / 1e9);
  }
  text += "\n";
  if (request.prompt > 0) {
    object.set("prefill_gops", reached.prefill_gops);
    object.set("prefill_peak_fraction", reached.prefill_fraction);
    text += format_text("prefill  {:.0f} GOPS, {:.1f} % of the peak of its products\n", reached.prefill_gops,
                        reached.prefill_fraction * 100);
  }
  if (request.generate > 0) {
    object.set("decode_bytes_per_step", reached.step_bytes);
    object.set("decode_gb_s", reached.decode_gb_s);
    object.set("decode_bandwidth_fraction",
               reached.decode_is_bound ? json::Value(reached.decode_fraction) : json::Value(nullptr));
    text += reached.decode_is_bound
                ? format_text("decode   {:.1f} GB/s, {:.1f} % of the bandwidth\n", reached.decode_gb_s,
                              reached.decode_fraction * 100)
                : format_text("decode   {:.1f} GB/s, from caches that hold all of it\n", reached.decode_gb_s);
  }
}

void report_peers(const BenchRequest& request, const Measured& measured, json::Value& object, std::string& text) {
  json::Array peers;
  for (std::size_t i = 0; i < request.compare.size(); ++i) {
    json::Value peer;
    peer.set("command", request.compare[i]);
    text += format_text("against  {}\n", request.compare[i]);
    const auto row = [&](const std::string& what, const eval::Rate& ours, const std::vector<double>& theirs) {
      if (ours.seconds.empty() || theirs.empty()) return;
      const double tok_s = median(theirs);
      peer.set(what + "_tok_s", tok_s);
      peer.set(what + "_ratio", ours.median_tok_s / tok_s);
      text += format_text("  {:<8} {:>10.2f} tokens/s, ours is {:.2f} times as fast\n", what, tok_s,
                          ours.median_tok_s / tok_s);
    };
    row("prefill", measured.prefill, measured.peers[i].prefill);
    row("decode", measured.decode, measured.peers[i].decode);
    peers.push_back(std::move(peer));
  }
  if (!peers.empty()) object.set("compare", std::move(peers));
}

}  // namespace

Report bench(const RunContext& run, const BenchRequest& request) {
  OwnedExecContext context(run);
  const auto source = model::ModelSource::open(request.model);
  const auto model = pipeline::load_model(*context, source, model::MathPath::kFast, request.adapters);
  // Before and after, and the better of the two: other users of the machine only ever make a limit look lower.
  const auto limits = [&] { return kernel::measure_roofline(context->pool, best_isa(), request.roofline_bytes); };
  kernel::Roofline best;
  if (request.roofline_bytes > 0) best = limits();
  const Measured measured = measure(*context, *model, request);
  Reached reached;
  if (request.roofline_bytes > 0) {
    for (int attempt = 0; attempt < 10; ++attempt) {
      best = kernel::better_of(best, limits());
      reached = reached_of(best, *source, request, measured);
      if (std::max(reached.prefill_fraction, reached.decode_fraction) <= 1) break;
    }
    const double most = std::max(reached.prefill_fraction, reached.decode_fraction);
    if (most > 1) fail(ErrorCode::kInternal, "{:.3f} of a limit was reached: the limit is measured wrong", most);
  }

  json::Value object;
  object.set("model", request.model.string());
  object.set("parameters", source->spec().parameters());
  object.set("file_bytes", source->reader().file_bytes());
  object.set("bits_per_weight", pipeline::bits_per_weight(*source));
  object.set("weight_bytes", model->weight_bytes());
  object.set("threads", context->pool.size());
  object.set("cpu", cpu_name());
  object.set("isa", isa_name(best_isa()));
  object.set("kv_cache", model::kv_type_name(kv_of(source->spec(), request)));
  object.set("prompt", request.prompt);
  object.set("generate", request.generate);
  object.set("depth", request.depth);
  object.set("batch", request.batch);
  std::string text = format_text("{}: {}, {:.3f} bits per weight\n{}, {}, {} threads\n", request.model.string(),
                                 format_bytes(source->reader().file_bytes()), pipeline::bits_per_weight(*source),
                                 cpu_name(), isa_name(best_isa()), context->pool.size());
  pipeline::report_adapters(request.adapters, object, text);
  report_rate("prefill", request.prompt, measured.prefill, object, text);
  report_rate("decode", request.generate * request.batch, measured.decode, object, text);
  if (request.roofline_bytes > 0) report_limits(best, reached, request, object, text);
  report_peers(request, measured, object, text);
  return {std::move(text), json::dump(object)};
}

}  // namespace nibble
