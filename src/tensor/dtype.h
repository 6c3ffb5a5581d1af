// Scalar number types as files name them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace nibble {

enum class Dtype : std::uint8_t {
  kF64,
  kF32,
  kF16,
  kBf16,
  kF8E4m3,
  kF8E5m2,
  kF8E8m0,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,
};

std::size_t dtype_bytes(Dtype dtype);
std::string_view dtype_name(Dtype dtype);                 // "f32", "bf16", "f8_e4m3", ... as safetensors, in lower case
std::optional<Dtype> parse_dtype(std::string_view name);  // either case
bool dtype_is_float(Dtype dtype);

}  // namespace nibble
