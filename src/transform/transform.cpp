#include "transform/transform.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace nibble::transform {

const Transform& get(std::string_view name) {
  std::string known;
  for (const Transform* entry : all_entries()) {
    if (entry->name == name) return *entry;
    known += (known.empty() ? "" : ", ") + std::string(entry->name);
  }
  fail(ErrorCode::kInvalidArgument, "unknown transform '{}'; one of: {}", name, known);
}

}  // namespace nibble::transform
