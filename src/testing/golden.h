// Numbers of a peer, saved in a safetensors file.
#pragma once

#include <cstring>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "container/checkpoint.h"

namespace nibble::testing {

class GoldenFile {
 public:
  explicit GoldenFile(const std::filesystem::path& path) : reader_(container::open(path)) {}
  // The bytes of a tensor as numbers of T; throws Error{kNotFound}.
  template <typename T>
  std::vector<T> values(std::string_view name) const {
    const auto bytes = reader_->at(name).view.data();
    std::vector<T> out(bytes.size() / sizeof(T));
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }

 private:
  std::unique_ptr<container::CheckpointReader> reader_;
};

}  // namespace nibble::testing
