#include "container/lora/halves.h"

#include <algorithm>

#include "base/error.h"
#include "encoding/encoding.h"

namespace nibble::container::lora {

namespace {

constexpr std::int64_t kMostRank = 65536;

const HalfName* half_of(std::string_view name, std::span<const HalfName> names) {
  const auto found = std::ranges::find_if(names, [&](const HalfName& half) { return name.ends_with(half.end); });
  return found == names.end() ? nullptr : &*found;
}

}  // namespace

std::map<std::string, Halves> find_halves(const CheckpointReader& reader, std::span<const HalfName> names,
                                          std::string_view skipped) {
  std::map<std::string, Halves> all;
  for (const TensorEntry& entry : reader.tensors()) {
    if (!skipped.empty() && entry.name.ends_with(skipped)) continue;
    const HalfName* half = half_of(entry.name, names);
    if (half == nullptr)
      fail(ErrorCode::kUnsupported, "tensor '{}' is no half of a LoRA pair, and nothing else is read", entry.name);
    Halves& halves = all[entry.name.substr(0, entry.name.size() - half->end.size())];
    (half->is_b ? halves.b : halves.a) = &entry;
    halves.embedding = half->embedding;
  }
  for (const auto& [name, halves] : all) {
    if (halves.a != nullptr && halves.b != nullptr) continue;
    const TensorEntry* present = halves.a != nullptr ? halves.a : halves.b;
    fail(ErrorCode::kFormat, "tensor '{}' has no {} beside it", present->name, halves.a != nullptr ? "B" : "A");
  }
  if (all.empty()) fail(ErrorCode::kFormat, "an adapter without tensors");
  return all;
}

std::vector<float> read_matrix(const TensorEntry& entry) {
  const Shape& shape = entry.view.shape;
  if (shape.rank() == 3) {
    fail(ErrorCode::kUnsupported, "tensor '{}' has shape {}: adapters of stacked experts are not read", entry.name,
         shape.to_string());
  }
  if (shape.rank() != 2 || shape.elements() == 0)
    fail(ErrorCode::kFormat, "tensor '{}' has shape {}, a half of a pair is a matrix", entry.name, shape.to_string());
  if (std::min(shape[0], shape[1]) > kMostRank)
    fail(ErrorCode::kFormat, "tensor '{}' has shape {}: no side is a rank", entry.name, shape.to_string());
  with_context(format_text("tensor '{}'", entry.name), [&] { encoding::validate(entry.view); });
  if (encoding::find_not_finite(entry.view, 0, shape[0]) < shape[0])
    fail(ErrorCode::kFormat, "tensor '{}' holds a value that is NaN or infinite", entry.name);
  std::vector<float> values(static_cast<std::size_t>(shape.elements()));
  encoding::decode_rows(entry.view, 0, shape[0], values.data());
  return values;
}

std::vector<float> transposed(const std::vector<float>& matrix, std::int64_t rows, std::int64_t cols) {
  std::vector<float> out(matrix.size());
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c)
      out[static_cast<std::size_t>(c * rows + r)] = matrix[static_cast<std::size_t>(r * cols + c)];
  }
  return out;
}

std::vector<PlannedTensor> planned(const std::vector<OutputTensor>& tensors) {
  std::vector<PlannedTensor> plan;
  for (const OutputTensor& tensor : tensors)
    plan.push_back({tensor.name, &encoding::get("f32"), {tensor.rows, tensor.cols}});
  return plan;
}

void write_all(CheckpointWriter& writer, const std::vector<OutputTensor>& tensors) {
  for (std::size_t i = 0; i < tensors.size(); ++i) writer.write(i, 0, std::as_bytes(std::span(tensors[i].values)));
  writer.commit();
}

}  // namespace nibble::container::lora
