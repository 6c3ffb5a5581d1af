#include "pipeline/choices.h"

#include "base/error.h"

namespace nibble::pipeline {

model::KvType parse_kv_type(std::string_view name) {
  if (name == "f32") return model::KvType::kF32;
  if (name == "f16") return model::KvType::kF16;
  if (name == "q8_0") return model::KvType::kQ8_0;
  fail(ErrorCode::kInvalidArgument, "unknown KV cache type '{}': f32, f16 or q8_0", name);
}

}  // namespace nibble::pipeline
