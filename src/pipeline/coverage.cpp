#include "pipeline/coverage.h"

#include <algorithm>
#include <numeric>

#include "base/format.h"

namespace nibble::pipeline {

namespace {

using calib::InputCoverage;
using calib::StatisticsHeader;
using calib::StatisticsInput;

std::string layer_text(const StatisticsInput& input) { return input.layer < 0 ? "head" : std::to_string(input.layer); }

std::string range_text(std::span<const std::int64_t> tokens) {
  const auto [least, most] = std::ranges::minmax(tokens);
  return least == most ? format_text("{}", least) : format_text("{} to {}", least, most);
}

std::string warning_text(const StatisticsInput& input, const InputWarning& warning) {
  std::string text;
  if (warning.singular > 0) {
    text = input.matrices == 1 ? "fewer tokens than columns"
                               : format_text("{} with fewer tokens than columns", warning.singular);
  }
  if (warning.starved > 0)
    text += format_text("{}{} below {} tokens", text.empty() ? "" : ", ", warning.starved, kFewExpertTokens);
  return text;
}

}  // namespace

InputWarning warn(const StatisticsInput& input, const InputCoverage& coverage) {
  InputWarning warning;
  for (const std::int64_t tokens : coverage.tokens) {
    warning.singular += tokens < input.cols ? 1 : 0;
    warning.starved += input.matrices > 1 && tokens < kFewExpertTokens ? 1 : 0;
  }
  return warning;
}

std::string coverage_table(const StatisticsHeader& header, std::span<const InputCoverage> coverage) {
  std::size_t width = 5;
  for (const StatisticsInput& input : header.inputs) width = std::max(width, input.name.size());
  std::string text = format_text("{:>5}  {:<{}} {:>8} {:>8} {:>8}  {:>16}  {}\n", "layer", "input", width, "linears",
                                 "matrices", "columns", "tokens", "warning");
  for (std::size_t i = 0; i < header.inputs.size(); ++i) {
    const StatisticsInput& input = header.inputs[i];
    text += format_text("{:>5}  {:<{}} {:>8} {:>8} {:>8}  {:>16}  {}\n", layer_text(input), input.name, width,
                        input.slots.size(), input.matrices, input.cols, range_text(coverage[i].tokens),
                        warning_text(input, warn(input, coverage[i])));
  }
  return text;
}

json::Array coverage_json(const StatisticsHeader& header, std::span<const InputCoverage> coverage) {
  json::Array inputs;
  for (std::size_t i = 0; i < header.inputs.size(); ++i) {
    const StatisticsInput& input = header.inputs[i];
    const InputWarning warning = warn(input, coverage[i]);
    json::Value value;
    value.set("name", input.name);
    value.set("layer", input.layer);
    json::Array weights, tokens, held_out;
    for (const std::string& weight : input.weights) weights.emplace_back(weight);
    for (const std::int64_t count : coverage[i].tokens) tokens.emplace_back(count);
    for (const std::int64_t count : coverage[i].held_out) held_out.emplace_back(count);
    value.set("weights", std::move(weights));
    value.set("columns", input.cols);
    value.set("tokens", std::move(tokens));
    value.set("held_out_tokens", std::move(held_out));
    value.set("singular", warning.singular);
    value.set("starved", warning.starved);
    inputs.push_back(std::move(value));
  }
  return inputs;
}

std::vector<std::string> coverage_warnings(const StatisticsHeader& header, std::span<const InputCoverage> coverage) {
  std::vector<std::string> warnings;
  std::int64_t dense = 0;
  std::string first;
  for (std::size_t i = 0; i < header.inputs.size(); ++i) {
    const StatisticsInput& input = header.inputs[i];
    const InputWarning warning = warn(input, coverage[i]);
    if (warning.singular > 0 && input.matrices == 1 && dense++ == 0) {
      first = format_text("'{}': {} tokens for {} columns", input.name, coverage[i].tokens[0], input.cols);
    }
    if (warning.starved == 0) continue;
    const auto unseen = std::ranges::count(coverage[i].tokens, std::int64_t{0});
    warnings.push_back(format_text("'{}': {} of {} matrices saw fewer than {} tokens, {} of them none", input.name,
                                   warning.starved, input.matrices, kFewExpertTokens, unseen));
  }
  if (dense > 0) {
    warnings.push_back(
        format_text("{} inputs saw fewer tokens than they have columns, so that methods have only damping "
                    "to go by in some directions ({}{}): give more of the text",
                    dense, first, dense > 1 ? ", ..." : ""));
  }
  return warnings;
}

}  // namespace nibble::pipeline
