#include "pipeline/plot.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/format.h"

namespace nibble::pipeline {

namespace {

constexpr double kWidth = 900, kHeight = 560, kLeft = 80, kRight = 210, kTop = 50, kBottom = 60;
constexpr double kMostTicks = 24;  // of the linear axis
constexpr const char* kColors[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e",
                                   "#8c564b", "#e377c2", "#17becf", "#7f7f7f", "#bcbd22"};

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else {
      out += c;
    }
  }
  return out;
}

bool shown(const PlotPoint& point) { return std::isfinite(point.x) && std::isfinite(point.y) && point.y > 0; }

// From values to places on the page.
struct Axes {
  double x_low = std::numeric_limits<double>::max(), x_high = std::numeric_limits<double>::lowest();
  double y_low = x_low, y_high = x_high;  // exponents of ten

  explicit Axes(const Plot& plot) {
    for (const PlotSeries& series : plot.series) {
      for (const PlotPoint& point : series.points) {
        if (!shown(point)) continue;
        x_low = std::min(x_low, point.x);
        x_high = std::max(x_high, point.x);
        y_low = std::min(y_low, std::floor(std::log10(point.y)));
        y_high = std::max(y_high, std::ceil(std::log10(point.y)));
      }
    }
    if (x_low > x_high) x_low = y_low = 0, x_high = y_high = 1;
    x_low = std::floor(x_low);
    x_high = std::max(x_low + 1, std::ceil(x_high));
    y_high = std::max(y_low + 1, y_high);
  }
  double x(double value) const { return kLeft + (value - x_low) / (x_high - x_low) * (kWidth - kLeft - kRight); }
  double y(double value) const {
    return kHeight - kBottom - (std::log10(value) - y_low) / (y_high - y_low) * (kHeight - kTop - kBottom);
  }
};

std::string text_at(double x, double y, std::string_view anchor, int size, std::string_view text) {
  return format_text("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" font-size=\"{}\">{}</text>\n", x, y, anchor,
                     size, escaped(text));
}

std::string line(double x1, double y1, double x2, double y2, std::string_view color) {
  return format_text("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", x1, y1, x2, y2,
                     color);
}

// 1, 2, 5, 10, 20, ...
double tick_step(double range) {
  double step = 1;
  for (int i = 0; range / step > kMostTicks; ++i) step *= i % 3 == 1 ? 2.5 : 2;
  return step;
}

std::string grid(const Plot& plot, const Axes& axes) {
  std::string out;
  const double right = kWidth - kRight, bottom = kHeight - kBottom;
  const double spacing = tick_step(axes.x_high - axes.x_low);
  for (double tick = axes.x_low; tick <= axes.x_high + 1e-9; tick += spacing) {
    out += line(axes.x(tick), kTop, axes.x(tick), bottom, "#ddd");
    out += text_at(axes.x(tick), bottom + 18, "middle", 12, format_text("{:.0f}", tick));
  }
  for (double exponent = axes.y_low; exponent <= axes.y_high + 1e-9; exponent += 1) {
    for (const int step : {1, 2, 5}) {
      const double value = step * std::pow(10.0, exponent);
      if (std::log10(value) > axes.y_high + 1e-9) continue;
      out += line(kLeft, axes.y(value), right, axes.y(value), step == 1 ? "#ccc" : "#eee");
      out += text_at(kLeft - 6, axes.y(value) + 4, "end", 11, format_text("{:g}", value));
    }
  }
  out += text_at((kLeft + right) / 2, kHeight - 18, "middle", 14, plot.x_title);
  out += text_at((kLeft + right) / 2, 28, "middle", 16, plot.title);
  out += format_text(
      "<text transform=\"translate(20 {:.1f}) rotate(-90)\" text-anchor=\"middle\" font-size=\"14\">{}</text>\n",
      (kTop + bottom) / 2, escaped(plot.y_title));
  return out;
}

// Hollow on dashed lines.
std::string marker(double x, double y, std::string_view color, bool hollow) {
  return format_text("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\" stroke=\"{}\"/>\n", x, y,
                     hollow ? "white" : color, color);
}

std::string draw(const PlotSeries& series, const Axes& axes, std::string_view color) {
  std::vector<PlotPoint> points = series.points;
  std::erase_if(points, [](const PlotPoint& point) { return !shown(point); });
  std::ranges::stable_sort(points, {}, &PlotPoint::x);
  std::string path, out;
  for (const PlotPoint& point : points) {
    const double x = axes.x(point.x), y = axes.y(point.y);
    path += format_text("{}{:.1f},{:.1f}", path.empty() ? "" : " ", x, y);
    out += marker(x, y, color, series.dashed);
    if (!point.label.empty()) out += text_at(x + 6, y - 6, "start", 10, point.label);
  }
  return format_text("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"{}/>\n", path, color,
                     series.dashed ? " stroke-dasharray=\"6 4\"" : "") +
         out;
}

std::string panel(const Plot& plot) {
  const Axes axes(plot);
  std::string out = grid(plot, axes);
  for (std::size_t i = 0; i < plot.series.size(); ++i) {
    const std::size_t own = plot.series[i].color < 0 ? i : static_cast<std::size_t>(plot.series[i].color);
    const char* color = kColors[own % std::size(kColors)];
    out += draw(plot.series[i], axes, color);
    const double y = kTop + 20 * static_cast<double>(i);
    out += marker(kWidth - kRight + 20, y, color, plot.series[i].dashed);
    out += text_at(kWidth - kRight + 30, y + 4, "start", 12, plot.series[i].name);
  }
  return out;
}

}  // namespace

std::string to_svg(const Plot& plot) { return to_svg(std::span(&plot, 1)); }

std::string to_svg(std::span<const Plot> plots) {
  std::string out = format_text(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      kWidth, kHeight * static_cast<double>(plots.size()));
  for (std::size_t i = 0; i < plots.size(); ++i) {
    out += format_text("<g transform=\"translate(0 {:.0f})\">\n{}</g>\n", kHeight * static_cast<double>(i),
                       panel(plots[i]));
  }
  return out + "</svg>\n";
}

}  // namespace nibble::pipeline
