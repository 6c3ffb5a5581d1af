#include "token/tables.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/error.h"

namespace nibble::token {

namespace {

std::uint64_t mix(std::uint64_t value) {
  value *= 0x9E3779B97F4A7C15u;
  return value ^ value >> 32;
}

// At most three quarters full.
std::size_t slots_for(std::size_t capacity) { return std::bit_ceil(capacity + capacity / 3 + 2); }

}  // namespace

// Multiply-and-fold over eight bytes at a time.
std::uint32_t StringIndex::hash(std::string_view text) {
  std::uint64_t folded = mix(text.size() + 1);
  const char* data = text.data();
  std::size_t left = text.size();
  for (; left >= 8; left -= 8, data += 8) {
    std::uint64_t word;
    std::memcpy(&word, data, 8);
    folded = mix(folded ^ word);
  }
  std::uint64_t tail = 0;
  if (left > 0) std::memcpy(&tail, data, left);
  return static_cast<std::uint32_t>(mix(folded ^ tail));
}

StringIndex::StringIndex(const std::vector<std::string>& strings)
    : strings_(&strings), slots_(slots_for(strings.size())), mask_(slots_.size() - 1) {}

bool StringIndex::insert(std::size_t id, std::uint32_t hash) {
  const std::string& text = (*strings_)[id];
  std::size_t i = hash & mask_;
  for (; slots_[i].id >= 0; i = (i + 1) & mask_) {
    if (slots_[i].hash == hash && (*strings_)[static_cast<std::size_t>(slots_[i].id)] == text) return false;
  }
  slots_[i] = {hash, static_cast<std::int32_t>(id)};
  return true;
}

int StringIndex::find(std::string_view text, std::uint32_t hash) const {
  for (std::size_t i = hash & mask_; slots_[i].id >= 0; i = (i + 1) & mask_) {
    if (slots_[i].hash == hash && (*strings_)[static_cast<std::size_t>(slots_[i].id)] == text) return slots_[i].id;
  }
  return -1;
}

ByteTrie::ByteTrie() : edges_(64), values_(1, -1), root_(256, kNone) {}

std::size_t ByteTrie::slot(std::uint64_t key) const {
  const std::size_t mask = edges_.size() - 1;
  std::size_t i = static_cast<std::size_t>(mix(key) >> 8) & mask;
  while (edges_[i].key != kEmpty && edges_[i].key != key) i = (i + 1) & mask;
  return i;
}

void ByteTrie::grow() {
  std::vector<Edge> old(edges_.size() * 2);
  old.swap(edges_);
  for (const Edge& edge : old) {
    if (edge.key != kEmpty) edges_[slot(edge.key)] = edge;
  }
}

void ByteTrie::insert(std::string_view text, int value) {
  Node node = kRoot;
  for (char byte : text) {
    const auto index = static_cast<unsigned char>(byte);
    Node next = step(node, byte);
    if (next == kNone) {
      next = static_cast<Node>(values_.size());
      values_.push_back(-1);
      if (node == kRoot) {
        root_[index] = next;
      } else {
        if (values_.size() * 2 > edges_.size()) grow();
        const std::uint64_t key = std::uint64_t{node} << 8 | index;
        edges_[slot(key)] = {key, next};
      }
    }
    node = next;
  }
  if (values_[node] < 0) values_[node] = value;
}

ByteTrie::Node ByteTrie::step(Node node, char byte) const {
  const auto index = static_cast<unsigned char>(byte);
  if (node == kRoot) return root_[index];
  const Edge& edge = edges_[slot(std::uint64_t{node} << 8 | index)];
  return edge.target;
}

int ByteTrie::longest(std::string_view text, std::size_t& length) const {
  length = 0;
  int best = -1;
  Node node = kRoot;
  for (std::size_t i = 0; i < text.size(); ++i) {
    node = step(node, text[i]);
    if (node == kNone) break;
    if (values_[node] >= 0) {
      best = values_[node];
      length = i + 1;
    }
  }
  return best;
}

MergeTable::MergeTable(std::size_t capacity) : slots_(slots_for(capacity)), mask_(slots_.size() - 1) {}

MergeTable::MergeTable(const std::vector<std::pair<std::string, std::string>>& merges,
                       const std::vector<std::string>& tokens, const StringIndex& index)
    : MergeTable(merges.size()) {
  constexpr std::size_t kBatch = 64;
  std::array<std::uint32_t, kBatch> left_hash, right_hash;
  std::array<int, kBatch> left, right, joined;
  std::string text;
  int id = 0;
  for (std::size_t begin = 0; begin < merges.size(); begin += kBatch) {
    const std::size_t n = std::min(kBatch, merges.size() - begin);
    for (std::size_t i = 0; i < n; ++i) {
      left_hash[i] = StringIndex::hash(merges[begin + i].first);
      right_hash[i] = StringIndex::hash(merges[begin + i].second);
      index.prefetch_slot(left_hash[i]);
      index.prefetch_slot(right_hash[i]);
    }
    for (std::size_t i = 0; i < n; ++i) {
      index.prefetch_string(left_hash[i]);
      index.prefetch_string(right_hash[i]);
    }
    for (std::size_t i = 0; i < n; ++i) {
      const auto& [first, second] = merges[begin + i];
      left[i] = index.find(first, left_hash[i]);
      right[i] = index.find(second, right_hash[i]);
      text.assign(first).append(second);
      // Files name their tokens in the order in which the merges make them: mostly it is the last one again, or the
      // next.
      const auto last = static_cast<std::size_t>(std::max(id, 0));
      if (tokens[last] != text) {
        id = last + 1 < tokens.size() && tokens[last + 1] == text ? static_cast<int>(last + 1) : index.find(text);
      }
      joined[i] = id;
      if (left[i] < 0 || right[i] < 0 || id < 0) {
        fail(ErrorCode::kFormat, "merge {} ('{}' + '{}') names a token that is not there", begin + i, first, second);
      }
      prefetch_slot(left[i], right[i]);
    }
    for (std::size_t i = 0; i < n; ++i) insert(left[i], right[i], {static_cast<std::uint32_t>(begin + i), joined[i]});
  }
}

void MergeTable::insert(int left, int right, Merge merge) {
  const std::uint64_t key = key_of(left, right);
  std::size_t i = spread(key) & mask_;
  for (; slots_[i].merge.id >= 0; i = (i + 1) & mask_) {
    if (slots_[i].key == key) break;
  }
  slots_[i] = {key, merge};
}

}  // namespace nibble::token
