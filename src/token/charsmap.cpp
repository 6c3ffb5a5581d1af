#include "token/charsmap.h"

#include <cstring>

#include "base/error.h"

namespace nibble::token {

namespace {

// A unit of darts-clone: label in bits 0-7, bit 8 has_leaf, bit 9 the offset's scale, offset in bits 10-30, bit 31 leaf
// (then bits 0-30 are the value).
std::uint32_t offset_of(std::uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }
std::uint32_t label_of(std::uint32_t unit) { return unit & ((1u << 31) | 0xFF); }
bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
std::uint32_t value_of(std::uint32_t unit) { return unit & 0x7FFFFFFF; }

}  // namespace

Charsmap::Charsmap(std::string_view blob) {
  if (blob.empty()) return;
  std::uint32_t trie_bytes = 0;
  if (blob.size() <= sizeof(trie_bytes)) fail(ErrorCode::kFormat, "normalisation rules of {} bytes", blob.size());
  std::memcpy(&trie_bytes, blob.data(), sizeof(trie_bytes));
  blob.remove_prefix(sizeof(trie_bytes));
  if (trie_bytes > blob.size() || trie_bytes % 4 != 0) {
    fail(ErrorCode::kFormat, "normalisation rules: trie of {} bytes in a blob of {}", trie_bytes, blob.size());
  }
  units_.resize(trie_bytes / 4);
  if (trie_bytes > 0) std::memcpy(units_.data(), blob.data(), trie_bytes);
  replacements_.assign(blob.begin() + trie_bytes, blob.end());
  if (!replacements_.empty() && replacements_.back() != '\0') replacements_.push_back('\0');
}

bool Charsmap::longest(std::string_view text, std::size_t& length, std::string_view& replacement) const {
  return find(text, false, length, replacement);
}

bool Charsmap::shortest(std::string_view text, std::string_view& replacement) const {
  std::size_t length;
  return find(text, true, length, replacement);
}

bool Charsmap::find(std::string_view text, bool first, std::size_t& length, std::string_view& replacement) const {
  length = 0;
  if (units_.empty()) return false;
  std::uint32_t value = 0;
  std::size_t at = offset_of(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    at ^= byte;
    if (at >= units_.size()) break;
    const std::uint32_t unit = units_[at];
    if (byte == 0 || label_of(unit) != byte) break;  // a NUL would match the leaf's own label
    at ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (at >= units_.size()) break;
    value = value_of(units_[at]);
    length = i + 1;
    if (first) break;
  }
  if (length == 0 || value >= replacements_.size()) {
    length = 0;
    return false;
  }
  replacement = std::string_view(&replacements_[value]);
  return true;
}

}  // namespace nibble::token
