// LoRA adapters: what is in one, and the other form of it.
#pragma once

#include <filesystem>
#include <string>

#include "nibble/report.h"

namespace nibble {

struct LoraRequest {
  std::filesystem::path adapter;  // PEFT folder or .gguf file
  std::filesystem::path model;    // that it is of
  std::filesystem::path output;   // .gguf file, or a PEFT folder to be made; empty: none
  bool dry_run = false;           // writes nothing
};

// Which weights it changes, with what ranks, scales and sizes. Throws Error for an adapter that is not of the model.
Report describe_lora(const LoraRequest& request);

}  // namespace nibble
