#include "container/hf/scheme.h"

#include <cmath>

#include "base/error.h"
#include "container/hf/static_inputs.h"

namespace nibble::container::hf {

namespace {

constexpr std::string_view kKey = "quantization_config";

// Null when there is none; a JSON null means the same.
const json::Value* quantization_of(const json::Value& config) {
  const json::Value* quantization = config.find(kKey);
  return quantization == nullptr || quantization->is_null() ? nullptr : quantization;
}

std::string method_of(const json::Value& quantization) {
  const std::string method = quantization.is_object() ? quantization.get("quant_method", "") : "";
  return method.empty() ? "unknown" : method;
}

const Scheme* find_scheme(std::string_view method) {
  for (const Scheme* scheme : all_entries()) {
    if (scheme->quant_method == method) return scheme;
  }
  return nullptr;
}

}  // namespace

void refuse_unread(const json::Value& config) {
  const json::Value* quantization = quantization_of(config);
  if (quantization == nullptr) return;
  with_context("config.json", [&] {
    const std::string method = method_of(*quantization);
    const Scheme* scheme = find_scheme(method);
    const std::string unread =
        scheme != nullptr ? with_context(kKey, [&] { return scheme->unread(*quantization); }) : "";
    if (scheme != nullptr && unread.empty()) return;
    fail(ErrorCode::kUnsupported,
         "a '{}' of method '{}'{}: such quantized folders are not read; take the unquantized model", kKey, method,
         unread.empty() ? "" : " with " + unread);
  });
}

const encoding::ActivationInfo* cache_rounding(const json::Value& config) {
  const json::Value* quantization = quantization_of(config);
  const Scheme* scheme = quantization != nullptr ? find_scheme(method_of(*quantization)) : nullptr;
  if (scheme == nullptr || scheme->cache == nullptr) return nullptr;
  return with_context("config.json", [&] { return with_context(kKey, [&] { return scheme->cache(*quantization); }); });
}

float cache_scale(const TensorEntry* entry, const std::string& name) {
  const double scale = read_number(entry, name, "the KV cache");
  if (!std::isfinite(scale) || scale <= 0)
    fail(ErrorCode::kFormat, "tensor '{}' scales the KV cache by {}, which is no positive number", name, scale);
  return static_cast<float>(scale);
}

void join_quantized(CheckpointContents& contents) {
  const json::Value* quantization = quantization_of(contents.config);
  if (quantization == nullptr) return;
  const Scheme* scheme = find_scheme(method_of(*quantization));
  if (scheme == nullptr) return;
  const bool read = with_context(
      "config.json", [&] { return with_context(kKey, [&] { return scheme->unread(*quantization).empty(); }); });
  if (read) scheme->join(*quantization, contents);
}

}  // namespace nibble::container::hf
