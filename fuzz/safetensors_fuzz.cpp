// Any bytes as a safetensors file: Error or an index whose tensors can be read.
#include "base/error.h"
#include "container/safetensors/reader.h"
#include "fuzz/read_tensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  try {
    const auto index = container::safetensors::parse(std::as_bytes(std::span(data, size)));
    fuzz::read_tensors(index.tensors);
  } catch (const Error&) {
  }
  return 0;
}
