// Arithmetic on sizes that come from files: every overflow is an Error, never a wrapped number.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>

#include "base/error.h"

namespace nibble {

template <std::integral T>
T checked_add(T a, T b) {
  T result;
  if (__builtin_add_overflow(a, b, &result)) fail(ErrorCode::kFormat, "size overflow: {} + {}", a, b);
  return result;
}

template <std::integral T>
T checked_mul(T a, T b) {
  T result;
  if (__builtin_mul_overflow(a, b, &result)) fail(ErrorCode::kFormat, "size overflow: {} * {}", a, b);
  return result;
}

template <std::integral To, std::integral From>
To checked_cast(From value) {
  To result = static_cast<To>(value);
  if (static_cast<From>(result) != value || (result < To{}) != (value < From{})) {
    fail(ErrorCode::kFormat, "number {} is out of range", value);
  }
  return result;
}

// Smallest multiple of `alignment` (a power of two or any positive number) not below `value`.
template <std::integral T>
T checked_align(T value, T alignment) {
  const T rest = value % alignment;
  return rest == 0 ? value : checked_add(value, static_cast<T>(alignment - rest));
}

}  // namespace nibble
