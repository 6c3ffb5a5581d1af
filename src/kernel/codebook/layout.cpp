#include "kernel/codebook/layout.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "encoding/affine.h"
#include "encoding/codebook.h"
#include "tensor/half.h"

namespace nibble::kernel::codebook {

namespace {

using encoding::CodebookParams;

constexpr int kRun = 16;  // columns whose codes lie in consecutive bytes

// Where the codes of a run of columns of one row lie: their low bits, and of three bits the high ones.
struct Place {
  std::int64_t low_at;
  int low_bit;
  std::int64_t high_at;
  int high_bit;
};

Place place_of(int bits, int lane, std::int64_t col) {
  const std::int64_t strip_cols = std::int64_t{kBlock} * strip_blocks(bits);
  const int run = static_cast<int>(col % strip_cols / kRun);
  const int half = lane / 8, pair = lane % 4, side = lane % 8 / 4, plane = kPairs * kVectorBytes;
  const std::int64_t base = col / strip_cols * strip_bytes(bits) + (pair * 2 + half) * kVectorBytes + side * kRun;
  if (bits == 4) return {base, run * 4, 0, 0};
  if (bits == 2) return {base, run * 2, 0, 0};
  return {base + run / 4 * plane, run % 4 * 2, base + 2 * plane, run};
}

// Adds the codes of a run to zeroed bytes.
void store_run(int bits, int lane, std::int64_t col, const std::uint8_t* code, std::uint8_t* codes) {
  const Place place = place_of(bits, lane, col);
  const int mask = bits == 4 ? 15 : 3;
  std::uint8_t* low = codes + place.low_at;
  for (int i = 0; i < kRun; ++i) low[i] = static_cast<std::uint8_t>(low[i] | (code[i] & mask) << place.low_bit);
  if (bits != 3) return;
  std::uint8_t* high = codes + place.high_at;
  for (int i = 0; i < kRun; ++i) high[i] = static_cast<std::uint8_t>(high[i] | code[i] >> 2 << place.high_bit);
}

void load_run(int bits, int lane, std::int64_t col, const std::uint8_t* codes, std::uint8_t* code) {
  const Place place = place_of(bits, lane, col);
  const int mask = bits == 4 ? 15 : 3;
  const std::uint8_t* low = codes + place.low_at;
  for (int i = 0; i < kRun; ++i) code[i] = static_cast<std::uint8_t>(low[i] >> place.low_bit & mask);
  if (bits != 3) return;
  const std::uint8_t* high = codes + place.high_at;
  for (int i = 0; i < kRun; ++i) code[i] = static_cast<std::uint8_t>(code[i] | (high[i] >> place.high_bit & 1) << 2);
}

// The codes of a row of the tensor.
void read_codes(const TensorView& weights, std::int64_t row, std::uint8_t* code) {
  const CodebookParams& params = weights.encoding->codebook;
  const std::int64_t cols = weights.cols();
  const std::byte* codes = weights.data().data();
  if (!encoding::has_blocks(params)) {
    const std::uint64_t stride = encoding::codebook_row_bytes(params, cols);
    return encoding::unpack_codes(params.bits, codes + static_cast<std::uint64_t>(row) * stride, cols, code);
  }
  // Rows of whole blocks begin with a byte.
  const std::byte* at = codes + row * cols / 2;
  for (std::int64_t c = 0; c < cols; c += 2, ++at) {
    code[c] = static_cast<std::uint8_t>(std::to_integer<int>(*at) >> 4);
    code[c + 1] = static_cast<std::uint8_t>(std::to_integer<int>(*at) & 15);
  }
}

void store_f32(float value, std::byte* dst) { std::memcpy(dst, &value, 4); }

// What a level of 1 is where the largest takes 15 bits: a power of two.
float level_scale(const float* centroids, int n) {
  float largest = 0;
  for (int i = 0; i < n; ++i) largest = std::max(largest, std::fabs(centroids[i]));
  return largest > 0 ? std::ldexp(1.0f, std::ilogb(largest) - 14) : 1.0f;
}

// The scale, and of kmeans the centroids, of one group of a row.
void pack_group(const TensorView& weights, const Geometry& geometry, std::int64_t row, std::int64_t group, int lane,
                std::byte* dst) {
  if (geometry.levels != Levels::kCentroids) {
    const std::int64_t element = row * weights.cols() + group * geometry.group_blocks * kBlock;
    const float scale = encoding::block_scale(weights, element / weights.encoding->codebook.block);
    return store_f32(scale, dst + lane * 4);
  }
  const int n = 1 << geometry.bits;
  float centroids[kMaxLevels];
  encoding::load_centroids(weights, row, group, centroids);
  store_f32(level_scale(centroids, n), dst + lane * 4);
  const int table = geometry.table_rows == 1 ? 0 : lane;
  convert_f32_to_f16(centroids, dst + kPanelRows * 4 + table * n * 2, n);
}

}  // namespace

bool accepts(const encoding::EncodingInfo& info, std::int64_t cols) {
  if (info.family != encoding::Family::kCodebook || cols <= 0 || cols % kBlock != 0) return false;
  return encoding::has_blocks(info.codebook) || encoding::centroid_columns(info.codebook, cols) % kBlock == 0;
}

Geometry geometry_of(const encoding::EncodingInfo& info, std::int64_t cols) {
  const CodebookParams& params = info.codebook;
  Geometry geometry{};
  geometry.levels = params.kind == encoding::CodebookKind::kNf4   ? Levels::kNf4
                    : params.kind == encoding::CodebookKind::kFp4 ? Levels::kFp4
                                                                  : Levels::kCentroids;
  geometry.bits = params.bits;
  geometry.blocks = cols / kBlock;
  const bool fixed = geometry.levels != Levels::kCentroids;
  geometry.table_rows = fixed ? 0 : params.granularity == encoding::Granularity::kTensor ? 1 : kPanelRows;
  // Blocks of the flattened tensor begin anywhere in a row, but at a multiple of what the two lengths share.
  const std::int64_t group = fixed ? std::gcd(cols, params.block) : encoding::centroid_columns(params, cols);
  geometry.group_blocks = group / kBlock;
  geometry.group_bytes = kPanelRows * 4 + std::int64_t{geometry.table_rows} * (2 << params.bits);
  const std::int64_t groups = (geometry.blocks - 1) / geometry.group_blocks + 1;
  geometry.codes_at = (groups * geometry.group_bytes + 63) / 64 * 64;
  const std::int64_t strips = (geometry.blocks - 1) / strip_blocks(params.bits) + 1;
  geometry.bytes = geometry.codes_at + strips * strip_bytes(params.bits);
  return geometry;
}

std::uint64_t packed_bytes(const MatrixInfo& matrix) {
  const auto panels = static_cast<std::uint64_t>((matrix.rows + kPanelRows - 1) / kPanelRows);
  return checked_mul(panels, static_cast<std::uint64_t>(geometry_of(*matrix.encoding, matrix.cols).bytes));
}

void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed) {
  const std::int64_t cols = weights.cols();
  const Geometry geometry = geometry_of(*weights.encoding, cols);
  std::vector<std::uint8_t> code(static_cast<std::size_t>(cols));
  for (std::int64_t first = row_begin; first < row_end; first += kPanelRows) {
    std::byte* panel = packed + first / kPanelRows * geometry.bytes;
    std::memset(panel, 0, static_cast<std::size_t>(geometry.bytes));
    auto* codes = reinterpret_cast<std::uint8_t*>(panel + geometry.codes_at);
    const int rows = static_cast<int>(std::min<std::int64_t>(kPanelRows, row_end - first));
    for (int lane = 0; lane < rows; ++lane) {
      const std::int64_t row = row_map != nullptr ? row_map[first + lane] : first + lane;
      if (encoding::find_not_finite(weights, row, row + 1) == row)
        fail(ErrorCode::kFormat, "row {} holds a scale or a centroid that is NaN or infinite", row);
      for (std::int64_t g = 0; g * geometry.group_blocks < geometry.blocks; ++g)
        pack_group(weights, geometry, row, g, lane, panel + g * geometry.group_bytes);
      read_codes(weights, row, code.data());
      for (std::int64_t c = 0; c < cols; c += kRun) store_run(geometry.bits, lane, c, code.data() + c, codes);
    }
  }
}

