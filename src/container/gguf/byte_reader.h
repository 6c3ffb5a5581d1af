// Little-endian reading from bounded bytes: every step past the end is an Error that names the offset.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "base/error.h"

namespace nibble::container::gguf {

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::uint64_t offset() const { return offset_; }
  std::uint64_t remaining() const { return bytes_.size() - offset_; }

  std::span<const std::byte> take(std::uint64_t n_bytes) {
    if (n_bytes > remaining()) {
      fail(ErrorCode::kFormat, "at offset {}: {} bytes are needed, the file ends after {}", offset_, n_bytes,
           remaining());
    }
    const auto result = bytes_.subspan(offset_, n_bytes);
    offset_ += n_bytes;
    return result;
  }

  template <typename T>
  requires std::is_arithmetic_v<T> T read() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  // A GGUF string: 64-bit length and that many bytes.
  std::string_view read_string() {
    const auto length = read<std::uint64_t>();
    const auto bytes = take(length);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  std::uint64_t offset_ = 0;
};

}  // namespace nibble::container::gguf
