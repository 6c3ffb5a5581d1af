#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "json/json.h"
#include "model/lora.h"
#include "model/source.h"
#include "nibble/lora.h"

namespace nibble {

namespace {

using model::LoraPair;

// The sum of squares of scale * b a, of the products of their columns: trace((bᵀ b)(a aᵀ)).
double squares_of(const LoraPair& pair) {
  const auto rank = static_cast<std::size_t>(pair.rank);
  const std::size_t in = pair.a.size() / rank, out = pair.b.size() / rank;
  double sum = 0;
  for (std::size_t i = 0; i < rank; ++i) {
    for (std::size_t j = 0; j < rank; ++j) {
      double of_a = 0, of_b = 0;
      for (std::size_t c = 0; c < in; ++c) of_a += static_cast<double>(pair.a[i * in + c]) * pair.a[j * in + c];
      for (std::size_t r = 0; r < out; ++r) of_b += static_cast<double>(pair.b[r * rank + i]) * pair.b[r * rank + j];
      sum += of_a * of_b;
    }
  }
  return pair.scale * pair.scale * std::max(0.0, sum);
}

// What the pairs of one role have in common.
struct Summary {
  model::Role role{};
  int count = 0;
  std::int64_t least_rank = INT64_MAX, most_rank = 0;
  double least_scale = INFINITY, most_scale = -INFINITY;
  double squares = 0, numbers = 0;  // of what is added to the weights

  void add(const LoraPair& pair) {
    ++count;
    least_rank = std::min(least_rank, pair.rank);
    most_rank = std::max(most_rank, pair.rank);
    least_scale = std::min(least_scale, pair.scale);
    most_scale = std::max(most_scale, pair.scale);
    squares += squares_of(pair);
    const auto rank = static_cast<double>(pair.rank);
    numbers += static_cast<double>(pair.a.size()) / rank * static_cast<double>(pair.b.size()) / rank;
  }
  double rms() const { return std::sqrt(squares / numbers); }
};

std::vector<Summary> summaries_of(const model::LoraAdapter& adapter) {
  std::vector<Summary> all;
  for (const LoraPair& pair : adapter.pairs) {
    auto found = std::ranges::find(all, pair.role, &Summary::role);
    if (found == all.end()) found = all.insert(all.end(), {.role = pair.role});
    found->add(pair);
  }
  return all;
}

template <typename T>
std::string range(T least, T most, const char* between) {
  return least == most ? format_text("{}", least) : format_text("{}{}{}", least, between, most);
}

}  // namespace

Report describe_lora(const LoraRequest& request) {
  const auto base = model::ModelSource::open(request.model);
  const model::LoraAdapter adapter = model::load_lora(request.adapter, *base);
  std::uint64_t parameters = 0;
  for (const LoraPair& pair : adapter.pairs) parameters += pair.a.size() + pair.b.size();
  json::Value object;
  object.set("adapter", request.adapter.string());
  object.set("model", request.model.string());
  object.set("pairs", static_cast<std::int64_t>(adapter.pairs.size()));
  object.set("parameters", parameters);
  std::string text = format_text("{}: {} pairs, {} parameters\n", request.adapter.string(), adapter.pairs.size(),
                                 format_count(parameters));
  json::Array weights;
  for (const Summary& each : summaries_of(adapter)) {
    const auto name = model::role_name(each.role);
    text += format_text("  {:<16} {:>3} weights, rank {}, scale {}, adds {:.2e} (rms)\n", name, each.count,
                        range(each.least_rank, each.most_rank, "-"),
                        range(static_cast<float>(each.least_scale), static_cast<float>(each.most_scale), " to "),
                        each.rms());
    json::Value row;
    row.set("role", name);
    row.set("weights", each.count);
    row.set("rank_least", each.least_rank);
    row.set("rank_most", each.most_rank);
    row.set("scale_least", each.least_scale);
    row.set("scale_most", each.most_scale);
    row.set("rms", each.rms());
    weights.push_back(std::move(row));
  }
  object.set("weights", std::move(weights));
  if (!request.output.empty() && !request.dry_run) {
    model::save_lora(adapter, *base, request.output, request.model.string());
    object.set("output", request.output.string());
    text += format_text("written to {}\n", request.output.string());
  }
  return {std::move(text), json::dump(object)};
}

}  // namespace nibble
