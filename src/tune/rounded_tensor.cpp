#include "tune/rounded_tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "encoding/affine.h"
#include "encoding/block_grid.h"
#include "train/model_parameters.h"

namespace nibble::tune {

using encoding::BlockFields;
using encoding::BlockGrid;
using encoding::EncodingInfo;
using encoding::Family;
using encoding::ScaleZero;
using train::Parameter;
using train::Var;

namespace {

constexpr float kLeastMultiple = 0.02f;  // of what a scale was, that it may come down to

Parameter parameter(const std::string& name, std::int64_t rows, std::int64_t cols) {
  Parameter made(name, rows, cols);
  made.decays = false;
  return made;
}

// Its values, which become 1.
std::vector<float> to_multiples(Parameter& parameter) {
  std::vector<float> first(parameter.values(), parameter.values() + parameter.size());
  std::fill_n(parameter.values(), parameter.size(), 1.0f);
  return first;
}

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

// code of the level of a non-linear type, or the code itself
float level_of(const BlockGrid& grid, int code) {
  return grid.table != nullptr ? static_cast<float>(grid.table[code]) : static_cast<float>(code);
}

}  // namespace

bool RoundedTensor::supports(const EncodingInfo& encoding) {
  if (encoding.family == Family::kAffine) return !encoding.affine.group_index && encoding.affine.kept == 0;
  return encoding.family == Family::kBlock && encoding.grid != nullptr;
}

RoundedTensor::RoundedTensor(const std::string& name, const TensorView& start, std::vector<float> weights,
                             const Trained& trained)
    : name_(name),
      encoding_(start.encoding),
      shape_(start.shape),
      inputs_(start.inputs),
      trained_(trained),
      keeps_codes_(weights.empty()) {
  if (!supports(*encoding_))
    fail(ErrorCode::kUnsupported, "tensor '{}': the encoding {} cannot be trained", name, encoding_->name);
  encoding_->family == Family::kAffine ? read_affine(start) : read_blocks(start);
  first_scales_ = to_multiples(scales_);
  if (encoding_->family == Family::kBlock) first_mins_ = to_multiples(zeros_);
  const std::int64_t rows = shape_.rows(), cols = shape_.cols();
  if (!keeps_codes_) {
    weights_ = parameter(name, rows, cols);
    weights_.decays = true;
    std::ranges::copy(weights, weights_.values());
    if (trained.offsets) {
      offsets_ = parameter(name + ".offsets", rows, cols);
      std::fill_n(offsets_.values(), offsets_.size(), 0.0f);
    }
  }
  if (!trained_.weights) weights_.gradient = {};
  if (!trained_.scales) scales_.gradient = {};
  if (!trained_.zeros) zeros_.gradient = {};
}

void RoundedTensor::read_affine(const TensorView& start) {
  const encoding::AffineParams& params = encoding_->affine;
  const std::int64_t rows = shape_.rows(), cols = shape_.cols(), groups = encoding::groups_per_row(params, cols);
  const bool whole = params.granularity == encoding::Granularity::kTensor;
  scales_ = parameter(name_ + ".scales", whole ? 1 : rows, groups);
  zeros_ = parameter(name_ + ".zeros", whole ? 1 : rows, groups);
  const std::byte* scales = start.part(PartRole::kScales).bytes.data();
  const std::byte* zeros = params.symmetric ? nullptr : start.part(PartRole::kZeros).bytes.data();
  for (std::int64_t i = 0; i < scales_.size(); ++i) {
    const ScaleZero at = encoding::load_scale_zero(params, scales, zeros, i);
    scales_.values()[i] = at.scale;
    zeros_.values()[i] = static_cast<float>(at.zero);
  }
  const encoding::CodeRange range = encoding::code_range(params);
  codes_.group = encoding::group_columns(params, cols);
  codes_.low = range.min;
  codes_.high = range.max;
  if (!keeps_codes_) return;
  levels_.resize(index(rows * cols));
  std::vector<std::uint8_t> stored(index(cols));
  const std::uint64_t row_bytes = encoding::row_code_bytes(params, cols);
  for (std::int64_t row = 0; row < rows; ++row) {
    encoding::unpack_codes(params.bits, start.data().data() + static_cast<std::uint64_t>(row) * row_bytes, cols,
                           stored.data());
    for (std::int64_t c = 0; c < cols; ++c)
      levels_[index(row * cols + c)] = static_cast<float>(int{stored[index(c)]} - encoding::stored_offset(params));
  }
}

void RoundedTensor::read_blocks(const TensorView& start) {
  const BlockGrid& grid = *encoding_->grid;
  const std::int64_t rows = shape_.rows(), cols = shape_.cols(), blocks = cols / grid.block, subs = grid.n_subs();
  scales_ = parameter(name_ + ".scales", rows, blocks);
  if (grid.has_min) zeros_ = parameter(name_ + ".mins", rows, blocks);
  codes_.group = grid.sub;
  codes_.low = grid.code_min;
  codes_.high = grid.code_max;
  codes_.lows = true;
  for (int code = 0; grid.table != nullptr && code <= grid.code_max; ++code) codes_.levels.push_back(grid.table[code]);
  start_bytes_.assign(start.data().begin(), start.data().end());
  if (keeps_codes_) levels_.resize(index(rows * cols));
  BlockFields fields;
  for (std::int64_t b = 0; b < rows * blocks; ++b) {
    fields = {};
    grid.unpack(start_bytes_.data() + b * encoding_->block_bytes, fields);
    scales_.values()[b] = fields.d;
    if (grid.has_min) zeros_.values()[b] = fields.dmin;
    for (std::int64_t i = 0; i < subs; ++i) {
      sub_scales_.push_back(fields.scale[i]);
      sub_mins_.push_back(fields.min[i]);
    }
    for (std::int64_t e = 0; e < grid.block && keeps_codes_; ++e)
      levels_[index(b * grid.block + e)] = level_of(grid, fields.code[e]);
  }
}

Var RoundedTensor::values(train::Tape<float>& tape) {
  Var scales = train::spread(tape, tape.parameter(scales_), first_scales_.data(), 1), zeros;
  if (encoding_->family == Family::kBlock) {
    const std::int64_t subs = encoding_->grid->n_subs();
    scales = train::spread(tape, train::round_to(tape, scales, Dtype::kF16), sub_scales_.data(), subs);
    if (encoding_->grid->has_min) {
      const Var mins = train::spread(tape, tape.parameter(zeros_), first_mins_.data(), 1);
      zeros = train::spread(tape, train::round_to(tape, mins, Dtype::kF16), sub_mins_.data(), subs);
    }
  } else {
    scales = train::round_to(tape, scales, encoding_->affine.scale_dtype);
    const auto most = static_cast<double>((1 << encoding_->affine.bits) - 1);
    if (!encoding_->affine.symmetric)
      zeros = train::round_straight(tape, tape.parameter(zeros_), encoding_->affine.least_zero, most);
  }
  if (keeps_codes_) return train::dequantize(tape, levels_.data(), shape_.rows(), shape_.cols(), scales, zeros, codes_);
  const Var offsets = trained_.offsets ? tape.parameter(offsets_) : Var{};
  return train::fake_quantize(tape, tape.parameter(weights_), scales, zeros, offsets, codes_);
}

void RoundedTensor::hold() {
  for (std::int64_t i = 0; trained_.scales && i < scales_.size(); ++i)
    scales_.values()[i] = std::max(scales_.values()[i], kLeastMultiple);
  const auto half = static_cast<float>(offset_step() / 2);
  for (std::int64_t i = 0; trained_.offsets && i < offsets_.size(); ++i)
    offsets_.values()[i] = std::clamp(offsets_.values()[i], -half, half);
}

double RoundedTensor::offset_step() const {
  const std::vector<float>& levels = codes_.levels;
  if (levels.empty()) return 1;
  return static_cast<double>(levels.back() - levels.front()) / static_cast<double>(levels.size() - 1);
}

double RoundedTensor::mean_step() const {
  const std::int64_t rows = shape_.rows(), cols = shape_.cols();
  double sum = 0;
  std::int64_t n = 0;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t c = 0; c < cols; c += codes_.group, ++n)
      sum += std::abs(static_cast<double>(group_at(row * cols + c).scale));
  }
  return offset_step() * sum / static_cast<double>(std::max<std::int64_t>(1, n));
}

