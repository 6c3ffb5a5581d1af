#include "pipeline/outlier_report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/format.h"

namespace nibble::pipeline {

namespace {

using eval::OutlierFigures;

// Dettmers et al., arXiv 2208.07339, section 4: an outlier feature is one in at least a quarter of the layers.
constexpr double kLayerShare = 0.25;
constexpr const char* kSides[] = {"before", "after"};

struct Column {
  std::string_view key, title;
  bool range;  // belongs into the table of ranges
  double (*value)(const OutlierFigures& figures);
  double shown_times = 1;
};
constexpr Column kColumns[] = {
    {"least", "least", true, [](const OutlierFigures& f) { return f.least; }},
    {"largest", "largest", true, [](const OutlierFigures& f) { return f.largest; }},
    {"mean_abs", "mean abs", true, [](const OutlierFigures& f) { return f.mean_abs; }},
    {"rms", "RMS", true, [](const OutlierFigures& f) { return f.rms; }},
    {"max_abs", "max abs", false, [](const OutlierFigures& f) { return f.max_abs; }},
    {"peak", "max/RMS", false, [](const OutlierFigures& f) { return f.peak; }},
    {"token_peak", "in a token", false, [](const OutlierFigures& f) { return f.token_peak; }},
    {"kurtosis", "kurtosis", false, [](const OutlierFigures& f) { return f.kurtosis; }},
    {"channel_peak", "channel max/median", false, [](const OutlierFigures& f) { return f.channel_peak; }},
    {"features", "features", false, [](const OutlierFigures& f) { return static_cast<double>(f.features); }},
    {"ever", "ever", false, [](const OutlierFigures& f) { return static_cast<double>(f.ever); }},
    {"affected_tokens", "tokens %", false, [](const OutlierFigures& f) { return f.affected_tokens; }, 100},
};

// The inputs of one stage in all blocks, those of the head apart.
struct Stage {
  std::string name;
  std::vector<const LinearInput*> inputs;

  double largest(const Column& column, std::size_t side) const {
    double most = -HUGE_VAL;
    for (const LinearInput* input : inputs) most = std::max(most, column.value(input->sides[side].figures));
    return most;
  }
  // Columns that are features in a quarter of the blocks; of a stack of experts, whose columns have nothing to do with
  // those of another block's, none.
  std::vector<std::int64_t> lasting_features(std::size_t side) const {
    std::map<std::int64_t, std::size_t> blocks;
    for (const LinearInput* input : inputs) {
      if (input->matrices > 1) continue;
      for (const std::int64_t column : input->sides[side].features) ++blocks[column];
    }
    std::vector<std::int64_t> out;
    for (const auto& [column, count] : blocks) {
      if (static_cast<double>(count) >= kLayerShare * static_cast<double>(inputs.size())) out.push_back(column);
    }
    return out;
  }
};

std::vector<Stage> stages_of(const std::vector<LinearInput>& inputs) {
  std::vector<Stage> stages;
  for (const LinearInput& input : inputs) {
    if (input.layer < 0) continue;
    const std::string name = input.name();
    auto stage = std::ranges::find(stages, name, &Stage::name);
    if (stage == stages.end()) stage = stages.insert(stage, {name, {}});
    stage->inputs.push_back(&input);
  }
  return stages;
}

using Row = std::vector<std::string>;

std::string markdown(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths(rows[0].size());
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t i = 0; i < widths.size(); ++i) out += format_text("| {:<{}} ", rows[r][i], widths[i]);
    out += "|\n";
    if (r > 0) continue;
    for (const std::size_t width : widths) out += "|" + std::string(width + 2, '-');
    out += "|\n";
  }
  return out;
}

std::string number(double value) { return std::isfinite(value) ? format_text("{:.4g}", value) : "-"; }

// "12.3 -> 4.5"
template <typename Value>
std::string cell(std::size_t n_sides, Value&& value) {
  std::string text;
  for (std::size_t side = 0; side < n_sides; ++side) text += (side > 0 ? " -> " : "") + number(value(side));
  return text;
}

std::string input_table(const std::vector<LinearInput>& inputs, bool ranges) {
  std::vector<Row> rows = {{"block", "inputs of"}};
  for (const Column& column : kColumns) {
    if (column.range == ranges) rows[0].emplace_back(column.title);
  }
  for (const LinearInput& input : inputs) {
    Row& row = rows.emplace_back(Row{input.layer < 0 ? "head" : std::to_string(input.layer), input.name()});
    for (const Column& column : kColumns) {
      if (column.range != ranges) continue;
      row.push_back(cell(input.sides.size(), [&](std::size_t side) {
        return column.shown_times * column.value(input.sides[side].figures);
      }));
    }
  }
  return markdown(rows);
}

