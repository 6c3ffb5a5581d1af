// Reader of the protobuf wire format (protobuf.dev/programming-guides/encoding), bounded by the bytes it is given.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace nibble::token {

// Walks the fields of one message:  while (reader.next()) switch (reader.field()) ...
// Fields that are not asked for are skipped by next().
class ProtobufReader {
 public:
  explicit ProtobufReader(std::string_view bytes) : bytes_(bytes) {}

  bool next() {
    if (at_ == bytes_.size()) return false;
    const std::uint64_t key = varint();
    field_ = key >> 3;
    wire_type_ = static_cast<unsigned>(key & 7);
    if (field_ == 0) fail(ErrorCode::kFormat, "protobuf: field number 0 at offset {}", at_);
    switch (wire_type_) {
      case kVarint:
        value_ = varint();
        break;
      case kFixed64:
        data_ = take(8);
        break;
      case kBytes:
        data_ = take(varint());
        break;
      case kFixed32:
        data_ = take(4);
        break;
      default:
        fail(ErrorCode::kFormat, "protobuf: wire type {} at offset {}", wire_type_, at_);
    }
    return true;
  }

  std::uint64_t field() const { return field_; }
  std::uint64_t integer() const {
    expect(kVarint, "an integer");
    return value_;
  }
  int int32() const { return static_cast<int>(static_cast<std::uint32_t>(integer())); }
  bool boolean() const { return integer() != 0; }
  std::string_view bytes() const {
    expect(kBytes, "bytes");
    return data_;
  }
  float float32() const {
    expect(kFixed32, "a float");
    std::uint32_t bits = 0;
    for (int i = 3; i >= 0; --i) bits = bits << 8 | static_cast<unsigned char>(data_[static_cast<std::size_t>(i)]);
    return std::bit_cast<float>(bits);
  }

 private:
  static constexpr unsigned kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

  void expect(unsigned wire_type, std::string_view what) const {
    if (wire_type_ != wire_type) {
      fail(ErrorCode::kFormat, "protobuf: field {} before offset {} is no {} (wire type {})", field_, at_, what,
           wire_type_);
    }
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size())
        fail(ErrorCode::kFormat, "protobuf: the message ends inside a number at offset {}", at_);
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    fail(ErrorCode::kFormat, "protobuf: number of more than 10 bytes at offset {}", at_);
  }

  std::string_view take(std::uint64_t n_bytes) {
    if (n_bytes > bytes_.size() - at_) {
      fail(ErrorCode::kFormat, "protobuf: {} bytes wanted at offset {}, {} left", n_bytes, at_, bytes_.size() - at_);
    }
    const std::string_view part = bytes_.substr(at_, static_cast<std::size_t>(n_bytes));
    at_ += static_cast<std::size_t>(n_bytes);
    return part;
  }

  std::string_view bytes_;
  std::size_t at_ = 0;
  std::uint64_t field_ = 0;
  std::uint64_t value_ = 0;
  unsigned wire_type_ = 0;
  std::string_view data_;
};

}  // namespace nibble::token