RoundedTensor::Group RoundedTensor::group_at(std::int64_t i) const {
  const std::int64_t cols = shape_.cols(), groups = (cols + codes_.group - 1) / codes_.group;
  const std::int64_t at = i / cols * groups + i % cols / codes_.group;
  if (encoding_->family == Family::kAffine) {
    const std::size_t own = scales_.size() == 1 ? 0 : index(at);
    return {scales_.values()[own] * first_scales_[own], zeros_.values()[own]};
  }
  const std::size_t block = index(at / encoding_->grid->n_subs());
  const float step = scales_.values()[block] * first_scales_[block] * sub_scales_[index(at)];
  if (!encoding_->grid->has_min) return {step, 0};
  const float low = zeros_.values()[block] * first_mins_[block] * sub_mins_[index(at)];
  return {step, step != 0 ? low / step : 0};
}

std::vector<float> RoundedTensor::into_cells(std::vector<float> original) const {
  const auto margin = static_cast<float>(0.05 * offset_step());
  std::vector<float> levels = codes_.levels;
  for (int code = static_cast<int>(codes_.low); codes_.levels.empty() && code <= static_cast<int>(codes_.high); ++code)
    levels.push_back(static_cast<float>(code));
  for (std::int64_t i = 0; i < std::ssize(original); ++i) {
    const Group group = group_at(i);
    if (group.scale == 0) continue;
    const auto level = std::ranges::lower_bound(levels, levels_[index(i)]);
    float place = original[index(i)] / group.scale + group.zero;
    if (level != levels.begin()) place = std::max(place, (level[0] + level[-1]) / 2 + margin);
    if (level + 1 != levels.end()) place = std::min(place, (level[0] + level[1]) / 2 - margin);
    original[index(i)] = (place - group.zero) * group.scale;
  }
  return original;
}

