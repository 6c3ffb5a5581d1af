#include "encoding/codebook.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "encoding/affine.h"
#include "encoding/block_codec.h"
#include "encoding/interned.h"
#include "encoding/name_text.h"
#include "tensor/half.h"

namespace nibble::encoding {

namespace {

constexpr std::int64_t kDefaultBlock = 64, kMinBlock = 32, kMaxBlock = 4096;
constexpr std::int64_t kMaxGroup = 1 << 20;
constexpr int kMaxCentroids = 16;

// The quantiles of a normal distribution (QLoRA, appendix E).
constexpr std::array<float, 16> kNf4Levels = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};
constexpr std::array<float, 16> kFp4Levels = {
    0, 0.0625f / 12,  8.0f / 12,  12.0f / 12,  4.0f / 12,  6.0f / 12,  2.0f / 12,  3.0f / 12,
    0, -0.0625f / 12, -8.0f / 12, -12.0f / 12, -4.0f / 12, -6.0f / 12, -2.0f / 12, -3.0f / 12,
};

// A table of 16 levels in ascending order, and the middles between them.
struct Search {
  std::array<std::uint8_t, 16> code;
  std::array<float, 15> middle;
};

Search make_search(const std::array<float, 16>& levels, const std::array<std::uint8_t, 16>& ascending) {
  Search search{ascending, {}};
  for (std::size_t i = 0; i < 15; ++i) search.middle[i] = (levels[ascending[i]] + levels[ascending[i + 1]]) / 2;
  return search;
}

// Which of fp4's zeros is which matters for the bytes alone: a weight of 0 takes the code 0, a small positive one 8.
const Search& search_of(CodebookKind kind) {
  static const Search nf4 = make_search(kNf4Levels, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15});
  static const Search fp4 = make_search(kFp4Levels, {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3});
  return kind == CodebookKind::kNf4 ? nf4 : fp4;
}

bool is_block(std::int64_t block) { return block >= kMinBlock && block <= kMaxBlock && (block & (block - 1)) == 0; }

std::string canonical_name(const CodebookParams& params) {
  if (has_blocks(params)) {
    std::string name = params.kind == CodebookKind::kNf4 ? "nf4" : "fp4";
    if (params.double_quant) name += "-dq";
    if (params.block != kDefaultBlock) name += format_text("-b{}", params.block);
    return name;
  }
  std::string name = format_text("kmeans{}", params.bits);
  if (params.granularity == Granularity::kTensor) name += "-tensor";
  if (params.granularity == Granularity::kChannel) name += "-channel";
  if (params.granularity == Granularity::kGroup) name += format_text("-g{}", params.group);
  return name;
}

bool in_family(const CodebookParams& params) {
  if (has_blocks(params)) return params.bits == 4 && is_block(params.block);
  const bool group = params.granularity == Granularity::kGroup;
  return params.bits >= 2 && params.bits <= 4 && (!group || (params.group >= 1 && params.group <= kMaxGroup));
}

CodebookParams canonical(CodebookParams params) {
  if (has_blocks(params)) {
    params.granularity = Granularity::kTensor;
  } else {
    params.block = 0;
    params.double_quant = false;
  }
  if (has_blocks(params) || params.granularity != Granularity::kGroup) params.group = 0;
  return params;
}

double bits_per_weight(const CodebookParams& params) {
  const double bits = params.bits;
  if (!has_blocks(params)) {
    const bool group = params.granularity == Granularity::kGroup;
    return bits + (group ? 16.0 * centroid_count(params) / static_cast<double>(params.group) : 0.0);
  }
  const auto block = static_cast<double>(params.block);
  return params.double_quant ? bits + 8.0 / block + 32.0 / (block * static_cast<double>(kSuperBlock))
                             : bits + 32.0 / block;
}

EncodingInfo describe(const CodebookParams& params) {
  EncodingInfo info;
  info.name = canonical_name(params);
  info.family = Family::kCodebook;
  info.dtype = Dtype::kU8;
  info.codebook = params;
  info.bits_per_weight = bits_per_weight(params);
  return info;
}

const EncodingInfo& intern(const CodebookParams& params) {
  return interned(canonical_name(params), [&] { return describe(params); });
}

std::optional<CodebookParams> parse_blocks(std::string_view text) {
  CodebookParams params;
  if (take(text, "fp4")) {
    params.kind = CodebookKind::kFp4;
  } else if (!take(text, "nf4")) {
    return std::nullopt;
  }
  params.double_quant = take(text, "-dq");
  if (take(text, "-b") && !take_number(text, params.block)) return std::nullopt;
  return params;
}

std::optional<CodebookParams> parse_kmeans(std::string_view text) {
  CodebookParams params{.kind = CodebookKind::kKmeans, .block = 0};
  std::int64_t bits = 0;
  if (!take(text, "kmeans") || !take_number(text, bits) || bits < 2 || bits > 4) return std::nullopt;
  params.bits = static_cast<int>(bits);
  if (take(text, "-g")) {
    params.granularity = Granularity::kGroup;
    if (!take_number(text, params.group)) return std::nullopt;
  } else if (take(text, "-channel")) {
    params.granularity = Granularity::kChannel;
  }
  return params;
}

