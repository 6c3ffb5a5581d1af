// Attention over the blocks of the cache.
#pragma once

#include <stdint.h>

#include "ops/kv_layout.h"
#include "ops/lane_activation.h"
#include "ops/lane_math.h"
#include "ops/op_table.h"

namespace nibble::ops {
namespace {

struct LoadF32 {
  static constexpr int64_t kBytes = 4;
  static V load(const char* p) { return Lanes::load(reinterpret_cast<const float*>(p)); }
};
struct LoadF16 {
  static constexpr int64_t kBytes = 2;
  static V load(const char* p) { return Lanes::load_f16(reinterpret_cast<const uint16_t*>(p)); }
};
struct LoadI8 {
  static constexpr int64_t kBytes = 1;
  static V load(const char* p) { return Lanes::load_i8(reinterpret_cast<const int8_t*>(p)); }
};

constexpr int64_t kLine = 64;  // bytes of a cache line

// acc[r][v] += sum over i in [begin, end) of a[r][i] * b(i, v), where b(i, v) is the vector at b + i * step + v *
// across. Meanwhile the lines that begin at next + i * step are fetched into the second-level cache.
template <int kRows, int kVectors, typename Load>
inline void panel(const float* a, int64_t a_stride, const char* b, int64_t step, int64_t across, int64_t begin,
                  int64_t end, const char* next, V (&acc)[kRows][kVectors]) {
#pragma GCC unroll 2
  for (int64_t i = begin; i < end; ++i) {
    if (i * step % kLine == 0) __builtin_prefetch(next + i * step, 0, 2);
    V row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) row[v] = Load::load(b + i * step + v * across);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const V factor = Lanes::broadcast(a[r * a_stride + i]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[r][v] = Lanes::fma(factor, row[v], acc[r][v]);
    }
  }
}

// One block of keys and values, and where the next one lies (this one again at the end).
struct KvBlock {
  const char* k;
  const char* v;
  const char* next_k;
  const char* next_v;
};

// Four query rows over one block.
struct RowState {
  float* q;                 // (4, padded), scaled
  float* out;               // (4, padded), not yet divided by the sums
  float* sum;               // (4, 16): lanes of the sum of weights
  float* largest;           // (4): largest score so far
  int64_t lo[4], hi[4];     // keys of the block that each row sees; empty when hi <= lo
  float softcap;            // 0: none
  float slope[4];           // ALiBi: added per key, counted from the row's own; 0: none
  float first_distance[4];  // of the block's first key from the row's own
};

// Soft capping and ALiBi, where a model has them.
inline void adjust_scores(const RowState& state, int row, float* scores) {
  if (state.softcap > 0) {
    for (int i = 0; i < kKeyBlock; i += kLanes)
      Lanes::store(scores + i, softcap_lanes(Lanes::load(scores + i), state.softcap));
  }
  if (state.slope[row] == 0) return;
  for (int i = 0; i < kKeyBlock; ++i)
    scores[i] += state.slope[row] * (state.first_distance[row] + static_cast<float>(i));
}

// Scores of the keys of kVectors groups.
template <KvType kType, typename Load, int kRows, int kVectors>
inline void score_part(const RowState& state, const KvBlock& block, int head_dim, int64_t padded, int first,
                       float* scores) {
  constexpr int64_t kStep = kLanes * Load::kBytes;
  const int64_t across = key_group_bytes(kType, head_dim);
  const char* k = block.k + first * across;
  const char* next = block.next_k + first * across;
  V acc[kRows][kVectors] = {};
  if constexpr (kType != KvType::kQ8_0) {
    panel<kRows, kVectors, Load>(state.q, padded, k, kStep, across, 0, head_dim, next, acc);
  } else {
    const auto* scales = reinterpret_cast<const uint16_t*>(k + head_dim * kStep);
    for (int64_t d = 0, group = 0; d < head_dim; d += kKvGroup, ++group) {
      V part[kRows][kVectors] = {};
      const int64_t end = d + kKvGroup < head_dim ? d + kKvGroup : head_dim;
      panel<kRows, kVectors, Load>(state.q, padded, k, kStep, across, d, end, next, part);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const V scale = Lanes::load_f16(scales + v * (across / 2) + group * kLanes);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) acc[r][v] = Lanes::fma(part[r][v], scale, acc[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) Lanes::store(scores + r * kKeyBlock + (first + v) * kLanes, acc[r][v]);
  }
}

// Scores of keys that the row does not see count as none; returns the largest of the rest.
inline float mask_row(float* scores, int64_t lo, int64_t hi) {
  constexpr float kNone = -__builtin_inff();
  for (int64_t i = 0; i < lo; ++i) scores[i] = kNone;
  for (int64_t i = hi; i < kKeyBlock; ++i) scores[i] = kNone;
  V top = Lanes::load(scores);
  for (int i = kLanes; i < kKeyBlock; i += kLanes) top = Lanes::max(top, Lanes::load(scores + i));
  return max_lanes(top);
}

// Turns rows of scores into weights relative to the new maxima; alpha: the factors of what was summed so far.
template <int kRows>
inline void weigh(const RowState& state, float* scores, float* alpha) {
  alignas(64) float fall[kLanes] = {};  // of each row's maximum
  for (int r = 0; r < kRows; ++r) {
    if (state.hi[r] <= state.lo[r]) continue;
    if (state.softcap > 0 || state.slope[r] != 0) adjust_scores(state, r, scores + r * kKeyBlock);
    const float top = mask_row(scores + r * kKeyBlock, state.lo[r], state.hi[r]);
    const float new_top = top > state.largest[r] ? top : state.largest[r];
    fall[r] = state.largest[r] - new_top;
    state.largest[r] = new_top;
  }
  Lanes::store(alpha, exp_lanes(Lanes::load(fall)));
  for (int r = 0; r < kRows; ++r) {
    float* row = scores + r * kKeyBlock;
    if (state.hi[r] <= state.lo[r]) {
      for (int i = 0; i < kKeyBlock; ++i) row[i] = 0.0f;
      continue;
    }
    const V top = Lanes::broadcast(state.largest[r]);
    V total = Lanes::mul(Lanes::load(state.sum + r * kLanes), Lanes::broadcast(alpha[r]));
#pragma GCC unroll 4
    for (int i = 0; i < kKeyBlock; i += kLanes) {
      const V weight = exp_lanes(Lanes::sub(Lanes::load(row + i), top));
      Lanes::store(row + i, weight);
      total = Lanes::add(total, weight);
    }
    Lanes::store(state.sum + r * kLanes, total);
  }
}

// Adds the weighted values of kVectors vectors of columns.
template <KvType kType, typename Load, int kRows, int kVectors>
inline void value_part(const RowState& state, const KvBlock& block, int64_t padded, int64_t first, int64_t begin,
                       int64_t end, const float* weights, const float* alpha) {
  V acc[kRows][kVectors];
  float* out = state.out + first * kLanes;
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const V factor = Lanes::broadcast(alpha[r]);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[r][v] = Lanes::mul(Lanes::load(out + r * padded + v * kLanes), factor);
  }
  constexpr int64_t kStep = kLanes * Load::kBytes;
  const int64_t at = first * kStep;
  const int64_t row_bytes = padded * Load::kBytes;
  const char* next = (at % kLine == 0 ? block.next_v : block.v) + at;  // each line once
  panel<kRows, kVectors, Load>(weights, kKeyBlock, block.v + at, row_bytes, kStep, begin, end, next, acc);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) Lanes::store(out + r * padded + v * kLanes, acc[r][v]);
  }
}

