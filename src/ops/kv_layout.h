// Where keys and values lie: in blocks of 64 positions of one head.
//
// Keys: four groups of 16 positions; a group is (head_dim, 16 positions), so that scores of 16 keys come out side by
// side without any sum across lanes. Types with scales add their halves after the codes of a group: (scale groups,
// halves of each, 16). Values: one row per position, head_dim padded to 16; the halves lie after all rows: (scale
// groups, halves of each, 64 positions). Codes of 4 bits share bytes. Of keys, byte (j, position) holds number j of the
// first half of a scale group low, number j of its second half high; of values, a byte of a row holds column c of 32
// low, column c + 16 high.
#pragma once

#include <stdint.h>

#include "ops/op_table.h"

namespace nibble::ops {

inline constexpr int kLanes = 16;
inline constexpr int kKeyBlock = 64;    // positions of a block, which attention handles at a time
inline constexpr int kQueryRows = 64;   // rows (tokens * group) of a task should not be many more
inline constexpr int kMostHead = 4096;  // numbers of a head

// How a type keeps the numbers of a head.
struct KvFormat {
  const char* name;
  int bits;            // of a number
  int group;           // numbers that share a scale; 0: there is none
  int halves;          // of a scale group: the scale or, of numbers counted from the least, the scale and the least
  bool rotated;        // keys and values are multiplied by a Hadamard matrix before they are rounded
  bool fixed = false;  // the scale is not made of the numbers but given, one for all keys and one for all values
};

inline constexpr KvFormat kKvFormats[kKvTypes] = {
    {"f32", 32, 0, 0, false},
    {"f16", 16, 0, 0, false},
    {"q8_0", 8, 32, 1, false},
    {"int8", 8, 64, 1, false},
    {"fp8", 8, kMostHead, 1, false},  // E4M3; the scale is 2^8 times that of the codes,
                                      // which are read as halves
    {"int4", 4, 32, 2, false},
    {"int8-h", 8, 64, 1, true},
    {"fp8-h", 8, kMostHead, 1, true},
    {"int4-h", 4, 32, 2, true},
    {"int8-static", 8, kMostHead, 1, false, true},  // -128 .. 127
    {"fp8-static", 8, kMostHead, 1, false, true},
};

static constexpr const KvFormat& kv_format(KvType type) { return kKvFormats[static_cast<int>(type)]; }

static inline int64_t padded_head(int head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }
static inline int64_t kv_groups(const KvFormat& format, int head_dim) {
  return format.group > 0 ? (head_dim + format.group - 1) / format.group : 0;
}
// Halves of one position.
static inline int64_t kv_halves(const KvFormat& format, int head_dim) {
  return kv_groups(format, head_dim) * format.halves;
}

// A given scale is kept as attention reads it, a half, of FP8 2^8 times it; codes are made with that half, so one of
// few bits costs no more than a few per cent of the range.
static inline bool kv_takes_scale(KvType type, float scale) {
  const float half = type == KvType::kFp8Static ? scale * 256.0f : scale;
  return half >= 0x1p-20f && half <= 65504.0f;
}

// Rotation is in runs of the largest power of two that divides the head size.
static inline int64_t kv_run(int head_dim) { return head_dim & -head_dim; }
static inline bool kv_can_keep(const KvFormat& format, int head_dim) {
  return head_dim <= kMostHead && (!format.rotated || kv_run(head_dim) >= kLanes);
}

static inline int64_t key_code_bytes(const KvFormat& format, int head_dim) {
  return kLanes * ((int64_t{head_dim} * format.bits + 7) / 8);
}
static inline int64_t key_group_bytes(const KvFormat& format, int head_dim) {
  return key_code_bytes(format, head_dim) + kLanes * 2 * kv_halves(format, head_dim);
}
static inline int64_t value_row_bytes(const KvFormat& format, int head_dim) {
  if (format.bits == 4) return (head_dim + 2 * kLanes - 1) / (2 * kLanes) * kLanes;
  return padded_head(head_dim) * format.bits / 8;
}

// Bytes of a block.
static inline int64_t key_block_bytes(KvType type, int head_dim) {
  return kKeyBlock / kLanes * key_group_bytes(kv_format(type), head_dim);
}
static inline int64_t value_block_bytes(KvType type, int head_dim) {
  const KvFormat& format = kv_format(type);
  return kKeyBlock * (value_row_bytes(format, head_dim) + 2 * kv_halves(format, head_dim));
}
static inline int64_t kv_blocks(int64_t context) { return (context + kKeyBlock - 1) / kKeyBlock; }

// Work memory of an AttentionTask of that many query rows.
static inline int64_t attention_scratch_floats(int64_t rows, int head_dim) {
  const int64_t padded_rows = (rows + 3) / 4 * 4;
  // Query, its sums by scale group (at most one per 16 numbers), output, sum lanes, maximum (padded).
  const int64_t per_row = padded_head(head_dim) * 3 + kLanes * 2;
  return padded_rows * per_row + 2 * 4 * kKeyBlock;  // weights, and those times the scales of values
}

}  // namespace nibble::ops
