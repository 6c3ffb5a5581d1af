#include "container/hf/qweight.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "container/hf/scaled_floats.h"
#include "encoding/affine.h"

namespace nibble::container::hf {

namespace {

constexpr std::string_view kWeight = ".qweight";
constexpr int kWordBits = 32;

// One linear: its tensors and what their shapes say.
struct Module {
  TensorEntry* weight = nullptr;
  const TensorEntry* zeros = nullptr;
  const TensorEntry* scales = nullptr;
  const TensorEntry* index = nullptr;  // null: none
  std::int64_t rows = 0, cols = 0, groups = 0;
  encoding::AffineParams params;
};

std::int64_t cell(const TensorEntry& entry, std::int64_t i) {
  std::int32_t value;
  std::memcpy(&value, entry.view.data().data() + 4 * i, 4);
  return value;
}

void check(const TensorEntry& entry, const Shape& expected, const TensorEntry& of) {
  if (entry.view.shape == expected) return;
  fail(ErrorCode::kFormat, "tensor '{}' has shape {}, that of '{}' would be {}", entry.name,
       entry.view.shape.to_string(), of.name, expected.to_string());
}

void check_words(const TensorEntry& entry, int rank) {
  if (entry.view.encoding->name != "i32")
    fail(ErrorCode::kFormat, "tensor '{}' is in {}, not in i32", entry.name, entry.view.encoding->name);
  if (entry.view.shape.rank() != rank || entry.view.shape.elements() == 0)
    fail(ErrorCode::kFormat, "tensor '{}' has shape {}", entry.name, entry.view.shape.to_string());
}

const TensorEntry& part_of(const TensorJoin& joined, const TensorEntry& weight, std::string_view suffix) {
  const std::string name = weight.name.substr(0, weight.name.size() - kWeight.size()) + std::string(suffix);
  const TensorEntry* part = joined.find(name);
  if (part == nullptr) fail(ErrorCode::kFormat, "tensor '{}' is there without '{}'", weight.name, name);
  return *part;
}

Dtype scale_dtype(const TensorEntry& scales) {
  const Dtype dtype = scales.view.encoding->dtype;
  if (dtype == Dtype::kF16 || dtype == Dtype::kBf16 || dtype == Dtype::kF32) return dtype;
  fail(ErrorCode::kFormat, "tensor '{}' is in {}; scales are in f16, bf16 or f32", scales.name, dtype_name(dtype));
}

// The number of bits follows from the zeros, that of inputs from the codes.
void measure(const QweightForm& form, Module& module) {
  check_words(*module.weight, 2);
  check_words(*module.zeros, 2);
  const Shape& words = module.weight->view.shape;
  const bool along_inputs = form.packing == QweightPacking::kInputs;
  if (module.scales->view.shape.rank() != 2)
    fail(ErrorCode::kFormat, "tensor '{}' has shape {}", module.scales->name, module.scales->view.shape.to_string());
  module.groups = module.scales->view.shape[0];
  module.rows = module.scales->view.shape[1];
  const std::int64_t zero_words = module.zeros->view.shape[1];
  const std::int64_t bits = module.rows > 0 ? zero_words * kWordBits / module.rows : 0;
  if ((!along_inputs && bits != 4) || std::ranges::count(form.sizes, bits, &QweightForm::Sizes::bits) == 0 ||
      bits * module.rows != zero_words * kWordBits) {
    fail(ErrorCode::kFormat, "tensor '{}' has shape {}, which holds no zeros of {} bits for the {} outputs of '{}'",
         module.zeros->name, module.zeros->view.shape.to_string(), form.sizes.front().bits, module.rows,
         module.scales->name);
  }
  check(*module.zeros, {module.groups, zero_words}, *module.scales);
  check(*module.weight, {words[0], along_inputs ? module.rows : zero_words}, *module.scales);
  module.cols = along_inputs ? words[0] * kWordBits / bits : words[0];
  if (along_inputs && module.cols * bits != words[0] * kWordBits)
    fail(ErrorCode::kFormat, "tensor '{}' has {} rows of words, which end within a code of {} bits",
         module.weight->name, words[0], bits);
  module.params.bits = static_cast<int>(bits);
  module.params.scale_dtype = scale_dtype(*module.scales);
}

void choose_groups(const QweightForm& form, Module& module) {
  for (const auto& [bits, group] : form.sizes) {
    const bool whole = group < 1;
    if (bits != module.params.bits) continue;
    if (module.groups != (whole ? 1 : (module.cols + group - 1) / group)) continue;
    module.params.granularity = whole ? encoding::Granularity::kChannel : encoding::Granularity::kGroup;
    module.params.group = whole ? 0 : group;
    return;
  }
  fail(ErrorCode::kFormat, "tensor '{}' has {} groups for the {} inputs of '{}', with a 'group_size' of {}",
       module.scales->name, module.groups, module.cols, module.weight->name, form.sizes.front().group);
}

// Throws for groups that are not there. True when inputs of a group do not lie together.
bool check_index(const Module& module) {
  if (module.index == nullptr) return false;
  check_words(*module.index, 1);
  check(*module.index, {module.cols}, *module.weight);
  bool moved = false;
  const std::int64_t group =
      module.params.granularity == encoding::Granularity::kGroup ? module.params.group : module.cols;
  for (std::int64_t k = 0; k < module.cols; ++k) {
    const std::int64_t at = cell(*module.index, k);
    if (at < 0 || at >= module.groups) {
      fail(ErrorCode::kFormat, "tensor '{}': input {} is of group {}, of which there are {}", module.index->name, k, at,
           module.groups);
    }
    moved = moved || at != k / group;
  }
  return moved;
}

Module describe(const TensorJoin& joined, TensorEntry& weight, const QweightForm& form) {
  Module module;
  module.weight = &weight;
  module.zeros = &part_of(joined, weight, ".qzeros");
  module.scales = &part_of(joined, weight, ".scales");
  const std::string stem = weight.name.substr(0, weight.name.size() - kWeight.size());
  module.index = joined.find(stem + ".g_idx");
  measure(form, module);
  choose_groups(form, module);
  module.params.group_index = check_index(module);
  return module;
}

// The zeros of group `group`, (N).
void read_zeros(const QweightForm& form, const Module& module, std::int64_t group, std::uint8_t* out) {
  const std::int64_t words = module.zeros->view.shape[1];
  const std::byte* row = module.zeros->view.data().data() + 4 * group * words;
  encoding::unpack_codes(module.params.bits, row, module.rows, out);
  if (form.packing == QweightPacking::kOutputs) {
    for (std::int64_t n = 0; n < module.rows; n += 8) {
      std::array<std::uint8_t, 8> nibbles;
      std::copy_n(out + n, 8, nibbles.begin());
      for (std::size_t i = 0; i < 8; ++i) out[n + kAwqOrder[i]] = nibbles[i];
    }
  }
  for (std::int64_t n = 0; n < module.rows; ++n) {
    const int zero = out[n] + form.zero_offset;
    if (zero > 255)
      fail(ErrorCode::kFormat, "tensor '{}', group {}, output {}: a zero of {}", module.zeros->name, group, n, zero);
    out[n] = static_cast<std::uint8_t>(zero);
  }
}

bool zeros_are_middle(const QweightForm& form, const Module& module) {
  std::vector<std::uint8_t> zeros(static_cast<std::size_t>(module.rows));
  for (std::int64_t g = 0; g < module.groups; ++g) {
    read_zeros(form, module, g, zeros.data());
    if (std::ranges::any_of(zeros, [&](int zero) { return zero != 1 << (module.params.bits - 1); })) return false;
  }
  return true;
}

// Words that hold eight outputs of an input each.
void lay_out_outputs(const Module& module, std::byte* codes) {
  const std::int64_t words = module.rows / 8, cols = module.cols;
  const std::uint64_t row_bytes = encoding::row_code_bytes(module.params, cols);
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(8 * cols));
  for (std::int64_t w = 0; w < words; ++w) {
    for (std::int64_t k = 0; k < cols; ++k) {
      const auto word = static_cast<std::uint32_t>(cell(*module.weight, k * words + w));
      for (std::size_t i = 0; i < 8; ++i)
        stored[static_cast<std::size_t>(kAwqOrder[i] * cols + k)] = static_cast<std::uint8_t>(word >> (4 * i) & 15);
    }
    for (std::int64_t i = 0; i < 8; ++i)
      encoding::pack_codes(4, stored.data() + i * cols, cols,
                           codes + static_cast<std::uint64_t>(8 * w + i) * row_bytes);
  }
}

Tensor lay_out(const QweightForm& form, const Module& module) {
  const std::int64_t rows = module.rows, cols = module.cols, groups = module.groups;
  Tensor tensor = encoding::allocate(encoding::affine_encoding(module.params), {rows, cols});
  const std::byte* words = module.weight->view.data().data();
  std::byte* codes = tensor.mutable_part(PartRole::kCodes).data();
  if (form.packing == QweightPacking::kOutputs) {
    lay_out_outputs(module, codes);
  } else {  // a row of codes is a column of words
    transpose(reinterpret_cast<const std::array<std::byte, 4>*>(words), module.weight->view.shape[0], rows,
              reinterpret_cast<std::array<std::byte, 4>*>(codes));
  }
  const std::byte* scales = module.scales->view.data().data();
  std::byte* scales_out = tensor.mutable_part(PartRole::kScales).data();
  if (module.params.scale_dtype == Dtype::kF32) {
    transpose(reinterpret_cast<const std::array<std::byte, 4>*>(scales), groups, rows,
              reinterpret_cast<std::array<std::byte, 4>*>(scales_out));
  } else {
    transpose(reinterpret_cast<const std::array<std::byte, 2>*>(scales), groups, rows,
              reinterpret_cast<std::array<std::byte, 2>*>(scales_out));
  }
  if (!module.params.symmetric) {
    std::vector<std::uint8_t> zeros(static_cast<std::size_t>(groups * rows));
    for (std::int64_t g = 0; g < groups; ++g) read_zeros(form, module, g, zeros.data() + g * rows);
    transpose(zeros.data(), groups, rows,
              reinterpret_cast<std::uint8_t*>(tensor.mutable_part(PartRole::kZeros).data()));
  }
  if (module.params.group_index)
    std::ranges::copy(module.index->view.data(), tensor.mutable_part(PartRole::kGroupIndex).begin());
  return tensor;
}

void drop(const CheckpointContents& contents, const TensorEntry& entry) {
  if (const MappedFile* file = file_of(contents, entry.view.data())) file->drop(entry.view.data());
}

}  // namespace

