#include "container/hf/format.h"

#include <algorithm>
#include <map>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "container/hf/scheme.h"
#include "encoding/codebook.h"

namespace nibble::container::hf {

namespace {

using encoding::EncodingInfo;
using encoding::Family;
using encoding::Granularity;

bool lies_in_parts(const EncodingInfo& type) { return type.family != Family::kPlain && type.family != Family::kBlock; }

bool is_tile(std::int64_t wanted, std::int64_t tile) { return wanted == kAnyTile ? tile > 0 : wanted == tile; }

bool holds_float(const Format& format, const encoding::ScaledParams& type) {
  return std::ranges::any_of(format.floats, [&](const FloatType& each) {
    const encoding::ScaledParams& params = each.params;
    const bool scale = params.scale_dtype == Dtype::kF32 ? std::ranges::count(format.scales, type.scale_dtype) > 0
                                                         : params.scale_dtype == type.scale_dtype;
    return scale && params.code == type.code && params.global_scale == type.global_scale &&
           is_tile(params.tile_rows, type.tile_rows) && is_tile(params.tile_cols, type.tile_cols);
  });
}

// Columns of a group that has a scale of its own in each row; 0: there are none.
std::int64_t group_of(const EncodingInfo& type) {
  if (type.family == Family::kScaled) return type.scaled.tile_rows == 1 ? type.scaled.tile_cols : 0;
  return type.affine.granularity == Granularity::kGroup ? type.affine.group : 0;
}

// A folder of weights some of which are made of several tensors.
class QuantizedWriter final : public CheckpointWriter {
 public:
  QuantizedWriter(const std::filesystem::path& folder, const Metadata& metadata,
                  const std::vector<PlannedTensor>& tensors, const Format& format, std::uint64_t shard_bytes)
      : format_(format) {
    for (const PlannedTensor& tensor : tensors) {
      firsts_.push_back(files_.size());
      if (lies_in_parts(*tensor.encoding)) {
        std::ranges::move(format.lay_out(tensor), std::back_inserter(files_));
      } else {
        files_.push_back(tensor);
      }
    }
    firsts_.push_back(files_.size());
    inner_ = create_hf_weights(folder, metadata, files_, shard_bytes);
  }

  std::uint64_t data_bytes() const override { return inner_->data_bytes(); }
  std::uint64_t file_bytes() const override { return inner_->file_bytes(); }
  void write(std::size_t index, std::uint64_t offset, std::span<const std::byte> bytes) override {
    inner_->write(firsts_.at(index), offset, bytes);
  }

  void write_tensor(std::size_t index, const TensorView& tensor) override {
    const std::size_t first = firsts_.at(index), end = firsts_.at(index + 1);
    if (!lies_in_parts(*tensor.encoding)) return inner_->write(first, 0, tensor.data());
    std::vector<AlignedBuffer> buffers;
    std::vector<std::span<std::byte>> files;
    for (std::size_t i = first; i < end; ++i) {
      buffers.emplace_back(encoding::tensor_bytes(*files_[i].encoding, files_[i].shape));
      files.push_back(buffers.back().bytes());
    }
    format_.pack(tensor, files);
    for (std::size_t i = first; i < end; ++i) inner_->write(i, 0, files[i - first]);
  }

  void settle(Tensor& tensor) const override {
    if (format_.settle != nullptr && lies_in_parts(*tensor.view().encoding)) format_.settle(tensor);
  }

  void commit() override { inner_->commit(); }

