// Where keys and values lie: in blocks of 64 positions of one head.
//
// Keys: four groups of 16 positions; a group is (head_dim, 16 positions), so that scores of 16 keys come out side by
// side without any sum across lanes. q8_0 keys add the scales after the codes of a group: (head_dim / 32 rounded up,
// 16) halves. Values: one row per position, head_dim padded to 16; q8_0 adds the scales after all rows: (columns / 32
// rounded up, 64 positions) halves.
#pragma once

#include <stdint.h>

#include "ops/op_table.h"

namespace nibble::ops {

inline constexpr int kLanes = 16;
inline constexpr int kKeyBlock = 64;   // positions of a block, which attention handles at a time
inline constexpr int kKvGroup = 32;    // numbers that share a scale in q8_0
inline constexpr int kQueryRows = 64;  // rows (tokens * group) of a task should not be many more

static inline int64_t padded_head(int head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }
static inline int64_t kv_groups(int head_dim) { return (head_dim + kKvGroup - 1) / kKvGroup; }
static inline int64_t kv_number_bytes(KvType type) { return type == KvType::kF32 ? 4 : type == KvType::kF16 ? 2 : 1; }

static inline int64_t key_group_bytes(KvType type, int head_dim) {
  return kLanes * (head_dim * kv_number_bytes(type) + (type == KvType::kQ8_0 ? kv_groups(head_dim) * 2 : 0));
}
static inline int64_t value_row_bytes(KvType type, int head_dim) {
  return padded_head(head_dim) * kv_number_bytes(type);
}

// Bytes of a block.
static inline int64_t key_block_bytes(KvType type, int head_dim) {
  return kKeyBlock / kLanes * key_group_bytes(type, head_dim);
}
static inline int64_t value_block_bytes(KvType type, int head_dim) {
  const int64_t scales = type == KvType::kQ8_0 ? kv_groups(head_dim) * 2 : 0;
  return kKeyBlock * (value_row_bytes(type, head_dim) + scales);
}
static inline int64_t kv_blocks(int64_t context) { return (context + kKeyBlock - 1) / kKeyBlock; }

// Work memory of an AttentionTask of that many query rows.
static inline int64_t attention_scratch_floats(int64_t rows, int head_dim) {
  const int64_t padded_rows = (rows + 3) / 4 * 4;
  const int64_t per_row = padded_head(head_dim) * 2 + kLanes * 2;  // query, output, sum lanes, maximum (padded)
  return padded_rows * per_row + 2 * 4 * kKeyBlock;                // weights, and those times the scales of values
}

}  // namespace nibble::ops