float load_f32(const std::byte* src) {
  float value;
  std::memcpy(&value, src, 4);
  return value;
}

void decode_blocks(const TensorView& view, std::int64_t begin, std::int64_t end, float* out) {
  const CodebookParams& params = view.encoding->codebook;
  const std::array<float, 16>& levels = levels_of(params.kind);
  const std::byte* codes = view.parts[0].bytes.data();
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t block = at / params.block;
    const std::int64_t stop = std::min(end, (block + 1) * params.block);
    const float scale = block_scale(view, block);
    for (; at < stop; ++at) *out++ = levels[static_cast<std::size_t>(nibble_at(codes, at))] * scale;
  }
}

void decode_kmeans_row(const TensorView& view, std::int64_t row, std::uint8_t* code, float* out) {
  const CodebookParams& params = view.encoding->codebook;
  const std::int64_t cols = view.cols(), width = centroid_columns(params, cols);
  const std::uint64_t stride = codebook_row_bytes(params, cols);
  unpack_codes(params.bits, view.parts[0].bytes.data() + static_cast<std::uint64_t>(row) * stride, cols, code);
  std::array<float, kMaxCentroids> centroids{};
  for (std::int64_t table = 0, c = 0; c < cols; ++table) {
    load_centroids(view, row, table, centroids.data());
    for (const std::int64_t end = std::min(cols, c + width); c < end; ++c) out[c] = centroids[code[c]];
  }
}

}  // namespace

bool has_blocks(const CodebookParams& params) { return params.kind != CodebookKind::kKmeans; }

const EncodingInfo* find_codebook(std::string_view name) {
  const auto params = name.starts_with("kmeans") ? parse_kmeans(name) : parse_blocks(name);
  // Canonical names only; what is left over makes another name.
  if (!params || !in_family(*params) || canonical_name(*params) != name) return nullptr;
  return &intern(*params);
}

const EncodingInfo& codebook_encoding(const CodebookParams& params) {
  if (!in_family(params)) {
    fail(ErrorCode::kInvalidArgument, "no codebook encoding of {} bits with blocks of {} and groups of {}", params.bits,
         params.block, params.group);
  }
  return intern(canonical(params));
}

std::vector<PartPlan> codebook_parts(const CodebookParams& params, const Shape& shape) {
  if (!has_blocks(params)) {
    const std::int64_t centroids = centroid_count(params), rows = shape.rows();
    const auto row_bytes = checked_cast<std::int64_t>(codebook_row_bytes(params, shape.cols()));
    Shape tables = {centroids};
    if (params.granularity == Granularity::kChannel) tables = {rows, centroids};
    const std::int64_t together = rows_per_table(params, shape.cols());
    if (params.granularity == Granularity::kGroup)
      tables = {block_count(rows, together), tables_per_row(params, shape.cols()), centroids};
    return {{PartRole::kCodes, Dtype::kU8, {rows, row_bytes}},
            {PartRole::kCodebook, Dtype::kF16, tables, params.granularity != Granularity::kTensor && together == 1}};
  }
  const std::int64_t elements = shape.elements(), blocks = block_count(elements, params.block);
  std::vector<PartPlan> plan = {{PartRole::kCodes, Dtype::kU8, {block_count(elements, 2)}, false}};
  if (!params.double_quant) {
    plan.push_back({PartRole::kScales, Dtype::kF32, {blocks}, false});
    return plan;
  }
  plan.push_back({PartRole::kScales, Dtype::kU8, {blocks}, false});
  plan.push_back({PartRole::kSuperScales, Dtype::kF32, {block_count(blocks, kSuperBlock)}, false});
  plan.push_back({PartRole::kGlobalScale, Dtype::kF32, {1}, false});
  return plan;
}

std::uint64_t codebook_part_begin(const CodebookParams& params, const Shape& shape, PartRole role, std::int64_t row) {
  const std::int64_t element = row * shape.cols();
  if (role == PartRole::kCodes) {
    return has_blocks(params) ? static_cast<std::uint64_t>(element / 2)
                              : static_cast<std::uint64_t>(row) * codebook_row_bytes(params, shape.cols());
  }
  if (role == PartRole::kScales) {
    return static_cast<std::uint64_t>(element / params.block) * (params.double_quant ? 1 : sizeof(float));
  }
  if (role != PartRole::kCodebook || params.granularity == Granularity::kTensor) return 0;
  const std::int64_t table = row / rows_per_table(params, shape.cols()) * tables_per_row(params, shape.cols());
  return static_cast<std::uint64_t>(table * centroid_count(params)) * 2;
}

void decode_codebook_rows(const TensorView& view, std::int64_t row_begin, std::int64_t row_end, float* out) {
  const std::int64_t cols = view.cols();
  if (has_blocks(view.encoding->codebook)) return decode_blocks(view, row_begin * cols, row_end * cols, out);
  std::vector<std::uint8_t> code(static_cast<std::size_t>(cols));
  for (std::int64_t row = row_begin; row < row_end; ++row, out += cols) decode_kmeans_row(view, row, code.data(), out);
}

