#include "base/atomic_folder.h"

#include <unistd.h>

#include "base/error.h"

namespace nibble {

namespace fs = std::filesystem;

AtomicFolder::AtomicFolder(fs::path path) : path_(std::move(path)) {
  if (!path_.has_filename()) path_ = path_.parent_path();  // "out/"
  std::error_code error;
  if (fs::exists(path_, error) && !(fs::is_directory(path_, error) && fs::is_empty(path_, error))) {
    fail(ErrorCode::kInvalidArgument, "'{}' exists already; give the name of a new folder", path_.string());
  }
  staging_ = path_.parent_path() / ("." + path_.filename().string() + "." + std::to_string(getpid()) + ".tmp");
  fs::remove_all(staging_, error);
  if (!fs::create_directory(staging_, error)) {
    fail_errno("cannot make a folder for '" + path_.string() + "'", error.value());
  }
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!staging_.empty()) fs::remove_all(staging_, ignored);
}

void AtomicFolder::commit() {
  std::error_code error;
  fs::rename(staging_, path_, error);
  if (error) fail_errno("cannot name the folder '" + path_.string() + "'", error.value());
  staging_.clear();
}

}  // namespace nibble
