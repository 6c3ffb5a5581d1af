// A quantized folder as it lies, for tests that damage it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "container/hf/scheme.h"
#include "container/test_files.h"
#include "encoding/encoding.h"

namespace nibble::container {

// The tensors of a folder as they lie, to be changed and written again.
struct RawFolder {
  explicit RawFolder(const std::filesystem::path& from) : config(open(from)->config()) {
    const auto reader = open(from / "model.safetensors");
    for (const TensorEntry& entry : reader->tensors()) {
      const auto data = entry.view.data();
      Raw& raw = tensors.emplace_back();
      raw.plan.name = entry.name;
      raw.plan.encoding = entry.view.encoding;
      raw.plan.shape = entry.view.shape;
      raw.bytes.assign(data.begin(), data.end());
    }
  }

  struct Raw {
    PlannedTensor plan;
    std::vector<std::byte> bytes;
  };
  Raw& at(std::string_view name) {
    return *std::ranges::find(tensors, name, [](const Raw& raw) { return std::string_view(raw.plan.name); });
  }
  void erase(std::string_view name) {
    std::erase_if(tensors, [&](const Raw& raw) { return raw.plan.name == name; });
  }
  // Other bytes of the same number, zero behind the end of the old ones.
  void reshape(std::string_view name, const Shape& shape, std::string_view dtype = "") {
    Raw& raw = at(name);
    raw.plan.shape = shape;
    if (!dtype.empty()) raw.plan.encoding = &encoding::get(dtype);
    raw.bytes.resize(encoding::tensor_bytes(*raw.plan.encoding, shape));
  }
  void set_word(std::string_view name, std::size_t index, std::int32_t value) {
    std::memcpy(at(name).bytes.data() + 4 * index, &value, 4);
  }
  json::Value& quantization() {
    for (auto& [key, value] : config.as_object()) {
      if (key == "quantization_config") return value;
    }
    throw std::runtime_error("no quantization_config");
  }

  void write(const TempFolder& folder) const {
    folder.write("config.json", json::dump(config));
    std::vector<PlannedTensor> plan;
    for (const Raw& raw : tensors) plan.push_back(raw.plan);
    const auto writer = create_hf_weights(folder.path(), {}, plan);
    for (std::size_t i = 0; i < tensors.size(); ++i) writer->write(i, 0, tensors[i].bytes);
    writer->commit();
  }
  std::string fault() const {
    const TempFolder folder;
    write(folder);
    const std::string error = error_of([&] { hf::refuse_unread(open(folder.path())->config()); });
    EXPECT_EQ(error.find('\n'), std::string::npos);
    EXPECT_THAT(error, testing::HasSubstr(folder.path().string().substr(0, 0)));
    return error;
  }

  json::Value config;
  std::vector<Raw> tensors;
};

template <typename Change>
inline std::string fault_after(std::string_view name, Change&& change) {
  RawFolder folder(golden(name));
  change(folder);
  return folder.fault();
}

}  // namespace nibble::container
