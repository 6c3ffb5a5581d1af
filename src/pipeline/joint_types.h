// Types that say how inputs are rounded beside what the weights of linears become: "w8a8", "w4a8-g128".
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "encoding/activation.h"
#include "encoding/encoding.h"

namespace nibble::pipeline {

struct JointType {
  const encoding::EncodingInfo* weights = nullptr;
  const encoding::EncodingInfo* attention = nullptr;  // of the attention half; null: as the others
  const encoding::ActivationInfo* inputs = nullptr;
  std::string_view format = {};  // that is taken where none is named; empty: the first that holds it
  const encoding::EncodingInfo* calibrated = nullptr;  // of all weights, where a text tells which columns to keep
};

std::optional<JointType> find_joint_type(std::string_view name);
std::vector<std::string_view> joint_type_names();  // "w4a8-gN"

}  // namespace nibble::pipeline
