#include "container/hf/bnb/eight_bits.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "container/hf/scaled_floats.h"
#include "encoding/affine.h"

namespace nibble::container::hf::bnb {

namespace {

constexpr std::string_view kWeight = ".weight", kAbsmax = ".SCB", kOrder = ".weight_format";
constexpr std::string_view kOrders[] = {"row", "col32", "col_turing", "col_ampere"};  // by their number
constexpr float kInverse = 1.0f / 127;
constexpr std::byte kSign{0x80};  // a stored code is the code + 128

float scale_of(float absmax) { return absmax * kInverse; }

const encoding::ActivationInfo& read_inputs(const json::Value& quantization) {
  const double threshold = quantization.get("llm_int8_threshold", kUsualThreshold);
  return encoding::get_activation(threshold > 0 ? format_text("int8-token-over{}", threshold) : "int8-token");
}

// f32 numbers.
template <typename Change>
void change_numbers(std::span<const std::byte> from, std::span<std::byte> to, Change&& change) {
  for (std::size_t at = 0; at < to.size(); at += sizeof(float)) {
    float value;
    std::memcpy(&value, from.data() + at, sizeof value);
    value = change(value);
    std::memcpy(to.data() + at, &value, sizeof value);
  }
}

void copy_codes(std::span<const std::byte> from, std::span<std::byte> to) {
  std::ranges::transform(from, to.begin(), [](std::byte code) { return code ^ kSign; });
}

bool is_codes(const TensorEntry& entry) {
  return entry.name.ends_with(kWeight) && entry.view.encoding->name == "i8" && entry.view.shape.rank() == 2;
}

// f32 (rows), finite and not negative. A row of zeros has one of 0.
const TensorEntry& find_absmax(const TensorJoin& joined, const TensorEntry& codes) {
  const std::string name = module_of(codes.name) + std::string(kAbsmax);
  const TensorEntry* entry = joined.find(name);
  if (entry == nullptr) fail(ErrorCode::kFormat, "tensor '{}' is in i8, but '{}' is not there", codes.name, name);
  const Shape wanted = {codes.view.shape.rows()};
  if (entry->view.encoding->name != "f32" || entry->view.shape != wanted) {
    fail(ErrorCode::kFormat, "tensor '{}' is {} of shape {}, not f32 of shape {}", name, entry->view.encoding->name,
         entry->view.shape.to_string(), wanted.to_string());
  }
  for (std::int64_t row = 0; row < wanted[0]; ++row) {
    float absmax;
    std::memcpy(&absmax, entry->view.data().data() + 4 * row, 4);
    if (!std::isfinite(absmax) || absmax < 0)
      fail(ErrorCode::kFormat, "tensor '{}', row {}: {} is no largest magnitude", name, row, absmax);
  }
  return *entry;
}

// Older files have none.
void absorb_order(TensorJoin& joined, const TensorEntry& codes) {
  const TensorEntry* entry = joined.find(module_of(codes.name) + std::string(kOrder));
  if (entry == nullptr) return;
  if (entry->view.encoding->name != "u8" || entry->view.shape.elements() != 1) {
    fail(ErrorCode::kFormat, "tensor '{}' is {} of shape {}, not one number in u8", entry->name,
         entry->view.encoding->name, entry->view.shape.to_string());
  }
  const auto order = std::to_integer<std::size_t>(entry->view.data()[0]);
  if (order != 0) {
    fail(ErrorCode::kUnsupported, "tensor '{}' is {} ({}): only rows as they are (0) are read", entry->name, order,
         order < std::size(kOrders) ? kOrders[order] : "unknown");
  }
  joined.absorb(*entry);
}

void join_weight(CheckpointContents& contents, TensorJoin& joined, TensorEntry& codes,
                 const encoding::ActivationInfo& inputs) {
  const TensorEntry& absmax = find_absmax(joined, codes);
  absorb_order(joined, codes);
  const encoding::EncodingInfo& type = encoding::get("int8-channel");
  Tensor& laid_out = contents.laid_out.emplace_back(type, codes.view.shape);
  const std::span<const std::byte> from = codes.view.data();
  copy_codes(from, laid_out.add_part(PartRole::kCodes, Dtype::kU8, codes.view.shape));
  change_numbers(absmax.view.data(), laid_out.add_part(PartRole::kScales, Dtype::kF32, absmax.view.shape), scale_of);
  laid_out.set_inputs({&inputs});
  if (const MappedFile* file = file_of(contents, from)) file->drop(from);
  joined.absorb(absmax);
  codes.view = laid_out.view();
}

}  // namespace

float absmax_of(float scale) {
  const float nearest = std::min(scale * 127, std::numeric_limits<float>::max());
  float best = nearest;
  int most = -1;  // low bits of the mantissa that are zero
  for (const float near : {nearest, std::nextafter(nearest, 0.0f), std::nextafter(nearest, HUGE_VALF)}) {
    const int zeros = std::countr_zero(std::bit_cast<std::uint32_t>(near));
    if (!std::isfinite(near) || scale_of(near) != scale || zeros <= most) continue;
    best = near;
    most = zeros;
  }
  return best;
}

std::string unread_eight_bits(const json::Value& quantization) {
  // Its files hold 16 bits, which are rounded as a program loads them.
  return quantization.get("llm_int8_has_fp16_weight", false) ? "'llm_int8_has_fp16_weight'" : "";
}

void join_eight_bits(const json::Value& quantization, CheckpointContents& contents) {
  const encoding::ActivationInfo& inputs = read_inputs(quantization);
  TensorJoin joined(contents.tensors);
  for (TensorEntry& entry : contents.tensors) {
    if (is_codes(entry)) join_weight(contents, joined, entry, inputs);
  }
  joined.finish();
  for (const TensorEntry& entry : contents.tensors) {
    if (entry.name.ends_with(kAbsmax) || entry.name.ends_with(kOrder)) {
      fail(ErrorCode::kFormat, "tensor '{}' is there, but '{}{}' is no matrix in i8", entry.name, module_of(entry.name),
           kWeight);
    }
  }
}

// --- writing ---

bool holds_rounded(const encoding::EncodingInfo& weights, const encoding::ActivationInfo& inputs) {
  return weights.family == encoding::Family::kAffine && weights.affine.symmetric && inputs.symmetric &&
         inputs.code == encoding::InputCode::kInteger && inputs.bits == 8 &&
         inputs.scope == encoding::InputScope::kToken;
}

std::vector<PlannedTensor> lay_out_eight_bits(const PlannedTensor& tensor) {
  const std::string module = module_of(tensor.name);
  return {{tensor.name, &encoding::get("i8"), tensor.shape},
          {module + std::string(kAbsmax), &encoding::get("f32"), {tensor.shape.rows()}},
          {module + std::string(kOrder), &encoding::get("u8"), {}}};
}

void settle_eight_bits(Tensor& tensor) {
  const std::span<std::byte> scales = tensor.mutable_part(PartRole::kScales);
  change_numbers(scales, scales, [](float scale) { return scale_of(absmax_of(scale)); });
}

void pack_eight_bits(const TensorView& tensor, std::span<const std::span<std::byte>> files) {
  copy_codes(tensor.data(), files[0]);
  change_numbers(tensor.part(PartRole::kScales).bytes, files[1], absmax_of);
  files[2][0] = std::byte{0};
}

}  // namespace nibble::container::hf::bnb
