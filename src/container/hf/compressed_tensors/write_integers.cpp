// How integers are written: codes in words or bytes, scales, zero points and the groups of the config.
#include <algorithm>
#include <cstring>
#include <vector>

#include "container/hf/compressed_tensors/integers.h"
#include "encoding/affine.h"

namespace nibble::container::hf::compressed_tensors {

namespace {

using encoding::AffineParams;
using encoding::Granularity;

// With inputs that are rounded: the package has codes of signed bytes then.
std::vector<PlannedTensor> lay_out_bytes(const PlannedTensor& tensor) {
  const AffineParams& params = tensor.encoding->affine;
  const encoding::EncodingInfo &i8 = encoding::get("i8"), &scale = encoding::get(dtype_name(params.scale_dtype));
  const bool whole = params.granularity == Granularity::kTensor;
  const Shape scales =
      whole ? Shape({1}) : Shape({tensor.shape.rows(), encoding::groups_per_row(params, tensor.shape.cols())});
  std::vector<PlannedTensor> files = {{tensor.name, &i8, tensor.shape}, {tensor.name + "_scale", &scale, scales}};
  if (!params.symmetric) files.push_back({tensor.name + "_zero_point", &i8, scales});
  if (!tensor.inputs->is_static()) return files;
  files.push_back({module_of(tensor.name) + ".input_scale", &encoding::get("f32"), {1}});
  if (!tensor.inputs->symmetric) files.push_back({module_of(tensor.name) + ".input_zero_point", &i8, {1}});
  return files;
}

std::byte signed_byte(int code, int bits) { return static_cast<std::byte>(code - (1 << (bits - 1))); }

void pack_bytes(const TensorView& tensor, std::span<const std::span<std::byte>> files) {
  const AffineParams& params = tensor.encoding->affine;
  const std::size_t row_bytes = encoding::row_code_bytes(params, tensor.cols());
  const auto cols = static_cast<std::size_t>(tensor.cols());
  std::vector<std::uint8_t> stored(cols);
  for (std::size_t row = 0; row < static_cast<std::size_t>(tensor.rows()); ++row) {
    encoding::unpack_codes(params.bits, tensor.data().data() + row * row_bytes, tensor.cols(), stored.data());
    for (std::size_t c = 0; c < cols; ++c) files[0][row * cols + c] = signed_byte(stored[c], params.bits);
  }
  std::ranges::copy(tensor.part(PartRole::kScales).bytes, files[1].begin());
  std::size_t next = 2;
  if (!params.symmetric) {
    std::ranges::transform(tensor.part(PartRole::kZeros).bytes, files[next++].begin(),
                           [&](std::byte zero) { return signed_byte(std::to_integer<int>(zero), params.bits); });
  }
  const InputRounding& inputs = tensor.inputs;
  if (!inputs.activation->is_static()) return;
  std::memcpy(files[next].data(), &inputs.scale, 4);
  if (!inputs.activation->symmetric) files[next + 1][0] = signed_byte(inputs.zero, inputs.activation->bits);
}

}  // namespace

std::vector<PlannedTensor> lay_out_integers(const PlannedTensor& tensor) {
  if (tensor.inputs != nullptr) return lay_out_bytes(tensor);
  const AffineParams& params = tensor.encoding->affine;
  const std::int64_t rows = tensor.shape.rows(), cols = tensor.shape.cols();
  const encoding::EncodingInfo& i32 = encoding::get("i32");
  const bool whole = params.granularity == Granularity::kTensor;
  const Shape scales = whole ? Shape({1}) : Shape({rows, encoding::groups_per_row(params, cols)});
  std::vector<PlannedTensor> files = {{tensor.name + "_packed", &i32, {rows, words_for(cols, params.bits)}},
                                      {tensor.name + "_scale", &encoding::get(dtype_name(params.scale_dtype)), scales},
                                      {tensor.name + "_shape", &encoding::get("i64"), {2}}};
  if (!params.symmetric) {
    const PlannedTensor zeros = {
        tensor.name + "_zero_point", &i32, {words_for(rows, params.bits), scales.dims().back()}};
    files.push_back(whole ? PlannedTensor{zeros.name, &encoding::get("i8"), {1}} : zeros);
  }
  if (params.group_index) files.push_back({tensor.name + "_g_idx", &i32, {cols}});
  return files;
}

namespace {

void pack_zeros(const TensorView& tensor, std::span<std::byte> out) {
  const AffineParams& params = tensor.encoding->affine;
  const std::span<const std::byte> zeros = tensor.part(PartRole::kZeros).bytes;
  if (params.granularity == Granularity::kTensor) {
    out[0] = static_cast<std::byte>(std::to_integer<int>(zeros[0]) - (1 << (params.bits - 1)));
    return;
  }
  const std::int64_t rows = tensor.rows(), groups = encoding::groups_per_row(params, tensor.cols());
  const std::int64_t words = words_for(rows, params.bits);
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(rows));
  for (std::int64_t g = 0; g < groups; ++g) {
    std::vector<std::byte> stream(static_cast<std::size_t>(4 * words) + 8);
    for (std::int64_t r = 0; r < rows; ++r)
      stored[static_cast<std::size_t>(r)] =
          std::to_integer<std::uint8_t>(zeros[static_cast<std::size_t>(r * groups + g)]);
    encoding::pack_codes(params.bits, stored.data(), rows, stream.data());
    for (std::int64_t w = 0; w < words; ++w) std::memcpy(out.data() + 4 * (w * groups + g), stream.data() + 4 * w, 4);
  }
}

}  // namespace