void join_qweights(CheckpointContents& contents, const QweightForm& form) {
  TensorJoin joined(contents.tensors);
  std::vector<Module> modules;
  bool symmetric = true, moved = false;
  for (TensorEntry& entry : contents.tensors) {
    if (!entry.name.ends_with(kWeight)) continue;
    modules.push_back(describe(joined, entry, form));
    moved = moved || modules.back().params.group_index;
    symmetric = symmetric && zeros_are_middle(form, modules.back());
  }
  for (Module& module : modules) {
    // Of all or of none, so that the experts of a layer are of one type.
    module.params.symmetric = symmetric;
    module.params.group_index =
        moved && module.index != nullptr && module.params.granularity == encoding::Granularity::kGroup;
    const Tensor& tensor = contents.laid_out.emplace_back(lay_out(form, module));
    for (const TensorEntry* entry : {static_cast<const TensorEntry*>(module.weight), module.scales, module.zeros})
      drop(contents, *entry);
    module.weight->view = tensor.view();
    joined.absorb(*module.zeros);
    joined.absorb(*module.scales);
    if (module.index != nullptr) joined.absorb(*module.index);
  }
  joined.finish();
  for (TensorEntry& entry : contents.tensors) {
    if (entry.name.ends_with(".qzeros"))
      fail(ErrorCode::kFormat, "tensor '{}' is there without its codes ('.qweight')", entry.name);
    if (entry.name.ends_with(kWeight))
      entry.name.replace(entry.name.size() - kWeight.size(), kWeight.size(), ".weight");
  }
}

std::vector<std::uint8_t> stored_zeros(const TensorView& tensor) {
  const encoding::AffineParams& params = tensor.encoding->affine;
  const auto n = static_cast<std::size_t>(encoding::scales_shape(params, tensor.shape).elements());
  if (params.symmetric) return std::vector<std::uint8_t>(n, static_cast<std::uint8_t>(encoding::stored_offset(params)));
  const auto zeros = tensor.part(PartRole::kZeros).bytes;
  std::vector<std::uint8_t> out(n);
  std::memcpy(out.data(), zeros.data(), n);
  return out;
}

void transpose_scales(const TensorView& tensor, std::span<std::byte> out) {
  const encoding::AffineParams& params = tensor.encoding->affine;
  const std::int64_t rows = tensor.rows(), groups = encoding::groups_per_row(params, tensor.cols());
  const std::byte* scales = tensor.part(PartRole::kScales).bytes.data();
  transpose(reinterpret_cast<const std::array<std::byte, 2>*>(scales), rows, groups,
            reinterpret_cast<std::array<std::byte, 2>*>(out.data()));
}

}  // namespace nibble::container::hf
