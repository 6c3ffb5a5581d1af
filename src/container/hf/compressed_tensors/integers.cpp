#include "container/hf/compressed_tensors/integers.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "container/hf/scaled_floats.h"
#include "container/hf/static_inputs.h"
#include "encoding/affine.h"

namespace nibble::container::hf::compressed_tensors {

namespace {

using encoding::AffineParams;
using encoding::Granularity;

constexpr std::string_view kPacked = "_packed";

bool is_of(const TensorEntry& entry, std::string_view type) { return entry.view.encoding->name == type; }

// One linear: its tensors and, once they are looked at, its type.
struct Linear {
  TensorEntry* codes = nullptr;
  const TensorEntry *scales = nullptr, *shape = nullptr, *zeros = nullptr, *index = nullptr;  // null: not there
  bool packed = false;
  std::int64_t rows = 0, cols = 0;
  AffineParams params;
  InputRounding inputs;
};

std::vector<std::int64_t> without_ones(const Shape& shape) {
  std::vector<std::int64_t> dims;
  std::ranges::copy_if(shape.dims(), std::back_inserter(dims), [](std::int64_t dim) { return dim != 1; });
  return dims;
}

void read_sizes(Linear& linear) {
  const Shape& stored = linear.codes->view.shape;
  if (stored.rank() != 2)
    fail(ErrorCode::kUnsupported, "tensor '{}' has shape {}", linear.codes->name, stored.to_string());
  linear.rows = stored[0];
  linear.cols = stored[1];
  if (!linear.packed) return;
  if (!is_of(*linear.codes, "i32"))
    fail(ErrorCode::kFormat, "tensor '{}' is in {}, not in i32", linear.codes->name, linear.codes->view.encoding->name);
  const TensorEntry& shape = *linear.shape;
  if (!is_of(shape, "i64") || shape.view.shape != Shape({2}))
    fail(ErrorCode::kFormat, "tensor '{}' is {} of shape {}, not i64 of shape (2)", shape.name,
         shape.view.encoding->name, shape.view.shape.to_string());
  std::int64_t sizes[2];
  std::memcpy(sizes, shape.view.data().data(), sizeof(sizes));
  if (sizes[0] != linear.rows || sizes[1] < 1 || sizes[1] > stored[1] * 32) {
    fail(ErrorCode::kFormat, "tensor '{}' says ({}, {}) of '{}', which has shape {}", shape.name, sizes[0], sizes[1],
         linear.codes->name, stored.to_string());
  }
  linear.cols = sizes[1];
}

bool fits(const Linear& linear, const AffineParams& params) {
  if (linear.packed && linear.codes->view.shape[1] != words_for(linear.cols, params.bits)) return false;
  const Shape scales = encoding::scales_shape(params, {linear.rows, linear.cols});
  return without_ones(scales) == without_ones(linear.scales->view.shape) &&
         params.symmetric == (linear.zeros == nullptr);
}

void choose_type(const std::vector<IntegerGroup>& groups, Linear& linear) {
  const std::string module = module_of(linear.codes->name);
  auto type = std::ranges::find_if(groups, [&](const IntegerGroup& group) {
    return std::ranges::count(group.targets, module) > 0 && fits(linear, group.weights);
  });
  if (type == groups.end())
    type = std::ranges::find_if(groups, [&](const IntegerGroup& group) { return fits(linear, group.weights); });
  if (type == groups.end()) {
    const AffineParams& usual = groups.front().weights;
    fail(ErrorCode::kFormat,
         "tensor '{}' of shape {} with '{}' of shape {}{} is in no group of the config; {} bits of ({}, {}) would take "
         "{} "
         "words a row and scales {}{}",
         linear.codes->name, linear.codes->view.shape.to_string(), linear.scales->name,
         linear.scales->view.shape.to_string(), linear.zeros != nullptr ? " and zero points" : "", usual.bits,
         linear.rows, linear.cols, words_for(linear.cols, usual.bits),
         encoding::scales_shape(usual, {linear.rows, linear.cols}).to_string(),
         usual.symmetric ? "" : " and zero points");
  }
  linear.params = type->weights;
  linear.inputs.activation = type->inputs;
  const Dtype dtype = linear.scales->view.encoding->dtype;
  if (dtype != Dtype::kF16 && dtype != Dtype::kBf16 && dtype != Dtype::kF32)
    fail(ErrorCode::kFormat, "tensor '{}' is in {}; scales are in f16, bf16 or f32", linear.scales->name,
         dtype_name(dtype));
  linear.params.scale_dtype = dtype;
}

// Throws for groups that are not there. True when columns of a group do not lie together. -1 everywhere: never set.
bool check_index(const Linear& linear) {
  if (linear.index == nullptr || linear.params.granularity != Granularity::kGroup) return false;
  if (!is_of(*linear.index, "i32") || linear.index->view.shape != Shape({linear.cols})) {
    fail(ErrorCode::kFormat, "tensor '{}' is {} of shape {}, not i32 of shape ({})", linear.index->name,
         linear.index->view.encoding->name, linear.index->view.shape.to_string(), linear.cols);
  }
  const std::int64_t groups = encoding::groups_per_row(linear.params, linear.cols);
  bool moved = false, set = false;
  for (std::int64_t c = 0; c < linear.cols; ++c) {
    std::int32_t group;
    std::memcpy(&group, linear.index->view.data().data() + 4 * c, 4);
    set = set || group != -1;
    if (set && (group < 0 || group >= groups))
      fail(ErrorCode::kFormat, "tensor '{}': column {} is of group {}, of which there are {}", linear.index->name, c,
           group, groups);
    moved = moved || group != c / linear.params.group;
  }
  return set && moved;
}

// A tensor of the file as a part, without a copy.
void add_as_it_lies(TensorView& view, PartRole role, Dtype dtype, const TensorEntry& entry) {
  view.add_part(role, dtype, entry.view.shape, entry.view.data());
}

// Rows of words whose last bits are no codes, or of signed bytes.
void lay_out_codes(const Linear& linear, std::byte* out) {
  const int bits = linear.params.bits, offset = 1 << (bits - 1);
  const std::size_t row_bytes = encoding::row_code_bytes(linear.params, linear.cols);
  const std::byte* from = linear.codes->view.data().data();
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(linear.cols));
  for (std::int64_t row = 0; row < linear.rows; ++row, out += row_bytes) {
    if (linear.packed) {
      encoding::unpack_codes(bits, from, linear.cols, stored.data());
      from += 4 * linear.codes->view.shape[1];
    } else {
      for (std::uint8_t& code : stored) {
        const int value = static_cast<std::int8_t>(*from++) + offset;
        if (value < 0 || value >= 2 * offset)
          fail(ErrorCode::kFormat, "tensor '{}', row {}: a code of {} is beyond {} bits", linear.codes->name, row,
               value - offset, bits);
        code = static_cast<std::uint8_t>(value);
      }
    }
    encoding::pack_codes(bits, stored.data(), linear.cols, out);
  }
}

// Signed bytes, or a bit stream down each column.
void lay_out_zeros(const Linear& linear, std::span<std::byte> out) {
  const int bits = linear.params.bits;
  const TensorEntry& zeros = *linear.zeros;
  const auto n = std::ssize(out);
  if (is_of(zeros, "i8") && zeros.view.shape.elements() == n) {
    for (std::int64_t i = 0; i < n; ++i) {
      const int zero = static_cast<std::int8_t>(zeros.view.data()[static_cast<std::size_t>(i)]) + (1 << (bits - 1));
      if (zero < 0)
        fail(ErrorCode::kFormat, "tensor '{}', number {}: a zero point beyond {} bits", zeros.name, i, bits);
      out[static_cast<std::size_t>(i)] = static_cast<std::byte>(zero);
    }
    return;
  }
  const std::int64_t words = words_for(linear.rows, bits), groups = n / linear.rows;
  if (!is_of(zeros, "i32") || zeros.view.shape != Shape({words, groups})) {
    fail(ErrorCode::kFormat, "tensor '{}' is {} of shape {}, not i32 of shape ({}, {})", zeros.name,
         zeros.view.encoding->name, zeros.view.shape.to_string(), words, groups);
  }
  std::vector<std::byte> stream(static_cast<std::size_t>(4 * words));
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(linear.rows));
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t w = 0; w < words; ++w)
      std::memcpy(stream.data() + 4 * w, zeros.view.data().data() + 4 * (w * groups + g), 4);
    encoding::unpack_codes(bits, stream.data(), linear.rows, stored.data());
    for (std::int64_t r = 0; r < linear.rows; ++r)
      out[static_cast<std::size_t>(r * groups + g)] = std::byte{stored[static_cast<std::size_t>(r)]};
  }
}

