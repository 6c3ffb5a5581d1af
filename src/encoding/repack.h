// Codes that two encodings share, moved from the order of one to that of the other: integers and GGUF's blocks of them,
// MXFP4.
#pragma once

#include <cstdint>

#include "encoding/encoding.h"

namespace nibble::encoding {

// Do the codes of a tensor fit `to` as they are, and its scales, too? kRounded: the scales take f16, or, of asymmetric
// integers, the minima do, -scale * zero: either is off by at most 2^-11 of itself.
enum class Repacking : std::uint8_t { kNo, kRounded, kExact };
Repacking repacking(const TensorView& view, const EncodingInfo& to);
// Moves one row, unless that is kNo.
void repack_row(const TensorView& view, std::int64_t row, const EncodingInfo& to, const RowParts& out);

}  // namespace nibble::encoding
