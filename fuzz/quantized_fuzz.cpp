// A line of JSON as quantization_config and any bytes behind it as a safetensors file: Error or tensors that can be
// read.
#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "container/hf/scheme.h"
#include "container/safetensors/reader.h"
#include "fuzz/read_tensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t line = std::min(text.find('\n'), size);
  try {
    container::CheckpointContents contents;
    contents.config.set("quantization_config", json::parse(text.substr(0, line)));
    const auto file = std::as_bytes(std::span(data, size)).subspan(std::min(line + 1, size));
    contents.tensors = container::safetensors::parse(file).tensors;
    container::hf::join_quantized(contents);
    fuzz::read_tensors(contents.tensors);
    container::hf::refuse_unread(contents.config);
  } catch (const Error&) {
  }
  return 0;
}
