// Words of requests and what they stand for.
#pragma once

#include <string_view>

#include "model/kv_cache.h"

namespace nibble::pipeline {

model::KvType parse_kv_type(std::string_view name);  // "f32", "f16", "q8_0"; throws Error{kInvalidArgument}

}  // namespace nibble::pipeline
