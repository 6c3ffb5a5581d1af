// The figures of find_outliers() as tables, JSON and plots.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/input_outliers.h"
#include "json/json.h"
#include "pipeline/plot.h"

namespace nibble::pipeline {

// One input, of the linears that share it.
struct LinearInput {
  int layer = -1;                    // -1: the head
  std::vector<std::string> linears;  // "attn_q", "attn_k", "attn_v"
  std::int64_t matrices = 1, cols = 0;
  struct Side {
    eval::OutlierFigures figures;
    std::vector<std::int64_t> features;  // matrix * cols + column
  };
  std::vector<Side> sides;  // of the model as it is; then of the transformed one, if there is one

  std::string name() const;  // "attn_q+attn_k+attn_v"
};

// In order of evaluation; all with as many sides.
std::string outlier_tables(const std::vector<LinearInput>& inputs);  // in Markdown
json::Value inputs_json(const std::vector<LinearInput>& inputs);
json::Value stages_json(const std::vector<LinearInput>& inputs);  // over all blocks
std::vector<Plot> outlier_plots(const std::vector<LinearInput>& inputs, const std::string& title);

}  // namespace nibble::pipeline
