// The two file forms of an importance matrix; called through calib/imatrix.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "calib/imatrix.h"

namespace nibble::calib {

bool is_gguf_file(const std::filesystem::path& path);

// A GGUF file of type "imatrix": tensors `<weight>.in_sum2` (matrices, cols) and `<weight>.counts` (matrices, 1).
Imatrix load_gguf_form(const std::filesystem::path& path);
void save_gguf_form(const Imatrix& imatrix, const std::filesystem::path& path);
std::uint64_t gguf_form_bytes(const Imatrix& imatrix);

// The older form, little-endian: i32 entries, then for each i32 name length, name, i32 calls, i32 values, f32 values
// (mean * calls); at the end i32 chunk count, i32 name length and name of the text.
Imatrix load_dat_form(std::string_view bytes);
std::string to_dat_form(const Imatrix& imatrix);

}  // namespace nibble::calib