TensorView make_weight(const Linear& linear, CheckpointContents& contents) {
  TensorView view;
  view.encoding = &encoding::affine_encoding(linear.params);
  view.shape = {linear.rows, linear.cols};
  const std::vector<encoding::PartPlan> parts = encoding::plan_parts(*view.encoding, view.shape);
  Tensor& laid_out = contents.laid_out.emplace_back(*view.encoding, view.shape);
  if (linear.packed && linear.cols * linear.params.bits % 32 == 0) {
    add_as_it_lies(view, PartRole::kCodes, Dtype::kU8, *linear.codes);
  } else {
    const std::span<std::byte> codes = laid_out.add_part(PartRole::kCodes, Dtype::kU8, parts[0].shape);
    lay_out_codes(linear, codes.data());
    if (const MappedFile* file = file_of(contents, linear.codes->view.data())) file->drop(linear.codes->view.data());
    view.add_part(PartRole::kCodes, Dtype::kU8, parts[0].shape, codes);
  }
  add_as_it_lies(view, PartRole::kScales, linear.params.scale_dtype, *linear.scales);
  if (linear.zeros != nullptr) {
    const std::span<std::byte> zeros = laid_out.add_part(PartRole::kZeros, Dtype::kU8, parts[2].shape);
    lay_out_zeros(linear, zeros);
    view.add_part(PartRole::kZeros, Dtype::kU8, parts[2].shape, zeros);
  }
  if (linear.params.group_index) add_as_it_lies(view, PartRole::kGroupIndex, Dtype::kI32, *linear.index);
  with_context(format_text("tensor '{}'", linear.codes->name), [&] { encoding::validate(view); });
  return view;
}

