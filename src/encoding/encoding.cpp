#include "encoding/encoding.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "base/checked.h"
#include "base/near_names.h"
#include "encoding/affine.h"
#include "encoding/codebook.h"
#include "encoding/scaled.h"
#include "tensor/half.h"

namespace nibble::encoding {

namespace {

const std::unordered_map<std::string_view, const EncodingInfo*>& index_by_name() {
  static const auto index = [] {
    std::unordered_map<std::string_view, const EncodingInfo*> map;
    for (const EncodingInfo* info : all_entries()) map.emplace(info->name, info);
    return map;
  }();
  return index;
}

// Members of the parameterised families that a wrong name may have meant.
constexpr std::string_view kExamples[] = {"int8-tensor",
                                          "int8-channel",
                                          "int8-channel-asym",
                                          "int4-channel",
                                          "int4-g32",
                                          "int4-g64",
                                          "int4-g128",
                                          "int4-g128-asym",
                                          "int3-g128",
                                          "int2-g64",
                                          "fp8-tensor",
                                          "fp8-channel",
                                          "fp8-block128x128",
                                          "fp8-block128",
                                          "fp8-tensor-e5m2",
                                          "fp8-channel-e5m2",
                                          "mxfp8",
                                          "mxfp4-hf",
                                          "nvfp4-hf",
                                          "nf4",
                                          "nf4-dq",
                                          "fp4",
                                          "fp4-dq",
                                          "kmeans4-channel",
                                          "kmeans4-tensor",
                                          "kmeans3-channel",
                                          "kmeans4-g512"};

std::string known_names_near(std::string_view name) {
  std::vector<std::string_view> names;
  for (const EncodingInfo* info : all_entries()) names.push_back(info->name);
  names.insert(names.end(), std::begin(kExamples), std::end(kExamples));
  std::string text = near_names(name, names);
  if (name.starts_with("int"))
    text += "; integers are int{2..8}-{tensor,channel,gN[-gidx]}[-asym|-restricted|-awq|-ct][-f16|-bf16]";
  return text;
}

bool lies_in_parts(const EncodingInfo& info) {
  return info.family == Family::kAffine || info.family == Family::kScaled || info.family == Family::kCodebook;
}

void check_columns(const EncodingInfo& info, std::int64_t cols) {
  if (cols >= 0 && cols % info.block_elements == 0) return;
  fail(ErrorCode::kFormat, "rows of {} elements do not exist in {}: its blocks hold {}", cols, info.name,
       info.block_elements);
}

// Rows whose groups do not lie together: `levels` is room for the scale and zero of each group.
void decode_indexed_row(const TensorView& view, std::int64_t row, const std::uint8_t* stored,
                        std::vector<ScaleZero>& levels, float* out) {
  const AffineParams& params = view.encoding->affine;
  const Part* zeros = view.find(PartRole::kZeros);
  const std::byte* index = view.part(PartRole::kGroupIndex).bytes.data();
  const auto n_groups = std::ssize(levels);
  for (std::int64_t g = 0; g < n_groups; ++g) {
    levels[static_cast<std::size_t>(g)] = load_scale_zero(
        params, view.parts[1].bytes.data(), zeros != nullptr ? zeros->bytes.data() : nullptr, row * n_groups + g);
  }
  const int offset = stored_offset(params);
  for (std::int64_t c = 0; c < view.cols(); ++c) {
    const auto group = static_cast<std::size_t>(group_of_column(params, view.cols(), index, c));
    out[c] = decode_code(stored[c] - offset, levels[group]);
  }
}

// The weights of a row that are kept in f16, in their columns.
void decode_kept(const TensorView& view, std::int64_t row, float* out) {
  const std::int64_t kept = view.encoding->affine.kept;
  const std::byte* values = view.part(PartRole::kOutliers).bytes.data() + row * kept * 2;
  const ColumnList columns = {view.part(PartRole::kOutlierColumns).bytes};
  for (std::int64_t i = 0; i < kept; ++i) convert_f16_to_f32(values + i * 2, out + columns[i], 1);
}

void decode_affine_rows(const TensorView& view, std::int64_t row_begin, std::int64_t row_end, float* out) {
  const AffineParams& params = view.encoding->affine;
  const std::int64_t cols = view.cols();
  const std::int64_t group = group_columns(params, cols);
  const std::int64_t n_groups = groups_per_row(params, cols);
  const std::uint64_t stride = row_code_bytes(params, cols);
  const std::byte* codes = view.parts[0].bytes.data();
  const std::byte* scales = view.parts[1].bytes.data();
  const std::byte* zeros = params.symmetric ? nullptr : view.parts[2].bytes.data();
  const int offset = stored_offset(params);
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(cols));
  std::vector<ScaleZero> levels(static_cast<std::size_t>(params.group_index ? n_groups : 0));
  for (std::int64_t row = row_begin; row < row_end; ++row, out += cols) {
    unpack_codes(params.bits, codes + static_cast<std::uint64_t>(row) * stride, cols, stored.data());
    if (params.group_index) {
      decode_indexed_row(view, row, stored.data(), levels, out);
      continue;
    }
    for (std::int64_t i = 0; i < n_groups; ++i) {
      const std::int64_t index = params.granularity == Granularity::kTensor ? 0 : row * n_groups + i;
      const ScaleZero at = load_scale_zero(params, scales, zeros, index);
      const int zero = at.zero + offset;
      const std::int64_t end = std::min(cols, (i + 1) * group);
      for (std::int64_t c = i * group; c < end; ++c) {
        out[c] = at.scale * static_cast<float>(stored[static_cast<std::size_t>(c)] - zero);
      }
    }
    if (params.kept > 0) decode_kept(view, row, out);
  }
}

void decode_scaled_rows(const TensorView& view, std::int64_t row_begin, std::int64_t row_end, float* out) {
  const std::int64_t cols = view.cols();
  for (std::int64_t row = row_begin; row < row_end; ++row, out += cols) {
    const ScaledRow at = scaled_row(view, row);
    decode_scaled(view.encoding->scaled, cols, at.codes, at.scales, 0, cols, out, at.global);
  }
}

}  // namespace

