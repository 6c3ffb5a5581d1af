// The encodings of parametrised families, made when they are first asked for.
#pragma once

#include <functional>
#include <string>

#include "encoding/encoding.h"

namespace nibble::encoding {

// The one encoding of that canonical name; `describe` is called once. Thread-safe.
const EncodingInfo& interned(const std::string& name, const std::function<EncodingInfo()>& describe);

}  // namespace nibble::encoding
