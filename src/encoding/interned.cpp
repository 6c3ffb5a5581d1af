#include "encoding/interned.h"

#include <map>
#include <memory>
#include <mutex>

namespace nibble::encoding {

const EncodingInfo& interned(const std::string& name, const std::function<EncodingInfo()>& describe) {
  static std::mutex mutex;
  static std::map<std::string, std::unique_ptr<const EncodingInfo>, std::less<>> table;
  const std::lock_guard lock(mutex);
  auto& slot = table[name];
  if (slot == nullptr) slot = std::make_unique<const EncodingInfo>(describe());
  return *slot;
}

}  // namespace nibble::encoding
