// Files for the tests of this folder: a folder that goes away, whole files, the golden ones.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "container/checkpoint.h"

namespace nibble::container {

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = testing::TempDir() + "nibble_XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(std::string_view name, std::string_view content) const {
    write_file_atomically(path_ / name, content);
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

inline std::filesystem::path golden(std::string_view name) {
  return std::filesystem::path(NIBBLE_SOURCE_DIR) / "src/container/testdata" / name;
}

inline std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

// The bytes of tensor number `seed` in the golden files.
inline std::string pattern(std::size_t n_bytes, std::size_t seed) {
  std::string bytes(n_bytes, '\0');
  for (std::size_t i = 0; i < n_bytes; ++i) bytes[i] = static_cast<char>((i * 37 + seed * 101) % 251);
  return bytes;
}

inline std::string bytes_of(const TensorView& view) {
  return {reinterpret_cast<const char*>(view.data().data()), view.data().size()};
}

// The message of the Error that `body` throws; "" and a failed test when it throws none.
template <typename Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no Error was thrown";
  return "";
}

// How many files are refused of those that differ from `whole` in one byte of the first `header`: every bit flipped,
// and the whole byte. `parse` may throw nothing but Error.
template <typename Parse>
int count_refused_changes(const std::string& whole, std::size_t header, Parse&& parse) {
  int n_refused = 0;
  for (std::size_t at = 0; at < header; ++at) {
    for (const int mask : {1, 2, 4, 8, 16, 32, 64, 128, 255}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ mask);
      try {
        parse(changed);
      } catch (const Error&) {
        ++n_refused;
      }
    }
  }
  return n_refused;
}

}  // namespace nibble::container
