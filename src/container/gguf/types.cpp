#include "container/gguf/types.h"

#include <algorithm>

#include "base/error.h"

namespace nibble::container::gguf {

namespace {

struct TypeName {
  std::uint32_t id;
  std::string_view name;
};

// ggml.h; 4, 5, 31..33, 37 and 38 are retired there. 36 and from 97 on: ik_llama.cpp.
constexpr TypeName kTypes[] = {
    {0, "f32"},       {1, "f16"},         {2, "q4_0"},        {3, "q4_1"},      {4, "q4_2"},     {5, "q4_3"},
    {6, "q5_0"},      {7, "q5_1"},        {8, "q8_0"},        {9, "q8_1"},      {10, "q2_k"},    {11, "q3_k"},
    {12, "q4_k"},     {13, "q5_k"},       {14, "q6_k"},       {15, "q8_k"},     {16, "iq2_xxs"}, {17, "iq2_xs"},
    {18, "iq3_xxs"},  {19, "iq1_s"},      {20, "iq4_nl"},     {21, "iq3_s"},    {22, "iq2_s"},   {23, "iq4_xs"},
    {24, "i8"},       {25, "i16"},        {26, "i32"},        {27, "i64"},      {28, "f64"},     {29, "iq1_m"},
    {30, "bf16"},     {31, "q4_0_4_4"},   {32, "q4_0_4_8"},   {33, "q4_0_8_8"}, {34, "tq1_0"},   {35, "tq2_0"},
    {36, "i2_s"},     {37, "iq4_nl_4_8"}, {38, "iq4_nl_8_8"}, {39, "mxfp4"},    {40, "nvfp4"},   {41, "q1_0"},
    {42, "q2_0"},     {97, "q8_0_x4"},    {133, "q6_0"},      {134, "iq1_bn"},  {135, "iq2_bn"}, {137, "iq2_k"},
    {138, "iq3_k"},   {139, "iq4_k"},     {140, "iq5_k"},     {141, "iq6_k"},   {144, "iq4_ks"}, {145, "iq2_ks"},
    {146, "iq4_kss"}, {151, "q8_kv"},     {152, "iq5_ks"},    {153, "iq2_kt"},  {154, "iq3_kt"}, {155, "iq4_kt"},
    {156, "iq3_ks"},  {157, "iq2_kl"},    {158, "iq1_kt"},
};

}  // namespace

std::string_view type_name(std::uint32_t id) {
  const auto it = std::ranges::find(kTypes, id, &TypeName::id);
  return it == std::end(kTypes) ? std::string_view() : it->name;
}

const encoding::EncodingInfo& encoding_of(std::uint32_t id) {
  const std::string_view name = type_name(id);
  if (name.empty()) fail(ErrorCode::kUnsupported, "unknown ggml type {}", id);
  const encoding::EncodingInfo* info = encoding::find(name);
  if (info == nullptr) fail(ErrorCode::kUnsupported, "ggml type {} ({}) is not supported", id, name);
  return *info;
}

std::optional<std::uint32_t> type_id(const encoding::EncodingInfo& encoding) {
  const auto it = std::ranges::find(kTypes, encoding.name, &TypeName::name);
  return it == std::end(kTypes) ? std::nullopt : std::optional(it->id);
}

}  // namespace nibble::container::gguf
