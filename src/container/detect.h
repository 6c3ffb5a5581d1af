// What a file is, by its content; and what is said about files that are not ours.
#pragma once

#include <cstddef>
#include <span>

#include "container/checkpoint.h"

namespace nibble::container {

// Throws Error for what people hand over by mistake: an empty file, a Git LFS pointer, a PyTorch checkpoint, the GGML
// files from before GGUF, a web page.
void refuse_foreign(std::span<const std::byte> bytes);

// kGguf or kSafetensors. Throws Error for everything else. Whether the file is whole is not looked at.
Kind detect(std::span<const std::byte> bytes);

}  // namespace nibble::container
