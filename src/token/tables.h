// The look-up tables of tokenizers: strings to ids, byte tries, pairs of ids to merges. Built once, then read by any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble::token {

// Token text -> id, over a vector of strings that outlives it. Open addressing with linear probing over eight-byte
// slots.
class StringIndex {
 public:
  explicit StringIndex(const std::vector<std::string>& strings);
  // Makes strings[id] known; false where an equal text is there already (its id stays).
  bool insert(std::size_t id) { return insert(id, hash((*strings_)[id])); }
  int find(std::string_view text) const { return find(text, hash(text)); }  // -1: absent

  // The same in steps, for many texts at once: a table of a whole vocabulary lies in far memory, so ask for all slots
  // first, then for the strings they name, then compare.
  static std::uint32_t hash(std::string_view text);
  void prefetch_slot(std::uint32_t hash) const { __builtin_prefetch(&slots_[hash & mask_]); }
  void prefetch_string(std::uint32_t hash) const {
    const std::int32_t id = slots_[hash & mask_].id;
    if (id >= 0) __builtin_prefetch(&(*strings_)[static_cast<std::size_t>(id)]);
  }
  bool insert(std::size_t id, std::uint32_t hash);
  int find(std::string_view text, std::uint32_t hash) const;

 private:
  struct Slot {
    std::uint32_t hash = 0;
    std::int32_t id = -1;
  };
  const std::vector<std::string>* strings_;
  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
};

// Set of byte strings walked byte by byte.
class ByteTrie {
 public:
  using Node = std::uint32_t;
  static constexpr Node kRoot = 0;
  static constexpr Node kNone = 0xFFFFFFFF;

  ByteTrie();
  void insert(std::string_view text, int value);  // an existing value stays
  bool empty() const { return values_.size() == 1; }
  Node step(Node node, char byte) const;
  int value(Node node) const { return values_[node]; }  // -1: no string ends here
  // Value and length of the longest string that `text` begins with; -1 and 0 without one.
  int longest(std::string_view text, std::size_t& length) const;

 private:
  struct Edge {
    std::uint64_t key = kEmpty;  // node << 8 | byte
    Node target = kNone;
  };
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  std::size_t slot(std::uint64_t key) const;
  void grow();
  std::vector<Edge> edges_;
  std::vector<int> values_;
  std::vector<Node> root_;  // children of the root by byte
};

// (left id, right id) -> (rank, merged id).
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank = 0;
    std::int32_t id = -1;
  };
  explicit MergeTable(std::size_t capacity = 0);
  // Merges by rank, best first, over the texts of `index`. Throws Error{kFormat} for one whose parts or whole are no
  // tokens.
  MergeTable(const std::vector<std::pair<std::string, std::string>>& merges, const std::vector<std::string>& tokens,
             const StringIndex& index);
  void insert(int left, int right, Merge merge);  // replaces an old one of the same pair
  const Merge* find(int left, int right) const {
    const std::uint64_t key = key_of(left, right);
    for (std::size_t i = spread(key) & mask_;; i = (i + 1) & mask_) {
      if (slots_[i].merge.id < 0) return nullptr;
      if (slots_[i].key == key) return &slots_[i].merge;
    }
  }

 private:
  struct Slot {
    std::uint64_t key = 0;
    Merge merge;
  };
  void prefetch_slot(int left, int right) const { __builtin_prefetch(&slots_[spread(key_of(left, right)) & mask_]); }
  static std::uint64_t key_of(int left, int right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }
  static std::size_t spread(std::uint64_t key) {
    key *= 0x9E3779B97F4A7C15u;
    return static_cast<std::size_t>(key >> 29);
  }
  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
};

}  // namespace nibble::token
