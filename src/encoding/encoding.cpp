#include "encoding/encoding.h"

#include <algorithm>
#include <unordered_map>

#include "base/checked.h"

namespace nibble::encoding {

namespace {

const std::unordered_map<std::string_view, const EncodingInfo*>& index_by_name() {
  static const auto index = [] {
    std::unordered_map<std::string_view, const EncodingInfo*> map;
    for (const EncodingInfo* info : all_entries()) map.emplace(info->name, info);
    return map;
  }();
  return index;
}

// Levenshtein distance; names are short.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
      diagonal = row[j];
      row[j] = std::min({replace, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

// The five names closest to a wrong one.
std::string near_names(std::string_view name) {
  std::vector<std::pair<std::size_t, std::string_view>> ranked;
  for (const EncodingInfo* info : all_entries()) ranked.emplace_back(edit_distance(name, info->name), info->name);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(5, ranked.size()); ++i) {
    text += text.empty() ? "" : ", ";
    text += ranked[i].second;
  }
  return text;
}

}  // namespace

const EncodingInfo* find(std::string_view name) {
  const auto& index = index_by_name();
  const auto found = index.find(name);
  return found != index.end() ? found->second : nullptr;
}

const EncodingInfo& get(std::string_view name) {
  if (const EncodingInfo* info = find(name)) return *info;
  fail(ErrorCode::kInvalidArgument, "no encoding '{}'; near names: {}", name.substr(0, 64),
       near_names(name.substr(0, 64)));
}

bool fits(const EncodingInfo& info, const Shape& shape) { return shape.cols() % info.block_elements == 0; }

std::uint64_t row_bytes(const EncodingInfo& info, std::int64_t cols) {
  if (cols < 0 || cols % info.block_elements != 0) {
    fail(ErrorCode::kFormat, "rows of {} elements do not exist in {}: its blocks hold {}", cols, info.name,
         info.block_elements);
  }
  return checked_mul(static_cast<std::uint64_t>(cols / info.block_elements),
                     static_cast<std::uint64_t>(info.block_bytes));
}

std::uint64_t tensor_bytes(const EncodingInfo& info, const Shape& shape) {
  return checked_mul(static_cast<std::uint64_t>(shape.rows()), row_bytes(info, shape.cols()));
}

void decode_rows(const TensorView& view, std::int64_t row_begin, std::int64_t row_end, float* out) {
  const std::int64_t cols = view.cols();
  const std::uint64_t stride = row_bytes(*view.encoding, cols);
  view.encoding->decode(view.data().data() + static_cast<std::uint64_t>(row_begin) * stride, out,
                        (row_end - row_begin) * cols);
}

void validate(const TensorView& view) {
  const EncodingInfo& info = *view.encoding;
  if (view.n_parts != 1 || view.parts[0].role != PartRole::kCodes) {
    fail(ErrorCode::kFormat, "a tensor in {} has one part, this one has {}", info.name, view.n_parts);
  }
  const std::uint64_t expected = tensor_bytes(info, view.shape);
  if (view.data().size() != expected) {
    fail(ErrorCode::kFormat, "a tensor {} in {} takes {} bytes, here are {}", view.shape.to_string(), info.name,
         expected, view.data().size());
  }
}

}  // namespace nibble::encoding