std::vector<PartPlan> plan_parts(const EncodingInfo& info, const Shape& shape) {
  if (!lies_in_parts(info)) {
    return {{PartRole::kCodes, Dtype::kU8, {checked_cast<std::int64_t>(tensor_bytes(info, shape))}}};
  }
  if (info.family == Family::kScaled) {
    check_columns(info, shape.cols());
    const auto row = static_cast<std::int64_t>(scaled_row_bytes(info.scaled, shape.cols()));
    const Shape scales = scaled_scales_shape(info.scaled, shape);
    std::vector<PartPlan> plan = {{PartRole::kCodes, Dtype::kU8, {shape.rows(), row}},
                                  {PartRole::kScales, info.scaled.scale_dtype, scales, info.scaled.tile_rows == 1}};
    if (info.scaled.global_scale) plan.push_back({PartRole::kGlobalScale, Dtype::kF32, {scales[0]}, false});
    return plan;
  }
  if (info.family == Family::kCodebook) return codebook_parts(info.codebook, shape);
  const AffineParams& params = info.affine;
  const Shape scales = scales_shape(params, shape);
  const bool by_rows = params.granularity != Granularity::kTensor;
  std::vector<PartPlan> plan = {
      {PartRole::kCodes, Dtype::kU8, {shape.rows(), static_cast<std::int64_t>(row_code_bytes(params, shape.cols()))}},
      {PartRole::kScales, params.scale_dtype, scales, by_rows}};
  if (!params.symmetric) plan.push_back({PartRole::kZeros, Dtype::kU8, scales, by_rows});
  if (params.group_index) plan.push_back({PartRole::kGroupIndex, Dtype::kI32, {shape.cols()}, false});
  if (params.kept > 0) {
    plan.push_back({PartRole::kOutliers, Dtype::kF16, {shape.rows(), params.kept}});
    plan.push_back({PartRole::kOutlierColumns, Dtype::kI32, {params.kept}, false});
  }
  return plan;
}

const EncodingInfo* find(std::string_view name) {
  const auto& index = index_by_name();
  const auto found = index.find(name);
  if (found != index.end()) return found->second;
  for (const auto find_member : {find_affine, find_scaled, find_codebook}) {
    if (const EncodingInfo* member = find_member(name)) return member;
  }
  return nullptr;
}

const EncodingInfo& get(std::string_view name) {
  if (const EncodingInfo* info = find(name)) return *info;
  fail(ErrorCode::kInvalidArgument, "no encoding '{}'; near names: {}", name.substr(0, 64), known_names_near(name));
}

bool fits(const EncodingInfo& info, const Shape& shape) {
  if (info.family == Family::kAffine && info.affine.kept > shape.cols()) return false;
  return shape.cols() % info.block_elements == 0;
}

std::uint64_t row_bytes(const EncodingInfo& info, std::int64_t cols) {
  if (lies_in_parts(info)) fail(ErrorCode::kInternal, "a row of {} lies in several parts", info.name);
  check_columns(info, cols);
  return checked_mul(static_cast<std::uint64_t>(cols / info.block_elements),
                     static_cast<std::uint64_t>(info.block_bytes));
}

std::uint64_t tensor_bytes(const EncodingInfo& info, const Shape& shape) {
  if (!lies_in_parts(info)) {
    return checked_mul(static_cast<std::uint64_t>(shape.rows()), row_bytes(info, shape.cols()));
  }
  std::uint64_t sum = 0;
  for (const PartPlan& part : plan_parts(info, shape)) {
    const auto elements = static_cast<std::uint64_t>(part.shape.elements());
    sum = checked_add(sum, checked_mul(elements, static_cast<std::uint64_t>(dtype_bytes(part.dtype))));
  }
  return sum;
}

