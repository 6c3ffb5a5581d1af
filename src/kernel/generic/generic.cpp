// Any encoding that decodes, on any machine: rows are kept as the file has them and decoded a stretch at a time, f32
// activations. An affine row, whose parts lie apart in the file, is its bit stream of codes followed by the f32 scales
// and, if asymmetric, the u8 zeros of its groups; before the first row lie the groups of the columns, if they are
// listed; a row of scaled floats its codes followed by its scales and, if it has one, the global scale; a row of a
// codebook its bit stream followed by its tables of f16, or by how many weights of its first block
// lie in rows before and the f32 scales of its blocks. Columns that an affine matrix keeps in f16 are listed where the
// groups would be, and lie behind the zeros.
#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "encoding/affine.h"
#include "encoding/codebook.h"
#include "encoding/scaled.h"
#include "kernel/f32_activations.h"
#include "kernel/linear.h"
#include "tensor/half.h"

namespace nibble::kernel::generic {

namespace {

constexpr std::int64_t kStretch = 256;  // columns decoded at a time: a multiple of every block

bool is_affine(const encoding::EncodingInfo& info) { return info.family == encoding::Family::kAffine; }
bool is_indexed(const encoding::EncodingInfo& info) { return is_affine(info) && info.affine.group_index; }
bool is_scaled(const encoding::EncodingInfo& info) { return info.family == encoding::Family::kScaled; }
bool is_codebook(const encoding::EncodingInfo& info) { return info.family == encoding::Family::kCodebook; }

std::uint64_t scale_bytes(const encoding::ScaledParams& params, std::int64_t cols) {  // without the global one
  return static_cast<std::uint64_t>(encoding::scales_per_row(params, cols)) * dtype_bytes(params.scale_dtype);
}

std::uint64_t codebook_stride(const encoding::CodebookParams& params, std::int64_t cols) {
  const std::uint64_t codes = encoding::codebook_row_bytes(params, cols);
  if (encoding::has_blocks(params)) return codes + 4 + 4 * static_cast<std::uint64_t>((cols - 1) / params.block + 2);
  return codes +
         2 * static_cast<std::uint64_t>(encoding::tables_per_row(params, cols) * encoding::centroid_count(params));
}

std::uint64_t row_stride(const MatrixInfo& matrix) {
  if (is_codebook(*matrix.encoding)) return codebook_stride(matrix.encoding->codebook, matrix.cols);
  if (is_scaled(*matrix.encoding)) {
    const encoding::ScaledParams& params = matrix.encoding->scaled;
    const std::uint64_t scales = scale_bytes(params, matrix.cols) + (params.global_scale ? sizeof(float) : 0);
    return checked_add(encoding::scaled_row_bytes(params, matrix.cols), scales);
  }
  if (!is_affine(*matrix.encoding)) return encoding::row_bytes(*matrix.encoding, matrix.cols);
  const encoding::AffineParams& params = matrix.encoding->affine;
  const auto groups = static_cast<std::uint64_t>(encoding::groups_per_row(params, matrix.cols));
  const std::uint64_t levels =
      checked_add(encoding::row_code_bytes(params, matrix.cols), groups * (params.symmetric ? 4 : 5));
  return checked_add(levels, static_cast<std::uint64_t>(params.kept) * 2);
}

// The groups of the columns, or those that are kept.
std::uint64_t index_bytes(const encoding::EncodingInfo& info, std::int64_t cols) {
  if (is_affine(info) && info.affine.kept > 0) return 4 * static_cast<std::uint64_t>(info.affine.kept);
  return is_indexed(info) ? 4 * static_cast<std::uint64_t>(cols) : 0;
}

std::uint64_t packed_bytes(const MatrixInfo& matrix) {
  const std::uint64_t rows = checked_mul(static_cast<std::uint64_t>(matrix.rows), row_stride(matrix));
  return checked_add(rows, index_bytes(*matrix.encoding, matrix.cols));
}

void pack_affine_row(const TensorView& weights, std::int64_t row, std::byte* dst) {
  const encoding::AffineParams& params = weights.encoding->affine;
  const std::uint64_t code_bytes = encoding::row_code_bytes(params, weights.cols());
  const std::byte* scales = weights.part(PartRole::kScales).bytes.data();
  const std::byte* zeros = params.symmetric ? nullptr : weights.part(PartRole::kZeros).bytes.data();
  const std::int64_t groups = encoding::groups_per_row(params, weights.cols());
  const std::int64_t first = params.granularity == encoding::Granularity::kTensor ? 0 : row * groups;
  std::memcpy(dst, weights.data().data() + static_cast<std::uint64_t>(row) * code_bytes, code_bytes);
  dst += code_bytes;
  for (std::int64_t g = 0; g < groups; ++g) {
    const encoding::ScaleZero at = encoding::load_scale_zero(params, scales, zeros, first + g);
    std::memcpy(dst + g * 4, &at.scale, 4);
    if (!params.symmetric) dst[groups * 4 + g] = static_cast<std::byte>(at.zero);
  }
  if (params.kept == 0) return;
  dst += groups * (params.symmetric ? 4 : 5);
  std::memcpy(dst, weights.part(PartRole::kOutliers).bytes.data() + row * params.kept * 2,
              static_cast<std::size_t>(params.kept) * 2);
}

void pack_scaled_row(const TensorView& weights, std::int64_t row, std::byte* dst) {
  const encoding::ScaledParams& params = weights.encoding->scaled;
  const encoding::ScaledRow at = encoding::scaled_row(weights, row);
  const std::uint64_t code_bytes = encoding::scaled_row_bytes(params, weights.cols());
  const std::uint64_t scales = scale_bytes(params, weights.cols());
  std::memcpy(dst, at.codes, code_bytes);
  std::memcpy(dst + code_bytes, at.scales, scales);
  if (params.global_scale) std::memcpy(dst + code_bytes + scales, &at.global, sizeof at.global);
}

void pack_codebook_row(const TensorView& weights, std::int64_t row, std::byte* dst) {
  const encoding::CodebookParams& params = weights.encoding->codebook;
  const std::int64_t cols = weights.cols(), first = row * cols;
  const std::uint64_t code_bytes = encoding::codebook_row_bytes(params, cols);
  const std::byte* codes = weights.data().data();
  if (!encoding::has_blocks(params)) {
    std::memcpy(dst, codes + static_cast<std::uint64_t>(row) * code_bytes, code_bytes);
    dst += code_bytes;
    const std::int64_t n = encoding::centroid_count(params);
    float centroids[16];
    for (std::int64_t table = 0; table < encoding::tables_per_row(params, cols); ++table, dst += n * 2) {
      encoding::load_centroids(weights, row, table, centroids);
      convert_f32_to_f16(centroids, dst, n);
    }
    return;
  }
  std::memset(dst, 0, code_bytes);
  for (std::int64_t c = 0; c < cols; ++c)
    dst[c / 2] |= static_cast<std::byte>(encoding::nibble_at(codes, first + c) << c % 2 * 4);
  const auto before = static_cast<std::int32_t>(first % params.block);
  std::memcpy(dst + code_bytes, &before, 4);
  dst += code_bytes + 4;
  for (std::int64_t block = first / params.block; block * params.block < first + cols; ++block, dst += 4) {
    const float scale = encoding::block_scale(weights, block);
    std::memcpy(dst, &scale, 4);
  }
}

void pack(const TensorView& weights, const std::int32_t* row_map, std::int64_t row_begin, std::int64_t row_end,
          std::byte* packed) {
  const std::uint64_t stride = row_stride({weights.encoding, weights.rows(), weights.cols()});
  const std::uint64_t index = index_bytes(*weights.encoding, weights.cols());
  if (index > 0 && row_begin == 0) {
    const PartRole list = is_indexed(*weights.encoding) ? PartRole::kGroupIndex : PartRole::kOutlierColumns;
    std::memcpy(packed, weights.part(list).bytes.data(), index);
  }
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const std::int64_t source = row_map != nullptr ? row_map[row] : row;
    std::byte* dst = packed + index + static_cast<std::uint64_t>(row) * stride;
    if (encoding::find_not_finite(weights, source, source + 1) == source) {
      fail(ErrorCode::kFormat, "row {} holds a weight or a scale that is NaN or infinite", source);
    }
    if (is_affine(*weights.encoding)) {
      pack_affine_row(weights, source, dst);
    } else if (is_scaled(*weights.encoding)) {
      pack_scaled_row(weights, source, dst);
    } else if (is_codebook(*weights.encoding)) {
      pack_codebook_row(weights, source, dst);
    } else {
      std::memcpy(dst, weights.data().data() + static_cast<std::uint64_t>(source) * stride, stride);
    }
  }
}

void decode_codebook(const encoding::CodebookParams& params, std::int64_t cols, const std::byte* row,
                     std::int64_t begin, std::int64_t count, float* out) noexcept {
  std::uint8_t code[kStretch];
  encoding::unpack_codes(params.bits, row + begin * params.bits / 8, count, code);
  const std::byte* behind = row + encoding::codebook_row_bytes(params, cols);
  float levels[16];
  std::int32_t before = 0;
  if (encoding::has_blocks(params)) {
    std::memcpy(&before, behind, 4);
    std::ranges::copy(encoding::levels_of(params.kind), levels);
  }
  const std::int64_t width = encoding::has_blocks(params) ? params.block : encoding::centroid_columns(params, cols);
  for (std::int64_t c = 0; c < count;) {
    const std::int64_t table = (before + begin + c) / width;
    float scale = 1;
    if (encoding::has_blocks(params)) {
      std::memcpy(&scale, behind + 4 + table * 4, 4);
    } else {
      convert_f16_to_f32(behind + table * encoding::centroid_count(params) * 2, levels,
                         encoding::centroid_count(params));
    }
    const std::int64_t end = std::min(count, (table + 1) * width - before - begin);
    for (; c < end; ++c) out[c] = levels[code[c]] * scale;
  }
}

// `count` columns, at most kStretch, of a packed row from column `begin`, a multiple of kStretch. `index`: the groups
// of the columns, where they are listed, or the columns that are kept.
void decode_stretch(const MatrixInfo& matrix, const std::byte* index, const std::byte* row, std::int64_t begin,
                    std::int64_t count, float* out) noexcept {
  const encoding::EncodingInfo& info = *matrix.encoding;
  if (is_scaled(info)) {
    const std::byte* scales = row + encoding::scaled_row_bytes(info.scaled, matrix.cols);
    float global = 1;
    if (info.scaled.global_scale) std::memcpy(&global, scales + scale_bytes(info.scaled, matrix.cols), sizeof global);
    return encoding::decode_scaled(info.scaled, matrix.cols, row, scales, begin, count, out, global);
  }
  if (is_codebook(info)) return decode_codebook(info.codebook, matrix.cols, row, begin, count, out);
  if (!is_affine(info)) return info.decode(row + begin / info.block_elements * info.block_bytes, out, count);
  const encoding::AffineParams& params = info.affine;
  std::uint8_t stored[kStretch];
  encoding::unpack_codes(params.bits, row + begin * params.bits / 8, count, stored);
  const std::int64_t group = encoding::group_columns(params, matrix.cols);
  const std::int64_t groups = encoding::groups_per_row(params, matrix.cols);
  const std::byte* scales = row + encoding::row_code_bytes(params, matrix.cols);
  const int offset = encoding::stored_offset(params);
  for (std::int64_t c = 0; c < count;) {
    const std::int64_t g =
        encoding::group_of_column(params, matrix.cols, params.group_index ? index : nullptr, begin + c);
    encoding::ScaleZero at;
    std::memcpy(&at.scale, scales + g * 4, 4);
    if (!params.symmetric) at.zero = std::to_integer<int>(scales[groups * 4 + g]);
    const std::int64_t end = params.group_index ? c + 1 : std::min(count, (g + 1) * group - begin);
    for (; c < end; ++c) out[c] = encoding::decode_code(stored[c] - offset, at);
  }
  const std::byte* values = scales + groups * (params.symmetric ? 4 : 5);
  const ColumnList kept = {{index, static_cast<std::size_t>(params.kept) * 4}};
  for (std::int64_t i = 0; i < kept.size(); ++i) {
    const std::int64_t c = kept[i] - begin;
    if (c >= 0 && c < count) convert_f16_to_f32(values + i * 2, out + c, 1);
  }
}

void unpack_row(const MatrixInfo& matrix, const std::byte* packed, std::int64_t row, float* out) noexcept {
  const std::byte* src =
      packed + index_bytes(*matrix.encoding, matrix.cols) + static_cast<std::uint64_t>(row) * row_stride(matrix);
  for (std::int64_t begin = 0; begin < matrix.cols; begin += kStretch) {
    decode_stretch(matrix, packed, src, begin, std::min(kStretch, matrix.cols - begin), out + begin);
  }
}

// Eight running sums, so that the compiler may use vectors without reordering any of them.
float dot(const float* a, const float* b, std::int64_t n) noexcept {
  float lane[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) lane[j] += a[i + j] * b[i + j];
  }
  for (; i < n; ++i) lane[0] += a[i] * b[i];
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

void compute(const MatrixInfo& matrix, const std::byte* packed, const std::byte* activations, std::int64_t n,
             std::int64_t row_begin, std::int64_t row_end, float* out, std::int64_t ldo) noexcept {
  const std::uint64_t stride = row_stride(matrix), index = index_bytes(*matrix.encoding, matrix.cols);
  const std::uint64_t activation_stride = kF32Activations.row_bytes(matrix.cols);
  alignas(64) float weights[kStretch];
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const std::byte* src = packed + index + static_cast<std::uint64_t>(row) * stride;
    for (std::int64_t t = 0; t < n; ++t) out[t * ldo + row] = 0;
    for (std::int64_t begin = 0; begin < matrix.cols; begin += kStretch) {
      const std::int64_t count = std::min(kStretch, matrix.cols - begin);
      decode_stretch(matrix, packed, src, begin, count, weights);
      for (std::int64_t t = 0; t < n; ++t) {
        const auto* x = reinterpret_cast<const float*>(activations + static_cast<std::uint64_t>(t) * activation_stride);
        out[t * ldo + row] += dot(weights, x + begin, count);
      }
    }
  }
}

bool accepts(const encoding::EncodingInfo& info, std::int64_t cols) {
  if (is_affine(info) || is_codebook(info)) return cols > 0;
  if (is_scaled(info)) return cols > 0 && cols % info.block_elements == 0;
  return info.decode != nullptr && kStretch % info.block_elements == 0 && cols % info.block_elements == 0;
}

const LinearKernel kKernels[] = {
    {"generic/scalar", Isa::kScalar, accepts, &kF32Activations, {1, packed_bytes, pack, unpack_row}, compute},
};

}  // namespace

std::span<const LinearKernel> entries() { return kKernels; }

}  // namespace nibble::kernel::generic
