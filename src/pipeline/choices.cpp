#include "pipeline/choices.h"

#include <algorithm>

#include "base/error.h"
#include "base/near_names.h"

namespace nibble::pipeline {

model::KvType parse_kv_type(std::string_view name) {
  const std::span<const std::string_view> names = model::kv_type_names();
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) {
    fail(ErrorCode::kInvalidArgument, "unknown KV cache type '{}'; near it: {}", name, near_names(name, names, 3));
  }
  return static_cast<model::KvType>(found - names.begin());
}

model::KvType choose_kv_type(std::string_view name, const model::ModelSpec& spec, model::MathPath path) {
  return name.empty() ? model::default_kv_type(spec, path) : parse_kv_type(name);
}

std::string kv_type_list() {
  std::string list;
  for (const std::string_view name : model::kv_type_names()) list += (list.empty() ? "" : ", ") + std::string(name);
  return list;
}

}  // namespace nibble::pipeline
