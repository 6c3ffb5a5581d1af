#include "base/near_names.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace nibble {

namespace {

// Levenshtein distance; names are short.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
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

}  // namespace

std::string near_names(std::string_view wrong, std::span<const std::string_view> names, std::size_t n) {
  wrong = wrong.substr(0, 64);
  std::vector<std::pair<std::size_t, std::string_view>> ranked;
  for (const std::string_view name : names) ranked.emplace_back(edit_distance(wrong, name), name);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string text;
  for (std::size_t i = 0; i < std::min(n, ranked.size()); ++i) {
    text += text.empty() ? "" : ", ";
    text += ranked[i].second;
  }
  return text;
}

}  // namespace nibble
