#include "container/hf/static_inputs.h"

#include <cstring>

#include "base/error.h"

namespace nibble::container::hf {

double read_number(const TensorEntry* entry, const std::string& name, std::string_view what) {
  if (entry == nullptr) fail(ErrorCode::kFormat, "tensor '{}' is not there, which scales {}", name, what);
  const TensorView& view = entry->view;
  const bool integer = view.encoding->name == "i8" || view.encoding->name == "i32";
  if (view.encoding->family != encoding::Family::kPlain || view.shape.elements() != 1 ||
      (view.encoding->decode == nullptr && !integer))
    fail(ErrorCode::kFormat, "tensor '{}' is {} of shape {}, not one number", name, view.encoding->name,
         view.shape.to_string());
  if (view.encoding->name == "i8") return static_cast<std::int8_t>(view.data()[0]);
  if (integer) {
    std::int32_t value;
    std::memcpy(&value, view.data().data(), sizeof(value));
    return value;
  }
  float value;
  view.encoding->decode(view.data().data(), &value, 1);
  return static_cast<double>(value);
}

InputRounding read_inputs(TensorJoin& joined, const encoding::ActivationInfo& info, const StaticInputs& at) {
  InputRounding rounding{&info};
  if (!info.is_static()) return rounding;
  const auto take = [&](const std::string& name) {
    const TensorEntry* entry = joined.find(name);
    const double value = read_number(entry, name, "inputs");
    joined.absorb(*entry);
    return value;
  };
  rounding.scale = static_cast<float>(take(at.scale));
  const bool has_zero = !at.zero.empty() && joined.find(at.zero) != nullptr;
  // Symmetric ones may have a zero point beside them, which says nothing.
  const double zero = has_zero || !info.symmetric ? take(at.zero) : 0;
  if (!info.symmetric) rounding.zero = static_cast<int>(zero) + at.zero_offset;
  with_context(format_text("tensor '{}'", at.scale), [&] { encoding::check_rounding(rounding); });
  return rounding;
}

}  // namespace nibble::container::hf
