#include "encoding/affine.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/checked.h"
#include "encoding/block_fit.h"
#include "encoding/interned.h"
#include "encoding/name_text.h"
#include "tensor/half.h"

namespace nibble::encoding {

namespace {

constexpr std::int64_t kMaxGroup = 1 << 20;
constexpr std::int64_t kMostKept = 4096;
constexpr std::string_view kIndexSuffix = "-gidx";

std::string canonical_name(const AffineParams& params) {
  std::string name = format_text("int{}", params.bits);
  if (params.granularity == Granularity::kTensor) name += "-tensor";
  if (params.granularity == Granularity::kChannel) name += "-channel";
  if (params.granularity == Granularity::kGroup) name += format_text("-g{}", params.group);
  if (params.group_index) name += kIndexSuffix;
  if (params.kept > 0) name += format_text("-kept{}", params.kept);
  if (!params.symmetric) {
    name += "-asym";
  } else {
    static constexpr std::array<std::string_view, 4> kSuffix = {"-restricted", "", "-ct", "-awq"};  // by SymmetricRule
    name += kSuffix[static_cast<std::size_t>(params.rule)];
  }
  if (params.scale_dtype == Dtype::kF16) name += "-f16";
  if (params.scale_dtype == Dtype::kBf16) name += "-bf16";
  return name;
}

bool in_family(const AffineParams& params) {
  if (params.bits < 2 || params.bits > 8) return false;
  if (params.granularity == Granularity::kGroup && (params.group < 1 || params.group > kMaxGroup)) return false;
  if (params.kept < 0 || params.kept > kMostKept || (params.kept > 0 && params.group_index)) return false;
  return params.scale_dtype == Dtype::kF32 || params.scale_dtype == Dtype::kF16 || params.scale_dtype == Dtype::kBf16;
}

EncodingInfo describe(const AffineParams& params) {
  EncodingInfo info;
  info.name = canonical_name(params);
  info.family = Family::kAffine;
  info.dtype = Dtype::kU8;
  info.affine = params;
  info.bits_per_weight = params.bits;
  if (params.granularity == Granularity::kGroup) {
    const double constants =
        8.0 * static_cast<double>(dtype_bytes(params.scale_dtype)) + (params.symmetric ? 0.0 : 8.0);
    info.bits_per_weight += constants / static_cast<double>(params.group);
  }
  return info;
}

std::optional<AffineParams> parse(std::string_view text) {
  const std::string_view name = text;
  AffineParams params;
  std::int64_t bits = 0;
  if (!take(text, "int") || !take_number(text, bits) || bits < 2 || bits > 8) return std::nullopt;
  params.bits = static_cast<int>(bits);
  if (take(text, "-tensor")) {
    params.granularity = Granularity::kTensor;
  } else if (take(text, "-channel")) {
    params.granularity = Granularity::kChannel;
  } else if (take(text, "-g")) {
    params.granularity = Granularity::kGroup;
    if (!take_number(text, params.group)) return std::nullopt;
    params.group_index = take(text, kIndexSuffix);
  } else {
    return std::nullopt;
  }
  if (take(text, "-kept") && !take_number(text, params.kept)) return std::nullopt;
  if (take(text, "-asym")) {
    params.symmetric = false;
  } else if (take(text, "-restricted")) {
    params.rule = SymmetricRule::kRestricted;
  } else if (take(text, "-awq")) {
    params.rule = SymmetricRule::kAwq;
  } else if (take(text, "-ct")) {
    params.rule = SymmetricRule::kHalf;
  }
  if (take(text, "-f16")) {
    params.scale_dtype = Dtype::kF16;
  } else if (take(text, "-bf16")) {
    params.scale_dtype = Dtype::kBf16;
  }
  // Canonical names only: no "int04", no "g0128", nothing behind.
  if (!text.empty() || !in_family(params) || canonical_name(params) != name) return std::nullopt;
  return params;
}

const EncodingInfo& intern(const AffineParams& params) {
  return interned(canonical_name(params), [&] { return describe(params); });
}

// 8 codes take `bits` bytes; packing and unpacking go by such octets, the last one maybe short.
// Spreads the codes of an octet over 8 bytes: its upper four move first, then the upper two of each four, then one of
// each two. Bits beyond the octet are dropped.
template <int kBits>
std::uint64_t spread(std::uint64_t word) {
  constexpr std::uint64_t kFour = (std::uint64_t{1} << (4 * kBits)) - 1;
  constexpr std::uint64_t kTwo = ((std::uint64_t{1} << (2 * kBits)) - 1) * 0x0000000100000001u;
  constexpr std::uint64_t kOne = ((std::uint64_t{1} << kBits) - 1) * 0x0001000100010001u;
  word = (word & kFour) | (word >> (4 * kBits) & kFour) << 32;
  word = (word & kTwo) | (word >> (2 * kBits) & kTwo) << 16;
  return (word & kOne) | (word >> kBits & kOne) << 8;
}

template <int kBits>
void unpack_bits(const std::byte* src, std::int64_t cols, std::uint8_t* stored) {
  std::int64_t at = 0;
  for (; at + 8 <= cols; at += 8, src += kBits) {
    std::uint64_t word = 0;
    if ((cols - at) * kBits >= 64) {  // one load, where the row goes on for so long
      std::memcpy(&word, src, 8);
    } else {
      std::memcpy(&word, src, kBits);
    }
    word = spread<kBits>(word);
    std::memcpy(stored + at, &word, 8);
  }
  if (at == cols) return;
  std::uint64_t word = 0;
  std::memcpy(&word, src, static_cast<std::size_t>(((cols - at) * kBits + 7) / 8));
  word = spread<kBits>(word);
  std::memcpy(stored + at, &word, static_cast<std::size_t>(cols - at));
}

float largest_scale(Dtype dtype) {
  if (dtype == Dtype::kF16) return 65504.0f;
  if (dtype == Dtype::kBf16) return bf16_to_f32(0x7F7F);
  return std::numeric_limits<float>::max();
}

float symmetric_scale(const AffineParams& params, float magnitude) {
  const float levels = static_cast<float>((1 << params.bits) - 1);  // of a code with 2^b values
  const float half = static_cast<float>((1 << (params.bits - 1)) - 1);
  switch (params.rule) {
    case SymmetricRule::kFull:
      return 2.0f * magnitude / levels;
    case SymmetricRule::kHalf:
      return magnitude / (levels / 2.0f);
    case SymmetricRule::kRestricted:
    case SymmetricRule::kAwq:
      break;
  }
  return magnitude / half;
}

}  // namespace

const EncodingInfo* find_affine(std::string_view name) {
  const auto params = parse(name);
  return params ? &intern(*params) : nullptr;
}

const EncodingInfo& affine_encoding(const AffineParams& params) {
  AffineParams canonical = params;
  canonical.least_zero = 0;
  if (canonical.granularity != Granularity::kGroup) {
    canonical.group = 0;
    canonical.group_index = false;
  }
  if (!canonical.symmetric) canonical.rule = AffineParams{}.rule;
  if (!in_family(canonical)) {
    fail(ErrorCode::kInvalidArgument, "no affine encoding of {} bits with groups of {} and scales in {}",
         canonical.bits, canonical.group, dtype_name(canonical.scale_dtype));
  }
  return intern(canonical);
}

const EncodingInfo& without_kept(const EncodingInfo& info) {
  if (info.family != Family::kAffine || info.affine.kept == 0) return info;
  AffineParams params = info.affine;
  params.kept = 0;
  return affine_encoding(params);
}

CodeRange code_range(const AffineParams& params) {
  const int half = 1 << (params.bits - 1);
  if (!params.symmetric) return {0, 2 * half - 1};
  return {params.rule == SymmetricRule::kRestricted ? 1 - half : -half, half - 1};
}

int stored_offset(const AffineParams& params) { return params.symmetric ? 1 << (params.bits - 1) : 0; }

std::int64_t group_columns(const AffineParams& params, std::int64_t cols) {
  return params.granularity == Granularity::kGroup ? params.group : std::max<std::int64_t>(cols, 1);
}

std::int64_t groups_per_row(const AffineParams& params, std::int64_t cols) {
  const std::int64_t group = group_columns(params, cols);
  return std::max<std::int64_t>((cols - 1) / group + 1, 1);
}

std::uint64_t row_code_bytes(const AffineParams& params, std::int64_t cols) {
  const auto bits = checked_mul(static_cast<std::uint64_t>(cols), static_cast<std::uint64_t>(params.bits));
  return bits / 8 + (bits % 8 != 0 ? 1 : 0);
}

Shape scales_shape(const AffineParams& params, const Shape& shape) {
  if (params.granularity == Granularity::kTensor) return {1};
  if (params.granularity == Granularity::kChannel) return {shape.rows()};
  return {shape.rows(), groups_per_row(params, shape.cols())};
}

float round_scale(Dtype dtype, float scale) {
  const float held = std::min(scale, largest_scale(dtype));
  if (dtype == Dtype::kF16) return f16_to_f32(f32_to_f16(held));
  if (dtype == Dtype::kBf16) return bf16_to_f32(f32_to_bf16(held));
  return held;
}

std::int64_t group_of_column(const AffineParams& params, std::int64_t cols, const std::byte* index, std::int64_t col) {
  if (index == nullptr) return col / group_columns(params, cols);
  std::int32_t group;
  std::memcpy(&group, index + 4 * col, 4);
  return group;
}

std::vector<std::int32_t> columns_by_group(const TensorView& view) {
  const AffineParams& params = view.encoding->affine;
  const std::byte* index = params.group_index ? view.part(PartRole::kGroupIndex).bytes.data() : nullptr;
  const auto group = [&](std::int64_t c) {
    return static_cast<std::size_t>(group_of_column(params, view.cols(), index, c));
  };
  std::vector<std::int32_t> next(static_cast<std::size_t>(groups_per_row(params, view.cols())) + 1);
  for (std::int64_t c = 0; c < view.cols(); ++c) ++next[group(c) + 1];
  std::partial_sum(next.begin(), next.end(), next.begin());
  std::vector<std::int32_t> columns(static_cast<std::size_t>(view.cols()));
  for (std::int64_t c = 0; c < view.cols(); ++c)
    columns[static_cast<std::size_t>(next[group(c)]++)] = static_cast<std::int32_t>(c);
  return columns;
}

bool has_even_groups(const TensorView& view) {
  const AffineParams& params = view.encoding->affine;
  if (view.encoding->family != Family::kAffine || !params.group_index) return true;
  const std::byte* index = view.part(PartRole::kGroupIndex).bytes.data();
  std::int64_t at = 0;
  for (const std::int32_t column : columns_by_group(view)) {
    if (group_of_column(params, view.cols(), index, column) != at++ / params.group) return false;
  }
  return true;
}

ScaleZero scale_of_range(const AffineParams& params, float lowest, float highest) {
  if (params.symmetric) {
    const float magnitude = std::max(std::fabs(lowest), std::fabs(highest));
    return {round_scale(params.scale_dtype, symmetric_scale(params, magnitude)), 0};
  }
  const float low = std::min(lowest, 0.0f);
  const float high = std::max(highest, 0.0f);
  const int levels = (1 << params.bits) - 1;
  const float range = std::min(high - low, std::numeric_limits<float>::max());
  const float scale = round_scale(params.scale_dtype, range / static_cast<float>(levels));
  if (scale == 0) return {0, params.least_zero};
  const float zero = std::nearbyint(-low / scale);
  const auto least = static_cast<float>(params.least_zero);
  if (zero < least) {  // widened downwards, so that it is there
    AffineParams free = params;
    free.least_zero = 0;
    ScaleZero at = scale_of_range(free, -high * least / (static_cast<float>(levels) - least), high);
    at.zero = std::max(at.zero, params.least_zero);
    return at;
  }
  return {scale, static_cast<int>(std::min(zero, static_cast<float>(levels)))};
}

int nearest_code(const AffineParams& params, float value, const ScaleZero& at) {
  if (at.scale == 0 || std::isnan(value)) return at.zero;
  const CodeRange range = code_range(params);
  // Held first so that rounding never meets a number too large for it; 512 is beyond every code.
  const int steps = nearest_int(std::clamp(value / at.scale, -512.0f, 512.0f));
  return std::clamp(steps + at.zero, range.min, range.max);
}

void pack_codes(int bits, const std::uint8_t* stored, std::int64_t cols, std::byte* dst) noexcept {
  for (std::int64_t at = 0; at < cols; at += 8, dst += bits) {
    const std::int64_t n = std::min<std::int64_t>(8, cols - at);
    std::uint64_t word = 0;
    for (std::int64_t i = 0; i < n; ++i) word |= static_cast<std::uint64_t>(stored[at + i]) << (i * bits);
    std::memcpy(dst, &word, static_cast<std::size_t>((n * bits + 7) / 8));
  }
}

void unpack_codes(int bits, const std::byte* src, std::int64_t cols, std::uint8_t* stored) noexcept {
  using Unpack = void (*)(const std::byte*, std::int64_t, std::uint8_t*);
  static constexpr std::array<Unpack, 7> kByBits = {unpack_bits<2>, unpack_bits<3>, unpack_bits<4>, unpack_bits<5>,
                                                    unpack_bits<6>, unpack_bits<7>, unpack_bits<8>};
  kByBits[static_cast<std::size_t>(bits - 2)](src, cols, stored);
}

ScaleZero load_scale_zero(const AffineParams& params, const std::byte* scales, const std::byte* zeros,
                          std::int64_t index) {
  ScaleZero at;
  if (params.scale_dtype == Dtype::kF32) {
    std::memcpy(&at.scale, scales + 4 * index, 4);
  } else {
    std::uint16_t half;
    std::memcpy(&half, scales + 2 * index, 2);
    at.scale = params.scale_dtype == Dtype::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
  }
  if (!params.symmetric) at.zero = std::to_integer<int>(zeros[index]);
  return at;
}

void store_scale_zero(const AffineParams& params, const ScaleZero& at, std::byte* scales, std::byte* zeros,
                      std::int64_t index) {
  if (params.scale_dtype == Dtype::kF32) {
    std::memcpy(scales + 4 * index, &at.scale, 4);
  } else {
    const std::uint16_t half = params.scale_dtype == Dtype::kF16 ? f32_to_f16(at.scale) : f32_to_bf16(at.scale);
    std::memcpy(scales + 2 * index, &half, 2);
  }
  if (!params.symmetric) zeros[index] = static_cast<std::byte>(at.zero);
}

void quantize_row(const AffineParams& params, const float* row, std::int64_t cols, const ScaleZero* groups,
                  std::byte* codes) {
  const std::int64_t group = group_columns(params, cols);
  const int offset = stored_offset(params);
  std::array<std::uint8_t, 8> stored;
  for (std::int64_t at = 0; at < cols; at += 8, codes += params.bits) {
    const std::int64_t n = std::min<std::int64_t>(8, cols - at);
    for (std::int64_t i = 0; i < n; ++i) {
      const int code = nearest_code(params, row[at + i], groups[(at + i) / group]);
      stored[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(code + offset);
    }
    pack_codes(params.bits, stored.data(), n, codes);
  }
}

}  // namespace nibble::encoding
