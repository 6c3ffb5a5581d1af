#include "pipeline/adapters.h"

#include <charconv>
#include <cmath>
#include <filesystem>

#include "base/error.h"

namespace nibble::pipeline {

namespace {

// Splits the scale off.
double take_scale(std::string& path) {
  const std::size_t colon = path.rfind(':');
  std::error_code ignored;
  if (colon == path.npos || std::filesystem::exists(path, ignored)) return 1;
  double scale = 0;
  const char* end = path.data() + path.size();
  const auto result = std::from_chars(path.data() + colon + 1, end, scale);
  if (result.ec != std::errc{} || result.ptr != end) return 1;
  if (!std::isfinite(scale)) fail(ErrorCode::kInvalidArgument, "'{}': the scale of an adapter is a number", path);
  path.resize(colon);
  return scale;
}

}  // namespace

std::vector<model::LoraAdapter> load_adapters(std::span<const std::string> texts, const model::ModelSource& base) {
  std::vector<model::LoraAdapter> adapters;
  for (std::string path : texts) {
    const double scale = take_scale(path);
    adapters.push_back(model::load_lora(path, base));
    adapters.back().scale_by(scale);
  }
  return adapters;
}

void report_adapters(std::span<const std::string> texts, json::Value& object, std::string& text) {
  if (texts.empty()) return;
  json::Array array;
  for (const std::string& adapter : texts) {
    array.emplace_back(adapter);
    text += format_text("with adapter {}\n", adapter);
  }
  object.set("adapters", std::move(array));
}

Rewrite merging(const std::vector<std::string>& texts) {
  if (texts.empty()) return {};
  return [texts](std::shared_ptr<const model::ModelSource> base) {
    const std::vector<model::LoraAdapter> adapters = load_adapters(texts, *base);
    return model::merge_lora(std::move(base), adapters);
  };
}

}  // namespace nibble::pipeline
