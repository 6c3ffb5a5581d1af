#include "pipeline/joint_types.h"

#include <charconv>

namespace nibble::pipeline {

namespace {

// An N in a name stands for a number, which goes over into its encodings.
struct Row {
  std::string_view name, weights, attention, inputs, format = {}, calibrated = {};
};
constexpr Row kRows[] = {
    {"w8a8", "int8-channel", "", "int8-token"},
    {"w8a8-static", "int8-channel", "", "int8-tensor"},
    {"w8a8-tensor-static", "int8-tensor", "", "int8-tensor"},
    {"w4a8-gN", "int4-gN", "", "int8-token"},
    {"w4a4", "int4-channel", "", "int4-token"},
    // The presets FP8_DYNAMIC, FP8, FP8_BLOCK (the form of DeepSeek V3, arXiv 2412.19437, 3.3.2) and MXFP8 of
    // compressed-tensors.
    {"w8a8-fp8", "fp8-channel", "", "fp8-token"},
    {"w8a8-fp8-static", "fp8-tensor", "", "fp8-tensor"},
    {"w8a8-fp8-block128", "fp8-block128", "", "fp8-g128"},
    {"w8a8-mxfp8", "mxfp8", "", "fp8-g32-e8m0"},
    // ZeroQuant (Yao et al., arXiv 2206.01861): groups of a weight, tokens of inputs; 4 bits in the feed-forward half.
    {"zeroquant-w8a8", "int8-g128", "", "int8-token"},
    {"zeroquant-w4a8-gN", "int4-gN", "int8-gN", "int8-token"},
    // LLM.int8() (Dettmers et al., arXiv 2208.07339) with its threshold of 6. Outlier features are few: up to 7 in
    // models of up to 13B, 3.1.
    {"llm-int8", "int8-channel", "", "int8-token-over6", "nibble", "int8-channel-kept8"},
};

// The number that stands in `name` for the N of `pattern`; 0: another name.
std::int64_t number_in(std::string_view pattern, std::string_view name) {
  const std::string_view front = pattern.substr(0, pattern.size() - 1);
  if (!pattern.ends_with("gN") || !name.starts_with(front)) return 0;
  std::int64_t number = 0;
  const char* begin = name.data() + front.size();
  const auto [end, error] = std::from_chars(begin, name.data() + name.size(), number);
  return error == std::errc() && end == name.data() + name.size() && number > 0 ? number : 0;
}

const encoding::EncodingInfo* with_number(std::string_view type, std::int64_t number) {
  if (type.empty()) return nullptr;
  if (!type.ends_with("gN")) return &encoding::get(type);
  return encoding::find(std::string(type.substr(0, type.size() - 1)) + std::to_string(number));
}

}  // namespace

std::optional<JointType> find_joint_type(std::string_view name) {
  for (const Row& row : kRows) {
    const std::int64_t number = number_in(row.name, name);
    if (name != row.name && number == 0) continue;
    const JointType type = {with_number(row.weights, number), with_number(row.attention, number),
                            &encoding::get_activation(row.inputs), row.format, with_number(row.calibrated, number)};
    if (type.weights != nullptr) return type;
  }
  return std::nullopt;
}

std::vector<std::string_view> joint_type_names() {
  std::vector<std::string_view> names;
  for (const Row& row : kRows) names.push_back(row.name);
  return names;
}

}  // namespace nibble::pipeline