// The weights times the scales of the values in columns of one group: scaled[r][key].
template <int kRows>
inline void scale_weights(const float* weights, const uint16_t* scales, float* scaled) {
  for (int key = 0; key < kKeyBlock; key += kLanes) {
    const V scale = Lanes::load_f16(scales + key);
    for (int r = 0; r < kRows; ++r) {
      Lanes::store(scaled + r * kKeyBlock + key, Lanes::mul(Lanes::load(weights + r * kKeyBlock + key), scale));
    }
  }
}

template <KvType kType, typename Load, int kRows>
void attend_rows(const RowState& state, const KvBlock& block, int head_dim, float* scores) {
  // Vectors at a time; of q8_0, no more than share a scale.
  constexpr int kGroupVectors = kKvGroup / kLanes;
  constexpr int kWide =
      kType == KvType::kQ8_0 && Lanes::kPanelVectors > kGroupVectors ? kGroupVectors : Lanes::kPanelVectors;
  const int64_t padded = padded_head(head_dim);
  for (int first = 0; first < kKeyBlock / kLanes; first += kWide) {
    score_part<kType, Load, kRows, kWide>(state, block, head_dim, padded, first, scores);
  }
  alignas(64) float alpha[kLanes];
  weigh<kRows>(state, scores, alpha);
  int64_t begin = kKeyBlock, end = 0;
  for (int r = 0; r < kRows; ++r) {
    if (state.hi[r] <= state.lo[r]) continue;
    begin = state.lo[r] < begin ? state.lo[r] : begin;
    end = state.hi[r] > end ? state.hi[r] : end;
  }
  const int64_t vectors = padded / kLanes;
  const float* weights = scores;
  const auto* scales = reinterpret_cast<const uint16_t*>(block.v + kKeyBlock * padded);
  float* scaled = scores + 4 * kKeyBlock;
  for (int64_t first = 0; first < vectors;) {
    if (kType == KvType::kQ8_0 && first % kGroupVectors == 0) {
      scale_weights<kRows>(scores, scales + first / kGroupVectors * kKeyBlock, scaled);
      weights = scaled;
    }
    if (first + kWide <= vectors) {
      value_part<kType, Load, kRows, kWide>(state, block, padded, first, begin, end, weights, alpha);
      first += kWide;
    } else {
      value_part<kType, Load, kRows, 1>(state, block, padded, first, begin, end, weights, alpha);
      ++first;
    }
  }
}

