#include "calib/statistics_header.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "encoding/encoding.h"
#include "json/json.h"

namespace nibble::calib {

namespace {

constexpr std::string_view kVersionKey = "nibble.statistics", kVersion = "1";
constexpr std::int64_t kMostCols = std::int64_t{1} << 24, kMostMatrices = std::int64_t{1} << 20;

struct Kind {
  std::string_view name;
  bool StatisticsKinds::*member;
};
constexpr Kind kKinds[] = {
    {"gram", &StatisticsKinds::gram}, {"held-out", &StatisticsKinds::held_out}, {"ranges", &StatisticsKinds::ranges}};

json::Array strings(const std::vector<std::string>& values) {
  json::Array out;
  for (const std::string& value : values) out.emplace_back(value);
  return out;
}

std::vector<std::string> strings(const json::Value& values) {
  std::vector<std::string> out;
  for (const json::Value& value : values.as_array()) out.push_back(value.as_string());
  return out;
}

StatisticsInput parse_input(const json::Value& value) {
  StatisticsInput input;
  input.name = value.at("name").as_string();
  input.layer = checked_cast<int>(value.at("layer").as_int());
  input.matrices = value.at("matrices").as_int();
  input.cols = value.at("cols").as_int();
  input.weights = strings(value.at("weights"));
  input.slots = strings(value.at("slots"));
  if (input.matrices < 1 || input.matrices > kMostMatrices || input.cols < 1 || input.cols > kMostCols)
    fail(ErrorCode::kFormat, "input '{}' of {} matrices of {} columns", input.name, input.matrices, input.cols);
  return input;
}

}  // namespace

StatisticsKinds parse_statistics_kinds(std::string_view text) {
  StatisticsKinds kinds;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    const auto kind = std::ranges::find(kKinds, word, &Kind::name);
    if (kind == std::end(kKinds))
      fail(ErrorCode::kInvalidArgument, "unknown statistics '{}'; some of: gram,held-out,ranges", word);
    kinds.*(kind->member) = true;
    begin = end + 1;
  }
  if (kinds.held_out && !kinds.gram) fail(ErrorCode::kInvalidArgument, "held-out is a gram, too: gram,held-out");
  return kinds;
}

std::string statistics_kinds_text(const StatisticsKinds& kinds) {
  std::string text;
  for (const Kind& kind : kKinds) {
    if (kinds.*(kind.member)) text += (text.empty() ? "" : ",") + std::string(kind.name);
  }
  return text;
}

std::size_t tensors_per_input(const StatisticsKinds& kinds) {
  return 1 + (kinds.gram ? 1 : 0) + (kinds.held_out ? 2 : 0) + (kinds.ranges ? 3 : 0);
}

std::vector<container::PlannedTensor> planned_tensors(const StatisticsHeader& header) {
  const auto *const f32 = &encoding::get("f32"), *const i64 = &encoding::get("i64");
  std::vector<container::PlannedTensor> tensors;
  for (const StatisticsInput& input : header.inputs) {
    const Shape counts{input.matrices}, lines{input.matrices, input.cols};
    const Shape triangles{input.matrices, input.cols * (input.cols + 1) / 2};
    tensors.push_back({input.name + ".tokens", i64, counts});
    if (header.kinds.gram) tensors.push_back({input.name + ".gram", f32, triangles});
    if (header.kinds.held_out) {
      tensors.push_back({input.name + ".held_out_tokens", i64, counts});
      tensors.push_back({input.name + ".held_out_gram", f32, triangles});
    }
    if (!header.kinds.ranges) continue;
    for (const char* name : {".mean_square", ".mean_abs", ".max_abs"})
      tensors.push_back({input.name + name, f32, lines});
  }
  tensors.push_back({"probe", f32, {static_cast<std::int64_t>(header.inputs.size()), kProbe}});
  return tensors;
}

container::Metadata to_metadata(const StatisticsHeader& header) {
  json::Array inputs, texts;
  for (const StatisticsInput& input : header.inputs) {
    inputs.push_back(json::Object{{"name", input.name},
                                  {"layer", input.layer},
                                  {"matrices", input.matrices},
                                  {"cols", input.cols},
                                  {"weights", strings(input.weights)},
                                  {"slots", strings(input.slots)}});
  }
  for (const StatisticsText& text : header.texts) {
    texts.push_back(
        json::Object{{"name", text.name}, {"hash", text.hash}, {"tokens", text.tokens}, {"context", text.context}});
  }
  container::Metadata metadata;
  metadata.set(kVersionKey, std::string(kVersion));
  metadata.set("architecture", header.architecture);
  metadata.set("model", header.model);
  metadata.set("statistics", statistics_kinds_text(header.kinds));
  metadata.set("texts", json::dump(std::move(texts), 0));
  metadata.set("inputs", json::dump(std::move(inputs), 0));
  return metadata;
}

StatisticsHeader from_metadata(const container::Metadata& metadata) {
  if (metadata.get_string(kVersionKey, "") != kVersion)
    fail(ErrorCode::kFormat, "these are no statistics made by 'nibble calibrate'");
  StatisticsHeader header;
  header.architecture = metadata.get_string("architecture");
  header.model = metadata.get_string("model");
  header.kinds = parse_statistics_kinds(metadata.get_string("statistics"));
  const json::Value inputs = json::parse(metadata.get_string("inputs"));
  const json::Value texts = json::parse(metadata.get_string("texts"));
  for (const json::Value& input : inputs.as_array()) header.inputs.push_back(parse_input(input));
  for (const json::Value& text : texts.as_array()) {
    header.texts.push_back({text.at("name").as_string(), text.at("hash").as_string(), text.at("tokens").as_int(),
                            text.at("context").as_int()});
  }
  return header;
}

std::int64_t StatisticsHeader::tokens() const {
  std::int64_t sum = 0;
  for (const StatisticsText& text : texts) sum += text.tokens;
  return sum;
}

std::uint64_t StatisticsHeader::data_bytes() const {
  std::uint64_t sum = 0;
  for (const container::PlannedTensor& tensor : planned_tensors(*this))
    sum = checked_add(sum, encoding::tensor_bytes(*tensor.encoding, tensor.shape));
  return sum;
}

}  // namespace nibble::calib
