#include "base/checksum.h"

#include <xxhash.h>

namespace nibble {

std::uint64_t checksum(std::span<const std::byte> bytes) noexcept { return XXH64(bytes.data(), bytes.size(), 0); }

}  // namespace nibble
