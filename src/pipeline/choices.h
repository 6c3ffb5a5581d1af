// Words of requests and what they stand for.
#pragma once

#include <string>
#include <string_view>

#include "model/model.h"

namespace nibble::pipeline {

model::KvType parse_kv_type(std::string_view name);  // one of model::kv_type_names(); throws Error{kInvalidArgument}
model::KvType choose_kv_type(std::string_view name, const model::ModelSpec& spec,
                             model::MathPath path);  // empty: model::default_kv_type()
std::string kv_type_list();                          // "f32, f16, ..."

}  // namespace nibble::pipeline
