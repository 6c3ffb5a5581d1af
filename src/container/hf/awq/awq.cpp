// AWQ checkpoints of version "gemm" (AutoAWQ, vLLM, transformers): 4 bits, words across outputs (qweight.h), zeros as
// they are. The scaling of activations is folded into the producing weights and leaves nothing behind.
#include "base/error.h"
#include "container/hf/qweight.h"
#include "container/hf/scheme.h"
#include "encoding/affine.h"

namespace nibble::container::hf::awq {

namespace {

constexpr std::int64_t kBits = 4;
constexpr std::int64_t kUsualGroup = 128;

std::string unread(const json::Value& quantization) {
  std::string version = quantization.get("version", "gemm");
  for (char& c : version) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  if (version != "gemm") return format_text("'version' {}", version);
  const std::int64_t bits = quantization.get("bits", quantization.get("w_bit", kBits));
  return bits == kBits ? "" : format_text("'bits' {}", bits);
}

void join(const json::Value& quantization, CheckpointContents& contents) {
  QweightForm form;
  form.packing = QweightPacking::kOutputs;
  form.sizes = {{kBits, quantization.get("group_size", quantization.get("q_group_size", kUsualGroup))}};
  join_qweights(contents, form);
}

std::vector<PlannedTensor> lay_out(const PlannedTensor& tensor) {
  const encoding::AffineParams& params = tensor.encoding->affine;
  const std::string stem = module_of(tensor.name);
  const std::int64_t rows = tensor.shape.rows(), cols = tensor.shape.cols();
  const std::int64_t groups = encoding::groups_per_row(params, cols);
  const encoding::EncodingInfo& i32 = encoding::get("i32");
  return {{stem + ".qweight", &i32, {cols, rows / 8}},
          {stem + ".qzeros", &i32, {groups, rows / 8}},
          {stem + ".scales", &encoding::get(dtype_name(params.scale_dtype)), {groups, rows}}};
}

// Eight codes, one of each row, as a word.
std::uint32_t word_of(const std::uint8_t* codes, std::int64_t stride) {
  std::uint32_t word = 0;
  for (std::size_t i = 0; i < 8; ++i) word |= std::uint32_t{codes[kAwqOrder[i] * stride]} << (4 * i);
  return word;
}

void put_word(std::span<std::byte> file, std::int64_t at, std::uint32_t word) {
  std::memcpy(file.data() + 4 * at, &word, 4);
}

void pack(const TensorView& tensor, std::span<const std::span<std::byte>> files) {
  const std::int64_t words = tensor.rows() / 8, cols = tensor.cols();
  const std::int64_t groups = encoding::groups_per_row(tensor.encoding->affine, cols);
  const std::size_t row_bytes = encoding::row_code_bytes(tensor.encoding->affine, cols);
  const std::vector<std::uint8_t> zeros = stored_zeros(tensor);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(8 * cols));
  for (std::int64_t w = 0; w < words; ++w) {
    for (std::int64_t i = 0; i < 8; ++i) {
      const std::byte* row = tensor.data().data() + static_cast<std::size_t>(8 * w + i) * row_bytes;
      encoding::unpack_codes(static_cast<int>(kBits), row, cols, codes.data() + i * cols);
    }
    for (std::int64_t k = 0; k < cols; ++k) put_word(files[0], k * words + w, word_of(codes.data() + k, cols));
    for (std::int64_t g = 0; g < groups; ++g)
      put_word(files[1], g * words + w, word_of(zeros.data() + 8 * w * groups + g, groups));
  }
  transpose_scales(tensor, files[2]);
}

json::Value config(const QuantizedWeights& weights) {
  const encoding::AffineParams& params = usual_type(weights).affine;
  json::Array kept;
  for (const std::string& module : weights.kept) kept.emplace_back(module);
  // A symmetric grid is written with zeros in the middle: every reader takes those.
  return json::Object{
      {"quant_method", "awq"},
      {"bits", kBits},
      {"group_size", params.granularity == encoding::Granularity::kGroup ? params.group : std::int64_t{-1}},
      {"version", "gemm"},
      {"zero_point", true},
      {"modules_to_not_convert", std::move(kept)}};
}

constexpr Dtype kScales[] = {Dtype::kF16};

constexpr Format kFormats[] = {{
    .name = "awq",
    .bits = 1 << kBits,
    .per_channel = true,
    .per_group = true,
    .scales = kScales,
    .row_bits = 32,
    .whole_groups = true,
    .lay_out = lay_out,
    .pack = pack,
    .config = config,
}};

}  // namespace

std::span<const Scheme> entries() {
  static constexpr Scheme kSchemes[] = {{"awq", unread, join, kFormats}};
  return kSchemes;
}

}  // namespace nibble::container::hf::awq