template <KvType kType, typename Load>
void attend_some_rows(int n, const RowState& state, const KvBlock& block, int head_dim, float* scores) {
  if (n == 4) return attend_rows<kType, Load, 4>(state, block, head_dim, scores);
  if (n == 3) return attend_rows<kType, Load, 3>(state, block, head_dim, scores);
  if (n == 2) return attend_rows<kType, Load, 2>(state, block, head_dim, scores);
  attend_rows<kType, Load, 1>(state, block, head_dim, scores);
}

struct TaskMemory {
  float* q;
  float* out;
  float* sum;
  float* largest;
  float* scores;
};

inline TaskMemory prepare(const AttentionTask& task) {
  const int64_t rows = int64_t{task.n_tokens} * task.group;
  const int64_t room = (rows + 3) / 4 * 4;
  const int64_t padded = padded_head(task.head_dim);
  TaskMemory memory;
  memory.q = task.scratch;
  memory.out = memory.q + room * padded;
  memory.sum = memory.out + room * padded;
  memory.largest = memory.sum + room * kLanes;
  memory.scores = memory.largest + room * kLanes;
  for (int64_t row = 0; row < rows; ++row) {
    const float* q = task.q + row / task.group * task.q_stride + row % task.group * task.head_dim;
    for (int64_t d = 0; d < task.head_dim; ++d) memory.q[row * padded + d] = q[d] * task.scale;
    for (int64_t d = 0; d < padded; ++d) memory.out[row * padded + d] = 0.0f;
    for (int lane = 0; lane < kLanes; ++lane) memory.sum[row * kLanes + lane] = 0.0f;
    memory.largest[row] = -__builtin_inff();
    if (task.sinks == nullptr) continue;
    memory.largest[row] = task.sinks[row % task.group];  // a first key without a value
    memory.sum[row * kLanes] = 1.0f;
  }
  return memory;
}

inline int64_t clamp_key(int64_t key) { return key < 0 ? 0 : key > kKeyBlock ? kKeyBlock : key; }

// The first key that a token sees.
inline int64_t first_key(const AttentionTask& task, int64_t position) {
  if (task.window == 0) return 0;
  const int64_t first = task.chunked ? position - position % task.window : position - task.window + 1;
  return first > 0 ? first : 0;
}

// Softmax over blocks of 64 keys, with the running maximum and sum of Milakov and Gimelshein (2018).
template <KvType kType, typename Load>
void attend(const AttentionTask& task) noexcept {
  const int64_t rows = int64_t{task.n_tokens} * task.group;
  const int64_t padded = padded_head(task.head_dim);
  const TaskMemory memory = prepare(task);
  const int64_t last = task.first_position + task.n_tokens - 1;
  for (int64_t base = first_key(task, task.first_position) / kKeyBlock * kKeyBlock; base <= last; base += kKeyBlock) {
    const int64_t index = base / kKeyBlock;
    const int64_t next = base + kKeyBlock <= last ? index + 1 : index;
    const KvBlock block = {at(task.k, index * task.k_stride), at(task.v, index * task.v_stride),
                           at(task.k, next * task.k_stride), at(task.v, next * task.v_stride)};
    for (int64_t row = 0; row < rows; row += 4) {
      const int n = static_cast<int>(rows - row < 4 ? rows - row : 4);
      RowState state = {memory.q + row * padded,
                        memory.out + row * padded,
                        memory.sum + row * kLanes,
                        memory.largest + row,
                        {},
                        {},
                        task.softcap,
                        {},
                        {}};
      bool any = false;
      for (int r = 0; r < n; ++r) {
        const int64_t position = task.first_position + (row + r) / task.group;
        state.lo[r] = clamp_key(first_key(task, position) - base);
        state.hi[r] = clamp_key(position + 1 - base);
        any = any || state.hi[r] > state.lo[r];
        if (task.slopes == nullptr) continue;
        state.slope[r] = task.slopes[(row + r) % task.group];
        state.first_distance[r] = static_cast<float>(base - position);
      }
      if (any) attend_some_rows<kType, Load>(n, state, block, task.head_dim, memory.scores);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    const float inverse = 1.0f / sum_lanes(Lanes::load(memory.sum + row * kLanes));
    float* out = task.out + row / task.group * task.out_stride + row % task.group * task.head_dim;
    for (int64_t d = 0; d < task.head_dim; ++d) out[d] = memory.out[row * padded + d] * inverse;
  }
}

}  // namespace
}  // namespace nibble::ops
