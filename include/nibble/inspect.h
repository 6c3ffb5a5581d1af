// What is in a model file or folder: architecture, size, tensors, metadata.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace nibble {

struct InspectRequest {
  std::string model;  // folder, .safetensors or .gguf file
};

struct InspectedTensor {
  std::string name;                 // as the file has it
  std::string type;                 // name of the encoding
  std::vector<std::int64_t> shape;  // outermost first: (rows = outputs, cols = inputs)
  std::uint64_t bytes = 0;
  std::string inputs = "";  // how those of a linear are rounded, "int8-token"; empty: not at all
};

struct InspectReport {
  std::string path;
  std::string container;     // "GGUF file", ...
  std::string architecture;  // empty when the file does not say
  std::string name;
  std::uint64_t parameters = 0;                                // elements of all tensors
  std::uint64_t file_bytes = 0;                                // of all shards
  double bits_per_weight = 0;                                  // 8 * file_bytes / parameters
  std::vector<std::pair<std::string, std::string>> sizes;      // layers, hidden, heads, ...: what the architecture says
  std::vector<std::pair<std::string, std::string>> metadata;   // key, value as text (long arrays shortened)
  std::vector<std::pair<std::string, std::string>> tokenizer;  // kind, vocabulary, special tokens; empty: none
  std::vector<InspectedTensor> tensors;
  std::vector<std::string> notes;  // what could not be read, and why
};

// Throws Error when the file cannot be opened. A file that opens but whose architecture is unknown is reported with a
// note.
InspectReport inspect_model(const InspectRequest& request);
std::string to_json(const InspectReport& report);
std::string to_text(const InspectReport& report);

}  // namespace nibble
