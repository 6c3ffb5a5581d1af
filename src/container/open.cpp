#include "base/error.h"
#include "base/mapped_file.h"
#include "container/checkpoint.h"
#include "container/detect.h"
#include "container/gguf/reader.h"
#include "container/hf/folder.h"
#include "container/safetensors/reader.h"

namespace nibble::container {

std::unique_ptr<CheckpointReader> open(const std::filesystem::path& path) {
  std::error_code ignored;  // what cannot be looked at is no folder; opening it says why
  if (std::filesystem::is_directory(path, ignored)) return hf::open(path);
  const auto file = MappedFile::open(path);
  const Kind kind = with_context("'" + path.string() + "'", [&] { return detect(file->bytes()); });
  return kind == Kind::kGguf ? gguf::open(path) : safetensors::open(path);
}

std::unique_ptr<CheckpointReader> open_model(const std::filesystem::path& path) {
  auto reader = open(path);
  if (reader->kind() != Kind::kSafetensors) return reader;
  auto with_config = hf::open_file(path);
  return with_config != nullptr ? std::move(with_config) : std::move(reader);
}

}  // namespace nibble::container
