// The numbers by which GGUF names tensor types (ggml_type) and metadata value types.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "encoding/encoding.h"

namespace nibble::container::gguf {

// Name of a ggml type in lower case, which is also its encoding's name; empty for a number nobody has used. Numbers of
// retired types and of forks are known, so that an error can name them.
std::string_view type_name(std::uint32_t id);
// The encoding of a type id; throws Error{kUnsupported} naming the type when there is none.
const encoding::EncodingInfo& encoding_of(std::uint32_t id);
// The type id of an encoding; nothing for encodings GGUF does not have.
std::optional<std::uint32_t> type_id(const encoding::EncodingInfo& encoding);

// GGUF's value type of each alternative of MetaValue, in the order of the variant.
inline constexpr std::array<std::uint32_t, 13> kValueTypes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 9};
inline constexpr std::uint32_t kArrayType = 9;

inline constexpr std::string_view kMagic = "GGUF";
inline constexpr std::uint32_t kVersion = 3;
inline constexpr std::uint32_t kDefaultAlignment = 32;
inline constexpr std::size_t kMaxNameBytes = 63;  // ggml keeps names in 64 bytes with a NUL
inline constexpr std::uint32_t kMaxDims = 4;
inline constexpr std::string_view kAlignmentKey = "general.alignment";
inline constexpr std::string_view kSplitNo = "split.no";
inline constexpr std::string_view kSplitCount = "split.count";
inline constexpr std::string_view kSplitTensors = "split.tensors.count";

}  // namespace nibble::container::gguf