// The linear that a tensor holds the codes of; without codes: of another tensor.
Linear find_linear(const TensorJoin& joined, TensorEntry& entry) {
  Linear linear;
  linear.packed = entry.name.ends_with(".weight_packed");
  if (!linear.packed && !(entry.name.ends_with(".weight") && is_of(entry, "i8"))) return linear;
  const std::string name = linear.packed ? entry.name.substr(0, entry.name.size() - kPacked.size()) : entry.name;
  const auto part = [&](std::string_view suffix, bool needed) -> const TensorEntry* {
    const TensorEntry* found = joined.find(name + std::string(suffix));
    if (found == nullptr && needed)
      fail(ErrorCode::kFormat, "tensor '{}' is there without '{}{}'", entry.name, name, suffix);
    return found;
  };
  linear.codes = &entry;
  linear.scales = part("_scale", true);
  linear.shape = part("_shape", linear.packed);
  linear.zeros = part("_zero_point", false);
  linear.index = part("_g_idx", false);
  return linear;
}

}  // namespace

AffineParams read_integers(const json::Value& weights) {
  AffineParams params;
  const std::int64_t bits = weights.get("num_bits", 8);
  if (bits < 2 || bits > 8) fail(ErrorCode::kUnsupported, "'num_bits' {}", bits);
  params.bits = static_cast<int>(bits);
  params.symmetric = weights.get("symmetric", true);
  const std::int64_t group = weights.get("group_size", -1);
  const std::string strategy = weights.get("strategy", group > 0 ? "group" : "tensor");
  if (strategy == "tensor") {
    params.granularity = Granularity::kTensor;
  } else if (strategy == "channel" || (strategy == "group" && group == -1)) {
    params.granularity = Granularity::kChannel;
  } else if (strategy == "group") {
    if (group < 1) fail(ErrorCode::kFormat, "'group_size' {}", group);
    params.granularity = Granularity::kGroup;
    params.group = group;
  } else {
    fail(ErrorCode::kUnsupported, "'strategy' {} of weights", strategy);
  }
  return params;
}

