#include "base/temporary_folder.h"

#include <unistd.h>

#include <cstdlib>

#include "base/error.h"

namespace nibble {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "nibble-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) fail(ErrorCode::kIo, "cannot make a temporary folder '{}'", pattern);
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace nibble
