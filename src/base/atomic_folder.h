// A folder that appears whole under its name, or not at all.
#pragma once

#include <filesystem>

namespace nibble {

// Files are written into a hidden folder beside the target; commit() gives it its name.
class AtomicFolder {
 public:
  // Throws Error{kInvalidArgument} when the target exists and is not an empty folder, {kIo} when its parent cannot be
  // written.
  explicit AtomicFolder(std::filesystem::path path);
  ~AtomicFolder();  // without commit(): everything in it is removed
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::filesystem::path& staging() const { return staging_; }  // where to write
  void commit();

 private:
  std::filesystem::path path_, staging_;
};

}  // namespace nibble