void load_codes(const Geometry& geometry, const std::uint8_t* codes, int lane, std::int64_t begin, std::int64_t end,
                std::uint8_t* code) noexcept {
  for (std::int64_t c = begin * kBlock; c < end * kBlock; c += kRun, code += kRun)
    load_run(geometry.bits, lane, c, codes, code);
}

void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept {
  const CodebookParams& params = matrix.encoding->codebook;
  const Geometry geometry = geometry_of(*matrix.encoding, matrix.cols);
  const std::byte* panel = packed + row / kPanelRows * geometry.bytes;
  const auto* codes = reinterpret_cast<const std::uint8_t*>(panel + geometry.codes_at);
  const int lane = static_cast<int>(row % kPanelRows), n = 1 << geometry.bits;
  for (std::int64_t b = 0; b < geometry.blocks; ++b) {
    const std::byte* group = panel + b / geometry.group_blocks * geometry.group_bytes;
    std::uint8_t code[kBlock];
    load_codes(geometry, codes, lane, b, b + 1, code);
    float levels[kMaxLevels];
    float scale = 1;
    if (geometry.levels == Levels::kCentroids) {
      const int table = geometry.table_rows == 1 ? 0 : lane;
      convert_f16_to_f32(group + kPanelRows * 4 + table * n * 2, levels, n);
    } else {
      std::memcpy(&scale, group + lane * 4, 4);
      std::ranges::copy(encoding::levels_of(params.kind), levels);
    }
    for (const std::uint8_t c : code) *out++ = levels[c] * scale;
  }
}

}  // namespace nibble::kernel::codebook