const encoding::ActivationInfo* read_input_type(const json::Value* activations) {
  if (activations == nullptr) return nullptr;
  const std::string strategy = activations->get("strategy", "tensor"), type = activations->get("type", "int");
  const json::Value* dynamic = activations->find("dynamic");
  const bool is_dynamic = dynamic != nullptr && dynamic->is_bool() && dynamic->as_bool();
  const bool group = strategy == "group" || strategy == "tensor_group";
  const std::string scope = group                                ? format_text("g{}", activations->get("group_size", 0))
                            : is_dynamic && strategy == "tensor" ? "token"
                                                                 : strategy;
  const std::string code = type == "float" ? "fp" : type;
  const json::Value* scales = activations->find("scale_dtype");
  const bool powers = scales != nullptr && scales->is_string() && scales->as_string() == "torch.uint8";
  const std::string name = format_text("{}{}-{}{}{}", code, activations->get("num_bits", 8), scope,
                                       activations->get("symmetric", true) ? "" : "-asym", powers ? "-e8m0" : "");
  const encoding::ActivationInfo* info = encoding::find_activation(name);
  if (info == nullptr || info->is_static() == is_dynamic)
    fail(ErrorCode::kUnsupported, "'input_activations' of {} {}, {}", is_dynamic ? "dynamic" : "fixed", type, scope);
  return info;
}

void join_integers(CheckpointContents& contents, const std::vector<IntegerGroup>& groups) {
  for (const IntegerGroup& group : groups) {
    if (group.inputs != groups.front().inputs)
      fail(ErrorCode::kUnsupported, "groups of the config that differ in their 'input_activations'");
  }
  TensorJoin joined(contents.tensors);
  std::vector<Linear> linears;
  bool moved = false;
  for (TensorEntry& entry : contents.tensors) {
    Linear linear = find_linear(joined, entry);
    if (linear.codes == nullptr) continue;
    read_sizes(linear);
    choose_type(groups, linear);
    if (linear.inputs.activation != nullptr) {
      const std::string module = module_of(entry.name);
      linear.inputs = read_inputs(
          joined, *linear.inputs.activation,
          {module + ".input_scale", module + ".input_zero_point", 1 << (linear.inputs.activation->bits - 1)});
    }
    moved = check_index(linear) || moved;
    linears.push_back(linear);
  }
  for (Linear& linear : linears) {
    // Of all or of none, so that the experts of a layer are of one type.
    linear.params.group_index = moved && linear.index != nullptr && linear.params.granularity == Granularity::kGroup;
    linear.codes->view = make_weight(linear, contents);
    linear.codes->view.inputs = linear.inputs;
    for (const TensorEntry* part : {linear.scales, linear.shape, linear.zeros, linear.index}) {
      if (part != nullptr) joined.absorb(*part);
    }
  }
  joined.finish();
  for (TensorEntry& entry : contents.tensors) {
    if (entry.name.ends_with(".weight_packed")) entry.name.resize(entry.name.size() - kPacked.size());
  }
}

}  // namespace nibble::container::hf::compressed_tensors
