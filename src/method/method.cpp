#include "base/error.h"
#include "method/quantizer.h"

namespace nibble::method {

const Method& get(std::string_view name) {
  std::string known;
  for (const Method* method : all_entries()) {
    if (method->name == name) return *method;
    known += known.empty() ? "" : ", ";
    known += method->name;
  }
  fail(ErrorCode::kInvalidArgument, "no method '{}' (there are: {})", name, known);
}

const Method& default_for(const encoding::EncodingInfo& target) {
  for (const std::string_view name : {"search", "kmeans"}) {
    if (get(name).supports(target)) return get(name);
  }
  return get("rtn");
}

}  // namespace nibble::method
