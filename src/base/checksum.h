// A checksum of bytes in memory, for files of our own that are read again: finds damage, not intent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nibble {

// XXH64 with seed 0 (xxHash specification 0.1.1).
std::uint64_t checksum(std::span<const std::byte> bytes) noexcept;

}  // namespace nibble