Tensor RoundedTensor::unrounded() const {
  Tensor out = train::as_f32(weights_, shape_);
  float* numbers = reinterpret_cast<float*>(out.mutable_part(PartRole::kCodes).data());
  for (std::int64_t i = 0; trained_.offsets && i < weights_.size(); ++i)
    numbers[i] += offsets_.values()[i] * group_at(i).scale;
  return out;
}

Tensor RoundedTensor::pack() const {
  Tensor out = encoding::allocate(*encoding_, shape_);
  out.set_inputs(inputs_);
  encoding_->family == Family::kAffine ? pack_affine(out) : pack_blocks(out);
  return out;
}

void RoundedTensor::pack_affine(Tensor& out) const {
  const encoding::AffineParams& params = encoding_->affine;
  const std::int64_t rows = shape_.rows(), cols = shape_.cols(), groups = scales_.cols;
  std::byte* scales = out.mutable_part(PartRole::kScales).data();
  std::byte* zeros = params.symmetric ? nullptr : out.mutable_part(PartRole::kZeros).data();
  std::vector<ScaleZero> at(index(scales_.size()));
  for (std::int64_t i = 0; i < scales_.size(); ++i) {
    const float zero = std::clamp(std::nearbyint(zeros_.values()[i]), static_cast<float>(params.least_zero),
                                  static_cast<float>((1 << params.bits) - 1));
    at[index(i)] = {encoding::round_scale(params.scale_dtype, scales_.values()[i] * first_scales_[index(i)]),
                    params.symmetric ? 0 : static_cast<int>(zero)};
    encoding::store_scale_zero(params, at[index(i)], scales, zeros, i);
  }
  const std::uint64_t row_bytes = encoding::row_code_bytes(params, cols);
  std::byte* codes = out.mutable_part(PartRole::kCodes).data();
  std::vector<std::uint8_t> stored(index(cols));
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t c = 0; c < cols; ++c) {
      const std::int64_t i = row * cols + c;
      const ScaleZero& scale = at[index(scales_.rows == 1 ? c / codes_.group : row * groups + c / codes_.group)];
      float code = 0;
      if (keeps_codes_) {
        code = levels_[index(i)];
      } else if (scale.scale == 0) {
        code = static_cast<float>(scale.zero);
      } else {
        const float offset = trained_.offsets ? offsets_.values()[i] : 0.0f;
        const float place = weights_.values()[i] * (1 / scale.scale) + static_cast<float>(scale.zero) + offset;
        code = std::clamp(std::nearbyint(place), static_cast<float>(codes_.low), static_cast<float>(codes_.high));
      }
      stored[index(c)] = static_cast<std::uint8_t>(static_cast<int>(code) + encoding::stored_offset(params));
    }
    encoding::pack_codes(params.bits, stored.data(), cols, codes + static_cast<std::uint64_t>(row) * row_bytes);
  }
}

void RoundedTensor::pack_blocks(Tensor& out) const {
  const BlockGrid& grid = *encoding_->grid;
  const std::int64_t blocks = scales_.size();
  std::byte* bytes = out.mutable_part(PartRole::kCodes).data();
  BlockFields fields;
  for (std::int64_t b = 0; b < blocks; ++b) {
    fields = {};
    grid.unpack(start_bytes_.data() + b * encoding_->block_bytes, fields);
    const float d = scales_.values()[b] * first_scales_[index(b)];
    fields.d = std::copysign(encoding::round_scale(Dtype::kF16, std::abs(d)), d);
    if (grid.has_min) {
      const float dmin = zeros_.values()[b] * first_mins_[index(b)];
      fields.dmin = std::copysign(encoding::round_scale(Dtype::kF16, std::abs(dmin)), dmin);
    }
    for (int e = 0; e < grid.block && !keeps_codes_; ++e) {
      const std::int64_t i = b * grid.block + e;
      const int sub = e / grid.sub;
      const float step = fields.d * static_cast<float>(fields.scale[sub]);
      const float low = grid.has_min ? fields.dmin * static_cast<float>(fields.min[sub]) : 0.0f;
      if (step == 0) continue;
      const float offset = trained_.offsets ? offsets_.values()[i] : 0.0f;
      const float place = weights_.values()[i] * (1 / step) + low / step + offset;
      if (grid.table == nullptr) {
        const float code =
            std::clamp(std::nearbyint(place), static_cast<float>(grid.code_min), static_cast<float>(grid.code_max));
        fields.code[e] = static_cast<std::int8_t>(code);
        continue;
      }
      int code = 0;
      while (code < grid.code_max && place >= (level_of(grid, code) + level_of(grid, code + 1)) / 2) ++code;
      fields.code[e] = static_cast<std::int8_t>(code);
    }
    grid.pack(fields, bytes + b * encoding_->block_bytes);
  }
}

}  // namespace nibble::tune
