#include "eval/rounding_table.h"

#include <algorithm>
#include <cmath>

#include "eval/requantize.h"
#include "eval/statistics.h"
#include "method/quantizer.h"

namespace nibble::eval {

namespace {

using method::Rounding;
using SourcePtr = std::shared_ptr<const model::ModelSource>;

Contender load(ExecContext& context, SourcePtr source, Isa isa, std::string label) {
  return {std::move(label),
          model::Model::load(context, std::move(source), {.path = model::MathPath::kExact, .isa = isa}),
          model::KvType::kF32};
}

struct Column {
  double mean = 0, deviation = 0, best = 0;
};

// Over the draws; the best one is the smallest, or the largest when `larger_is_better`.
template <typename Figure>
Column over_draws(const std::vector<Measures>& draws, bool larger_is_better, Figure&& figure) {
  std::vector<double> values;
  for (const Measures& draw : draws) values.push_back(figure(draw));
  const MeanError mean = mean_with_error(values);
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return {mean.mean, mean.error * std::sqrt(static_cast<double>(values.size())), larger_is_better ? *high : *low};
}

double perplexity(const Measures& measures) { return measures.perplexity; }
double kld(const Measures& measures) { return measures.distance->kld.mean; }
double top1(const Measures& measures) { return measures.distance->top1.mean; }

json::Value row_json(std::string_view scheme, const Measures& measures) {
  json::Value row;
  row.set("rounding", scheme);
  add_to_json(measures, "", row);
  return row;
}

std::string row_text(std::string_view scheme, const Measures& measures) {
  return format_text("| {} | {:.2f} | {:.4f} | {:.2f} |\n", scheme, perplexity(measures), kld(measures),
                     100 * top1(measures));
}

}  // namespace

RoundingTable rounding_table(ExecContext& context, SourcePtr source, const calib::TokenChunks& chunks,
                             const RoundingOptions& options) {
  const method::Method& rtn = method::get("rtn");
  if (!rtn.supports(*options.target) || options.draws < 1) {
    fail(ErrorCode::kInvalidArgument, "no rounding table of '{}' with {} draws", options.target->name, options.draws);
  }
  const Contender reference = load(context, source, options.isa, "the model");
  std::vector<Contender> contenders;
  const auto add = [&](Rounding rounding, std::uint64_t seed, std::string label) {
    const method::Options how{.rounding = rounding, .seed = seed, .isa = options.isa};
    contenders.push_back(
        load(context, requantize(context, source, rtn, *options.target, how), options.isa, std::move(label)));
  };
  add(Rounding::kNearest, 0, "nearest");
  add(Rounding::kFloor, 0, "floor");
  add(Rounding::kCeil, 0, "ceil");
  for (int draw = 1; draw <= options.draws; ++draw)
    add(Rounding::kStochastic, static_cast<std::uint64_t>(draw), "stochastic");

  const ScoreTable scores = score_chunks(context, chunks, &reference, contenders);
  std::vector<Measures> measures;
  for (const TokenScores& each : scores.contenders) measures.push_back(measure(each, &scores.reference));
  RoundingTable table;
  table.target = options.target;
  table.reference_perplexity = measure(scores.reference, nullptr).perplexity;
  table.nearest = measures[0];
  table.floor = measures[1];
  table.ceil = measures[2];
  table.stochastic.assign(measures.begin() + 3, measures.end());
  return table;
}

json::Value to_json(const RoundingTable& table) {
  json::Value object;
  object.set("encoding", table.target->name);
  object.set("perplexity_reference", table.reference_perplexity);
  json::Array rows = {row_json("nearest", table.nearest)};
  for (const Measures& draw : table.stochastic) rows.push_back(row_json("stochastic", draw));
  rows.push_back(row_json("floor", table.floor));
  rows.push_back(row_json("ceil", table.ceil));
  object.set("rows", std::move(rows));
  return object;
}

std::string to_table(const RoundingTable& table) {
  std::string text =
      format_text("| rounding to {} | perplexity | mean KL divergence | same top token % |\n|---|---|---|---|\n",
                  table.target->name);
  text += format_text("| none | {:.2f} | 0 | 100 |\n", table.reference_perplexity);
  text += row_text("nearest", table.nearest);
  const Column p = over_draws(table.stochastic, false, perplexity);
  const Column k = over_draws(table.stochastic, false, kld);
  const Column t = over_draws(table.stochastic, true, top1);
  text += format_text(
      "| stochastic, mean ± deviation of {} draws | {:.2f} ± {:.2f} | {:.4f} ± {:.4f} | {:.2f} ± {:.2f} |\n",
      table.stochastic.size(), p.mean, p.deviation, k.mean, k.deviation, 100 * t.mean, 100 * t.deviation);
  text += format_text("| stochastic, best draw | {:.2f} | {:.4f} | {:.2f} |\n", p.best, k.best, 100 * t.best);
  text += row_text("floor", table.floor);
  return text + row_text("ceil", table.ceil);
}

}  // namespace nibble::eval