Tensor allocate(const EncodingInfo& info, const Shape& shape) {
  Tensor tensor(info, shape);
  for (const PartPlan& part : plan_parts(info, shape)) tensor.add_part(part.role, part.dtype, part.shape);
  return tensor;
}

RowParts rows_at(Tensor& tensor, std::int64_t row) {
  const TensorView& view = tensor.view();
  const std::vector<PartPlan> plan = plan_parts(*view.encoding, view.shape);
  RowParts at;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const std::span<std::byte> bytes = tensor.mutable_part(plan[i].role);
    if (view.encoding->family == Family::kCodebook) {
      at.parts[i] = bytes.data() + codebook_part_begin(view.encoding->codebook, view.shape, plan[i].role, row);
      continue;
    }
    if (view.encoding->family == Family::kScaled) {
      at.parts[i] = bytes.data() + scaled_part_begin(view.encoding->scaled, view.shape, plan[i].role, row);
      continue;
    }
    const std::size_t stride =
        plan[i].by_rows && view.rows() > 0 ? bytes.size() / static_cast<std::size_t>(view.rows()) : 0;
    at.parts[i] = bytes.data() + stride * static_cast<std::size_t>(row);
  }
  return at;
}

std::int64_t row_step(const EncodingInfo& info, const Shape& shape) {
  if (info.family == Family::kScaled) return std::max<std::int64_t>(scaled_row_step(info.scaled, shape), 1);
  if (info.family != Family::kCodebook || shape.cols() == 0) return 1;
  const std::int64_t step = has_blocks(info.codebook)
                                ? info.codebook.block / std::gcd(info.codebook.block, shape.cols())
                                : rows_per_table(info.codebook, shape.cols());
  return std::max<std::int64_t>(std::min(step, shape.rows()), 1);
}

void decode_rows(const TensorView& view, std::int64_t row_begin, std::int64_t row_end, float* out) {
  const EncodingInfo& info = *view.encoding;
  if (info.family == Family::kCodebook) return decode_codebook_rows(view, row_begin, row_end, out);
  if (info.family == Family::kAffine) return decode_affine_rows(view, row_begin, row_end, out);
  if (info.family == Family::kScaled) return decode_scaled_rows(view, row_begin, row_end, out);
  const std::int64_t cols = view.cols();
  const std::uint64_t begin = static_cast<std::uint64_t>(row_begin) * row_bytes(info, cols);
  info.decode(view.data().data() + begin, out, (row_end - row_begin) * cols);
}

namespace {

void check_group_index(const TensorView& view) {
  const AffineParams& params = view.encoding->affine;
  const std::int64_t groups = groups_per_row(params, view.cols());
  const std::byte* index = view.part(PartRole::kGroupIndex).bytes.data();
  for (std::int64_t c = 0; c < view.cols(); ++c) {
    const std::int64_t group = group_of_column(params, view.cols(), index, c);
    if (group < 0 || group >= groups)
      fail(ErrorCode::kFormat, "column {} is of group {}, of which there are {}", c, group, groups);
  }
}

void check_kept_columns(const TensorView& view) {
  const ColumnList columns = {view.part(PartRole::kOutlierColumns).bytes};
  for (std::int64_t i = 0, least = 0; i < columns.size(); ++i) {
    const std::int64_t column = columns[i];
    if (column < least || column >= view.cols())
      fail(ErrorCode::kFormat, "kept column {} is {}, not {} to {}", i, column, least, view.cols() - 1);
    least = column + 1;
  }
}

}  // namespace

void validate(const TensorView& view) {
  const EncodingInfo& info = *view.encoding;
  const std::vector<PartPlan> plan = plan_parts(info, view.shape);
  if (static_cast<std::size_t>(view.n_parts) != plan.size()) {
    fail(ErrorCode::kFormat, "a tensor in {} has {} parts, this one has {}", info.name, plan.size(), view.n_parts);
  }
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const Part& part = view.parts[i];
    const std::size_t expected = static_cast<std::size_t>(plan[i].shape.elements()) * dtype_bytes(plan[i].dtype);
    // The dtype of the bytes of a plain or block encoding says nothing.
    const bool dtype_counts = lies_in_parts(info);
    if (part.role != plan[i].role || (dtype_counts && part.dtype != plan[i].dtype) || part.bytes.size() != expected) {
      fail(ErrorCode::kFormat, "a tensor {} in {} takes {} bytes of {} as part {}, here are {} bytes of {}",
           view.shape.to_string(), info.name, expected, dtype_name(plan[i].dtype), i, part.bytes.size(),
           dtype_name(part.dtype));
    }
  }
  if (info.family == Family::kAffine && info.affine.group_index) check_group_index(view);
  if (info.family == Family::kAffine && info.affine.kept > 0) check_kept_columns(view);
}

}  // namespace nibble::encoding
