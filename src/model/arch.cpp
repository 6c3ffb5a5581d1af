#include "model/arch.h"

#include <algorithm>

#include "base/error.h"

namespace nibble::model {

namespace {

// "a, b, c" without repeats, for messages.
template <typename Names>
std::string known(Names&& names_of) {
  std::string list;
  std::vector<std::string_view> seen;
  for (const Arch* arch : all_entries()) {
    for (const std::string_view name : names_of(*arch)) {
      if (std::ranges::find(seen, name) != seen.end()) continue;
      seen.push_back(name);
      list += (list.empty() ? "" : ", ") + std::string(name);
    }
  }
  return list;
}

}  // namespace

const Arch& arch_by_name(std::string_view name) {
  for (const Arch* arch : all_entries()) {
    if (arch->name == name) return *arch;
  }
  fail(ErrorCode::kUnsupported, "architecture '{}' is not known; known are: {}", name,
       known([](const Arch& arch) { return std::span(&arch.name, 1); }));
}

const Arch& arch_by_model_type(std::string_view hf_model_type) {
  for (const Arch* arch : all_entries()) {
    if (std::ranges::find(arch->hf_model_types, hf_model_type) != arch->hf_model_types.end()) return *arch;
  }
  fail(ErrorCode::kUnsupported, "model type '{}' is not known; known are: {}", hf_model_type,
       known([](const Arch& arch) { return arch.hf_model_types; }));
}

}  // namespace nibble::model