std::string stage_table(const std::vector<Stage>& stages) {
  std::vector<Row> rows = {{"inputs of"}};
  for (const Column& column : kColumns) {
    if (!column.range) rows[0].emplace_back(column.title);
  }
  rows[0].emplace_back("in a quarter");
  for (const Stage& stage : stages) {
    const std::size_t n_sides = stage.inputs[0]->sides.size();
    Row& row = rows.emplace_back(Row{stage.name});
    for (const Column& column : kColumns) {
      if (column.range) continue;
      row.push_back(cell(n_sides, [&](std::size_t side) { return column.shown_times * stage.largest(column, side); }));
    }
    row.push_back(
        cell(n_sides, [&](std::size_t side) { return static_cast<double>(stage.lasting_features(side).size()); }));
  }
  return markdown(rows);
}

json::Array numbers(const std::vector<std::int64_t>& values) { return {values.begin(), values.end()}; }

json::Value names_json(const LinearInput& input) { return json::Array(input.linears.begin(), input.linears.end()); }

}  // namespace

std::string LinearInput::name() const {
  std::string text;
  for (const std::string& linear : linears) text += (text.empty() ? "" : "+") + linear;
  return text;
}

std::string outlier_tables(const std::vector<LinearInput>& inputs) {
  return "largest of all blocks\n" + stage_table(stages_of(inputs)) + "\nranges\n" + input_table(inputs, true) +
         "\noutliers\n" + input_table(inputs, false);
}

json::Value inputs_json(const std::vector<LinearInput>& inputs) {
  json::Array array;
  for (const LinearInput& input : inputs) {
    json::Value item;
    item.set("layer", input.layer);
    item.set("linears", names_json(input));
    item.set("matrices", input.matrices);
    item.set("cols", input.cols);
    item.set("tokens", input.sides[0].figures.tokens);
    for (std::size_t side = 0; side < input.sides.size(); ++side) {
      json::Value figures;
      for (const Column& column : kColumns) figures.set(column.key, column.value(input.sides[side].figures));
      figures.set("feature_columns", numbers(input.sides[side].features));
      item.set(kSides[side], std::move(figures));
    }
    array.push_back(std::move(item));
  }
  return array;
}

json::Value stages_json(const std::vector<LinearInput>& inputs) {
  json::Array array;
  for (const Stage& stage : stages_of(inputs)) {
    json::Value item;
    item.set("linears", names_json(*stage.inputs[0]));
    item.set("blocks", static_cast<std::int64_t>(stage.inputs.size()));
    for (std::size_t side = 0; side < stage.inputs[0]->sides.size(); ++side) {
      json::Value figures;
      for (const Column& column : kColumns) {
        if (!column.range) figures.set(column.key, stage.largest(column, side));
      }
      figures.set("lasting_feature_columns", numbers(stage.lasting_features(side)));
      item.set(kSides[side], std::move(figures));
    }
    array.push_back(std::move(item));
  }
  return array;
}

std::vector<Plot> outlier_plots(const std::vector<LinearInput>& inputs, const std::string& title) {
  std::vector<Plot> plots;
  const std::vector<Stage> stages = stages_of(inputs);
  for (const std::string_view key : {"max_abs", "kurtosis"}) {
    const Column& column = *std::ranges::find(kColumns, key, &Column::key);
    Plot& plot = plots.emplace_back(Plot{title, "block", key == "max_abs" ? "max |x|" : "kurtosis", {}});
    for (std::size_t i = 0; i < stages.size(); ++i) {
      const std::size_t n_sides = stages[i].inputs[0]->sides.size();
      for (std::size_t side = 0; side < n_sides; ++side) {
        PlotSeries series{stages[i].inputs[0]->linears[0], {}, static_cast<int>(i), side + 1 < n_sides};
        if (n_sides > 1) series.name += std::string(" ") + kSides[side];
        for (const LinearInput* input : stages[i].inputs)
          series.points.push_back({static_cast<double>(input->layer), column.value(input->sides[side].figures)});
        plot.series.push_back(std::move(series));
      }
    }
  }
  return plots;
}

}  // namespace nibble::pipeline
