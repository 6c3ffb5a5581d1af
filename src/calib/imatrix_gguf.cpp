#include <array>
#include <cmath>
#include <fstream>

#include "base/checked.h"
#include "base/error.h"
#include "calib/imatrix_forms.h"
#include "container/checkpoint.h"
#include "encoding/encoding.h"

namespace nibble::calib {

namespace {

constexpr std::string_view kSumsSuffix = ".in_sum2";
constexpr std::string_view kCountsSuffix = ".counts";

std::vector<float> read_floats(const container::TensorEntry& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.view.shape.elements()));
  if (!values.empty()) encoding::decode_rows(tensor.view, 0, tensor.view.rows(), values.data());
  return values;
}

ImatrixEntry read_entry(const container::CheckpointReader& reader, std::string_view name,
                        const container::TensorEntry& sums) {
  ImatrixEntry entry;
  for (const float sum : read_floats(sums)) entry.sums.push_back(sum);
  for (const float count : read_floats(reader.at(std::string(name) + std::string(kCountsSuffix)))) {
    if (!(count >= 0) || count > 0x1p62f) fail(ErrorCode::kFormat, "entry '{}': {} tokens", name, count);
    entry.counts.push_back(std::llround(count));
  }
  return entry;
}

template <typename T>
std::vector<float> to_floats(const std::vector<T>& values) {
  std::vector<float> narrow;
  narrow.reserve(values.size());
  for (const T value : values) narrow.push_back(static_cast<float>(value));
  return narrow;
}

container::Metadata metadata_of(const Imatrix& imatrix) {
  container::Metadata metadata;
  metadata.set("general.type", std::string("imatrix"));
  metadata.set("imatrix.datasets", container::MetaArray{imatrix.datasets});
  metadata.set("imatrix.chunk_count", checked_cast<std::uint32_t>(imatrix.chunk_count));
  metadata.set("imatrix.chunk_size", checked_cast<std::uint32_t>(imatrix.chunk_size));
  return metadata;
}

std::vector<container::PlannedTensor> plan_of(const Imatrix& imatrix) {
  const encoding::EncodingInfo& f32 = encoding::get("f32");
  std::vector<container::PlannedTensor> plan;
  for (const auto& [name, entry] : imatrix.entries) {
    const auto matrices = static_cast<std::int64_t>(entry.counts.size());
    plan.push_back(
        {name + std::string(kSumsSuffix), &f32, {matrices, static_cast<std::int64_t>(entry.sums.size()) / matrices}});
    plan.push_back({name + std::string(kCountsSuffix), &f32, {matrices, 1}});
  }
  return plan;
}

}  // namespace

bool is_gguf_file(const std::filesystem::path& path) {
  std::array<char, 4> magic{};
  std::ifstream(path, std::ios::binary).read(magic.data(), magic.size());
  return std::string_view(magic.data(), magic.size()) == "GGUF";
}

Imatrix load_gguf_form(const std::filesystem::path& path) {
  const auto reader = container::open(path);
  const container::Metadata& metadata = reader->metadata();
  if (metadata.get_string("general.type", "imatrix") != "imatrix") {
    fail(ErrorCode::kFormat, "a GGUF file of type '{}', not of type 'imatrix'", metadata.get_string("general.type"));
  }
  Imatrix imatrix;
  imatrix.chunk_count = metadata.get_int("imatrix.chunk_count", 0);
  imatrix.chunk_size = metadata.get_int("imatrix.chunk_size", 0);
  if (metadata.contains("imatrix.datasets")) imatrix.datasets = metadata.get_strings("imatrix.datasets");
  std::size_t n_tensors = 0;
  for (const container::TensorEntry& tensor : reader->tensors()) {
    const std::string_view full = tensor.name;
    if (!full.ends_with(kSumsSuffix)) continue;
    const std::string_view name = full.substr(0, full.size() - kSumsSuffix.size());
    imatrix.entries.emplace(name, read_entry(*reader, name, tensor));
    n_tensors += 2;
  }
  if (n_tensors == 0)
    fail(ErrorCode::kFormat, "no tensor named '<weight>{}': a model, not an importance matrix?", kSumsSuffix);
  if (n_tensors != reader->tensors().size()) {
    fail(ErrorCode::kFormat, "{} tensors do not belong to a pair of sums and counts",
         reader->tensors().size() - n_tensors);
  }
  return imatrix;
}

std::uint64_t gguf_form_bytes(const Imatrix& imatrix) {
  return container::gguf_bytes(metadata_of(imatrix), plan_of(imatrix));
}

void save_gguf_form(const Imatrix& imatrix, const std::filesystem::path& path) {
  const auto writer = container::create_gguf(path, metadata_of(imatrix), plan_of(imatrix));
  std::size_t index = 0;
  for (const auto& [name, entry] : imatrix.entries) {
    const std::vector<float> sums = to_floats(entry.sums);
    const std::vector<float> counts = to_floats(entry.counts);
    writer->write(index++, 0, std::as_bytes(std::span(sums)));
    writer->write(index++, 0, std::as_bytes(std::span(counts)));
  }
  writer->commit();
}

}  // namespace nibble::calib
