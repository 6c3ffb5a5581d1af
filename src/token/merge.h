// The merge loop of byte-pair encoding: joins the best pair of neighbours until none is left, O(n log n).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace nibble::token {

// A run of text that is one token so far; a doubly linked list in an array.
struct Symbol {
  std::uint32_t begin = 0, length = 0;  // bytes of the text; length 0: joined to its left neighbour
  std::int32_t prev = -1, next = -1;
  std::int32_t id = -1;  // token, -1 unknown
  bool frozen = false;   // never joined
};

// What joining two neighbours would give: lower ranks come first, leftmost first among equals.
struct Candidate {
  std::uint32_t rank = 0;
  std::int32_t id = -1;  // -1: they do not join
};

struct MergeEntry {
  std::uint64_t key;  // rank << 32 | left
  std::uint32_t length;
  std::int32_t id;
  bool operator>(const MergeEntry& other) const { return key > other.key; }
};

// `join(left, right)` gives the Candidate of two neighbouring symbols. Entries that an earlier merge overtook are
// dropped: where the text alone decides what symbols join to (SentencePiece) the length tells, otherwise join() is
// asked again. `heap` is scratch.
template <bool kTextDecides, typename Join>
void merge_symbols(std::vector<Symbol>& symbols, std::vector<MergeEntry>& heap, Join&& join) {
  heap.clear();
  const auto offer = [&](std::int32_t left, std::int32_t right) {
    if (left < 0 || right < 0) return;
    const Symbol& a = symbols[static_cast<std::size_t>(left)];
    const Symbol& b = symbols[static_cast<std::size_t>(right)];
    if (a.frozen || b.frozen) return;
    const Candidate candidate = join(a, b);
    if (candidate.id < 0) return;
    heap.push_back(
        {std::uint64_t{candidate.rank} << 32 | static_cast<std::uint32_t>(left), a.length + b.length, candidate.id});
  };
  const auto push = [&](std::int32_t left, std::int32_t right) {
    const std::size_t size = heap.size();
    offer(left, right);
    if (heap.size() > size) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (std::size_t i = 1; i < symbols.size(); ++i)
    offer(static_cast<std::int32_t>(i - 1), static_cast<std::int32_t>(i));
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    const MergeEntry top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const auto left = static_cast<std::int32_t>(top.key & 0xFFFFFFFF);
    Symbol& a = symbols[static_cast<std::size_t>(left)];
    if (a.length == 0 || a.next < 0) continue;
    Symbol& b = symbols[static_cast<std::size_t>(a.next)];
    if (a.length + b.length != top.length) continue;
    if (!kTextDecides && join(a, b).id != top.id) continue;
    a.length = top.length;
    a.id = top.id;
    b.length = 0;
    a.next = b.next;
    if (a.next >= 0) symbols[static_cast<std::size_t>(a.next)].prev = left;
    push(a.prev, left);
    push(left, a.next);
  }
}

}  // namespace nibble::token
