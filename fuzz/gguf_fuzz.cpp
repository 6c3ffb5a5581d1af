// Any bytes as a GGUF file: Error or an index whose tensors can be read, and a vocabulary or Error.
#include "base/error.h"
#include "container/gguf/reader.h"
#include "container/gguf/vocabulary.h"
#include "fuzz/read_tensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  try {
    const auto index = container::gguf::parse(std::as_bytes(std::span(data, size)));
    fuzz::read_tensors(index.tensors);
    container::gguf::read_vocabulary(index.metadata);
  } catch (const Error&) {
  }
  return 0;
}