 private:
  const Format& format_;
  std::vector<PlannedTensor> files_;
  std::vector<std::size_t> firsts_;  // where the files of each tensor begin, and the end
  std::unique_ptr<CheckpointWriter> inner_;
};

}  // namespace

std::vector<const Format*> all_formats() {
  std::vector<const Format*> formats;
  for (const Scheme* scheme : all_entries()) {
    for (const Format& format : scheme->formats) formats.push_back(&format);
  }
  return formats;
}

const Format* find_format(std::string_view name) {
  for (const Format* format : all_formats()) {
    if (format->name == name) return format;
  }
  return nullptr;
}

std::string module_of(std::string_view tensor) { return std::string(tensor.substr(0, tensor.rfind('.'))); }

const EncodingInfo& usual_type(const QuantizedWeights& weights) {
  std::map<const EncodingInfo*, int> counts;
  const EncodingInfo* most = nullptr;
  for (const PlannedTensor& tensor : weights.tensors) {
    const int count = ++counts[tensor.encoding];
    if (most == nullptr || count > counts[most]) most = tensor.encoding;
  }
  if (most == nullptr) fail(ErrorCode::kInvalidArgument, "no tensor to quantize");
  return *most;
}

bool holds(const Format& format, const EncodingInfo& type, const encoding::ActivationInfo* inputs) {
  if (inputs != nullptr && (format.takes_inputs == nullptr || !format.takes_inputs(type, *inputs))) return false;
  if (format.any_parts) return lies_in_parts(type);
  if (type.family == Family::kCodebook) return format.blocks && encoding::has_blocks(type.codebook);
  if (type.family == Family::kScaled) return holds_float(format, type.scaled);
  if (type.family != Family::kAffine) return false;
  const encoding::AffineParams& params = type.affine;
  const bool shared = params.granularity == Granularity::kTensor    ? format.per_tensor
                      : params.granularity == Granularity::kChannel ? format.per_channel
                                                                    : format.per_group;
  if ((params.group_index && !format.indexed) || params.kept > 0) return false;
  if (format.rounded_only && inputs == nullptr) return false;
  return (format.bits >> params.bits & 1) != 0 && shared && std::ranges::count(format.scales, params.scale_dtype) > 0;
}

std::string types_text(const Format& format) {
  if (format.any_parts) return "every type of several parts (nibble alone reads it)";
  std::string bits, shared, integers, others;
  const auto add = [](std::string& text, std::string_view item) { text.append(text.empty() ? "" : ",").append(item); };
  for (int b = 0; b < 32; ++b) {
    if ((format.bits >> b & 1) != 0) add(bits, std::to_string(b));
  }
  if (format.per_tensor) add(shared, "tensor");
  if (format.per_channel) add(shared, "channel");
  if (format.per_group) add(shared, "gN");
  if (bits.find(',') != bits.npos) bits = "{" + bits + "}";
  if (!bits.empty())
    integers = format.rounded_only ? format_text("int{}-{} with rounded inputs", bits, shared)
                                   : format_text("int{}-{{{}}}[-asym]", bits, shared);
  if (format.blocks) add(others, "{nf4,fp4}[-dq][-bN]");
  for (const FloatType& each : format.floats) add(others, each.text);
  return integers + (integers.empty() || others.empty() ? "" : ", ") + others;
}

std::string misfit(const Format& format, const EncodingInfo& type, const Shape& shape) {
  if (format.any_parts) return "";
  if (shape.rank() != 2) return format_text("{} holds matrices, not stacks of them", format.name);
  if (format.blocks) return "";
  const std::int64_t rows = shape.rows(), cols = shape.cols(), group = group_of(type);
  if (!encoding::fits(type, shape)) return format_text("{} does not fit rows of {}", type.name, cols);
  if (format.whole_groups && group > 0 && cols % group != 0)
    return format_text("groups of {} do not divide rows of {}", group, cols);
  if (type.family != Family::kAffine) return "";
  const std::int64_t bits = type.affine.bits;
  if (rows * bits % format.row_bits != 0) return format_text("{} rows of {} bits fill no words", rows, bits);
  if (cols * bits % format.col_bits != 0) return format_text("{} columns of {} bits fill no words", cols, bits);
  return "";
}

std::unique_ptr<CheckpointWriter> create_quantized(const std::filesystem::path& folder, const Metadata& metadata,
                                                   const std::vector<PlannedTensor>& tensors, const Format& format,
                                                   std::uint64_t shard_bytes) {
  return std::make_unique<QuantizedWriter>(folder, metadata, tensors, format, shard_bytes);
}

}  // namespace nibble::container::hf
