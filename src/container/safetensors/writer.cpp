#include <algorithm>
#include <numeric>
#include <string>

#include "base/checked.h"
#include "container/checkpoint.h"
#include "container/file_writer.h"
#include "encoding/encoding.h"

namespace nibble::container {

namespace {

json::Value describe(const PlannedTensor& tensor, const Extent& extent) {
  std::string dtype(dtype_name(tensor.encoding->dtype));
  for (char& c : dtype) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - ('a' - 'A')) : c;
  json::Array shape;
  for (const std::int64_t dim : tensor.shape.dims()) shape.emplace_back(dim);
  return json::Object{{"dtype", dtype},
                      {"shape", std::move(shape)},
                      {"data_offsets", json::Array{extent.offset, extent.offset + extent.n_bytes}}};
}

json::Value describe(const Metadata& metadata) {
  json::Object object;
  for (const auto& [key, value] : metadata.entries()) object.emplace_back(key, metadata.get_string(key));
  return object;
}

}  // namespace

std::unique_ptr<CheckpointWriter> create_safetensors(const std::filesystem::path& path, const Metadata& metadata,
                                                     std::vector<PlannedTensor> tensors) {
  return with_context("'" + path.string() + "'", [&] {
    check_plan(tensors);
    for (const PlannedTensor& tensor : tensors) {
      if (tensor.encoding->family != encoding::Family::kPlain) {
        fail(ErrorCode::kInvalidArgument, "tensor '{}': safetensors has no dtype for {}", tensor.name,
             tensor.encoding->name);
      }
    }
    // Wide numbers first, so that every tensor is aligned to its own numbers.
    std::vector<std::size_t> order(tensors.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, std::greater{},
                             [&](std::size_t i) { return dtype_bytes(tensors[i].encoding->dtype); });

    json::Object root;
    if (!metadata.entries().empty()) root.emplace_back("__metadata__", describe(metadata));
    std::vector<Extent> extents(tensors.size());
    std::uint64_t end = 0;  // in the data
    for (const std::size_t i : order) {
      extents[i] = {end, encoding::tensor_bytes(*tensors[i].encoding, tensors[i].shape)};
      root.emplace_back(tensors[i].name, describe(tensors[i], extents[i]));
      end = checked_add(end, extents[i].n_bytes);
    }
    std::string text = json::dump(root, 0);
    text.resize(checked_align(text.size(), std::size_t{8}), ' ');
    const std::uint64_t length = text.size();
    std::string header(reinterpret_cast<const char*>(&length), sizeof(length));
    header += text;
    for (Extent& extent : extents) extent.offset += header.size();
    return make_writer(path, header, std::move(extents), checked_add(std::uint64_t{header.size()}, end));
  });
}

}  // namespace nibble::container
