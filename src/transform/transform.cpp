#include "transform/transform.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace nibble::transform {

Chosen choose(std::string_view text) {
  const std::size_t colon = std::min(text.find(':'), text.size());
  const std::string_view name = text.substr(0, colon);
  std::string known;
  for (const Transform* entry : all_entries()) {
    known += (known.empty() ? "" : ", ") + std::string(entry->name);
    if (entry->name != name) continue;
    Chosen chosen{entry, std::string(text.substr(std::min(colon + 1, text.size())))};
    if (entry->check != nullptr) entry->check(chosen.settings);
    if (entry->check == nullptr && colon != text.size())
      fail(ErrorCode::kInvalidArgument, "transform '{}' has no settings, '{}' was given", name, chosen.settings);
    return chosen;
  }
  fail(ErrorCode::kInvalidArgument, "unknown transform '{}'; one of: {}", name, known);
}

}  // namespace nibble::transform
