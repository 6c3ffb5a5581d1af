#include "tensor/dtype.h"

#include <array>
#include <string>

namespace nibble {

namespace {
struct DtypeInfo {
  std::string_view name;
  std::size_t bytes;
  bool is_float;
};
// In the order of the enum.
constexpr std::array<DtypeInfo, 16> kDtypes = {{{"f64", 8, true},
                                                {"f32", 4, true},
                                                {"f16", 2, true},
                                                {"bf16", 2, true},
                                                {"f8_e4m3", 1, true},
                                                {"f8_e5m2", 1, true},
                                                {"f8_e8m0", 1, true},
                                                {"i64", 8, false},
                                                {"i32", 4, false},
                                                {"i16", 2, false},
                                                {"i8", 1, false},
                                                {"u64", 8, false},
                                                {"u32", 4, false},
                                                {"u16", 2, false},
                                                {"u8", 1, false},
                                                {"bool", 1, false}}};
}  // namespace

std::size_t dtype_bytes(Dtype dtype) { return kDtypes[static_cast<std::size_t>(dtype)].bytes; }
std::string_view dtype_name(Dtype dtype) { return kDtypes[static_cast<std::size_t>(dtype)].name; }
bool dtype_is_float(Dtype dtype) { return kDtypes[static_cast<std::size_t>(dtype)].is_float; }

std::optional<Dtype> parse_dtype(std::string_view name) {
  std::string lower;
  for (char c : name) lower += c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  for (std::size_t i = 0; i < kDtypes.size(); ++i) {
    if (kDtypes[i].name == lower) return static_cast<Dtype>(i);
  }
  return std::nullopt;
}

}  // namespace nibble