bool codebook_row_is_finite(const TensorView& view, std::int64_t row) {
  const CodebookParams& params = view.encoding->codebook;
  const std::int64_t cols = view.cols();
  if (cols == 0) return true;
  if (has_blocks(params)) {
    const std::int64_t last = ((row + 1) * cols - 1) / params.block;
    for (std::int64_t block = row * cols / params.block; block <= last; ++block) {
      if (!std::isfinite(block_scale(view, block))) return false;
    }
    return true;
  }
  std::array<float, kMaxCentroids> centroids{};
  for (std::int64_t table = 0; table < tables_per_row(params, cols); ++table) {
    load_centroids(view, row, table, centroids.data());
    if (!std::ranges::all_of(centroids, [](float value) { return std::isfinite(value); })) return false;
  }
  return true;
}

const std::array<float, 16>& levels_of(CodebookKind kind) {
  return kind == CodebookKind::kNf4 ? kNf4Levels : kFp4Levels;
}

int nearest_level(CodebookKind kind, float value) {
  const Search& search = search_of(kind);
  int at = 0;
  for (const float middle : search.middle) at += value > middle;
  return search.code[static_cast<std::size_t>(at)];
}

float block_scale(const TensorView& view, std::int64_t block) {
  const std::byte* scales = view.parts[1].bytes.data();
  if (!view.encoding->codebook.double_quant) return load_f32(scales + 4 * block);
  const float super = load_f32(view.parts[2].bytes.data() + block / kSuperBlock * 4);
  return dynamic_map()[load_u8(scales + block)] * super + load_f32(view.parts[3].bytes.data());
}

namespace {

// Seven decades below 1, the i-th of them cut into first_parts * 2^i parts whose middles are the values, of either sign
// or of one; 0 and 1 (8-bit approximations for parallelism, arXiv 1511.04561, as bitsandbytes' create_dynamic_map has
// it).
std::array<float, 256> make_dynamic_map(int first_parts, bool both_signs) {
  std::array<float, 256> values{};
  std::size_t n = 0;
  values[n++] = 0;
  values[n++] = 1;
  constexpr double kDecade[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
  for (int i = 0; i < 7; ++i) {
    const int parts = first_parts << i;
    const double first = 0.1f;
    const double step = (1.0f - 0.1f) / static_cast<float>(parts);
    // As torch.linspace: from the nearer end, rounded once.
    const auto bound = [&](int k) {
      return static_cast<float>(k < (parts + 1) / 2 ? first + step * k : 1.0 - step * (parts - k));
    };
    for (int k = 0; k < parts; ++k) {
      const float value = static_cast<float>(kDecade[i]) * ((bound(k) + bound(k + 1)) / 2);
      values[n++] = value;
      if (both_signs) values[n++] = -value;
    }
  }
  std::ranges::sort(values);
  return values;
}

}  // namespace

const std::array<float, 256>& dynamic_map() {
  static const auto map = make_dynamic_map(1, true);
  return map;
}

const std::array<float, 256>& unsigned_dynamic_map() {
  static const auto map = make_dynamic_map(2, false);
  return map;
}

int nearest_dynamic(float value) {
  constexpr float kHalf = 32767.5f;  // of the 65535 steps between -1 and 1
  const auto step = static_cast<int>(std::clamp((value + 1.0f) * kHalf + 0.5f, 0.0f, 65535.0f));
  const double rounded = step / static_cast<double>(kHalf) - 1.0;
  const std::array<float, 256>& map = dynamic_map();
  const auto above = std::lower_bound(map.begin() + 1, map.end() - 1, rounded);
  const double middle = (static_cast<double>(above[-1]) + static_cast<double>(*above)) / 2;
  return static_cast<int>(above - map.begin()) - (rounded <= middle ? 1 : 0);
}

std::int64_t centroid_columns(const CodebookParams& params, std::int64_t cols) {
  return params.granularity == Granularity::kGroup ? params.group : std::max<std::int64_t>(cols, 1);
}

std::int64_t tables_per_row(const CodebookParams& params, std::int64_t cols) {
  return std::max<std::int64_t>(block_count(cols, centroid_columns(params, cols)), 1);
}

std::int64_t rows_per_table(const CodebookParams& params, std::int64_t cols) {
  const bool rows = params.granularity == Granularity::kGroup && cols > 0 && params.group > cols;
  return rows ? params.group / cols : 1;
}

std::uint64_t codebook_row_bytes(const CodebookParams& params, std::int64_t cols) {
  return row_code_bytes(AffineParams{.bits = params.bits}, cols);
}

void load_centroids(const TensorView& view, std::int64_t row, std::int64_t table, float* centroids) {
  const CodebookParams& params = view.encoding->codebook;
  const std::int64_t n = centroid_count(params);
  const std::int64_t index =
      params.granularity == Granularity::kTensor
          ? 0
          : row / rows_per_table(params, view.cols()) * tables_per_row(params, view.cols()) + table;
  convert_f16_to_f32(view.parts[1].bytes.data() + index * n * 2, centroids, n);
}

}  // namespace nibble::encoding