void pack_integers(const TensorView& tensor, std::span<const std::span<std::byte>> files) {
  if (tensor.inputs.activation != nullptr) return pack_bytes(tensor, files);
  const AffineParams& params = tensor.encoding->affine;
  const std::size_t row_bytes = encoding::row_code_bytes(params, tensor.cols());
  const std::size_t stride = static_cast<std::size_t>(4 * words_for(tensor.cols(), params.bits));
  for (std::int64_t row = 0; row < tensor.rows(); ++row) {
    std::byte* to = files[0].data() + static_cast<std::size_t>(row) * stride;
    std::memcpy(to, tensor.data().data() + static_cast<std::size_t>(row) * row_bytes, row_bytes);
    std::memset(to + row_bytes, 0, stride - row_bytes);
  }
  std::ranges::copy(tensor.part(PartRole::kScales).bytes, files[1].begin());
  const std::int64_t sizes[] = {tensor.rows(), tensor.cols()};
  std::memcpy(files[2].data(), sizes, sizeof(sizes));
  if (!params.symmetric) pack_zeros(tensor, files[3]);
  if (params.group_index) std::ranges::copy(tensor.part(PartRole::kGroupIndex).bytes, files.back().begin());
}

json::Value describe_integers(const AffineParams& params) {
  const bool group = params.granularity == Granularity::kGroup;
  json::Value value = json::Object{{"num_bits", params.bits}, {"type", "int"}, {"symmetric", params.symmetric}};
  value.set("strategy", group ? "group" : params.granularity == Granularity::kChannel ? "channel" : "tensor");
  value.set("group_size", group ? json::Value(params.group) : json::Value());
  value.set("block_structure", nullptr);
  value.set("dynamic", false);
  value.set("actorder", params.group_index ? json::Value("group") : json::Value());
  return value;
}

json::Value describe_inputs(const encoding::ActivationInfo* inputs) {
  if (inputs == nullptr) return {};
  const bool group = inputs->scope == encoding::InputScope::kGroup;
  const bool integers = inputs->code == encoding::InputCode::kInteger;
  json::Value value =
      json::Object{{"num_bits", inputs->bits}, {"type", integers ? "int" : "float"}, {"symmetric", inputs->symmetric}};
  value.set("strategy", group ? "group" : inputs->is_static() ? "tensor" : "token");
  value.set("group_size", group ? json::Value(inputs->group) : json::Value());
  value.set("block_structure", nullptr);
  value.set("dynamic", !inputs->is_static());
  value.set("actorder", nullptr);
  if (inputs->powers_of_two) value.set("scale_dtype", "torch.uint8");
  return value;
}

}  // namespace nibble::container::hf::compressed_tensors
