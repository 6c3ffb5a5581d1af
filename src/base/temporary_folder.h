// A new folder that is removed with everything in it at the end of the scope.
#pragma once

#include <filesystem>
#include <string>

namespace nibble {

class TemporaryFolder {
 public:
  // In $TMPDIR, else /tmp. Throws Error{kIo}.
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace nibble
