// Scatter plots as SVG: lines of points over a linear axis, on a logarithmic one.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::pipeline {

struct PlotPoint {
  double x = 0, y = 0;     // y > 0
  std::string label = {};  // beside the point
};
struct PlotSeries {
  std::string name;
  std::vector<PlotPoint> points;  // joined in ascending x
  int color = -1;                 // of a palette; -1: the next one for each series
  bool dashed = false;
};
struct Plot {
  std::string title, x_title, y_title;
  std::vector<PlotSeries> series;
};

// Points that are not finite or have y <= 0 are left out.
std::string to_svg(const Plot& plot);
std::string to_svg(std::span<const Plot> plots);  // one below the other

}  // namespace nibble::pipeline
