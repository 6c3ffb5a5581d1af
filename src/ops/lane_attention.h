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

// acc[r][v] += sum over i in [begin, end) of a[r][i] * b(i, v), where b(i, v) is the vector at b + i * step + v *
// across.
template <int kRows, int kVectors, typename Load>
inline void panel(const float* a, int64_t a_stride, const char* b, int64_t step, int64_t across, int64_t begin,
                  int64_t end, V (&acc)[kRows][kVectors]) {
  for (int64_t i = begin; i < end; ++i) {
    V row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = Load::load(b + i * step + v * across);
    for (int r = 0; r < kRows; ++r) {
      const V factor = Lanes::broadcast(a[r * a_stride + i]);
      for (int v = 0; v < kVectors; ++v) acc[r][v] = Lanes::fma(factor, row[v], acc[r][v]);
    }
  }
}

// One block of keys and values as a panel sees it.
struct KvBlock {
  const char* k;  // 16 keys of dimension d at k + d * 16 numbers; the next 16 keys k_across further
  int64_t k_across;
  const char* v;  // rows of values, v_step apart
  int64_t v_step;
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

template <int kRows, int kVectors, typename Load>
inline void score_part(const RowState& state, const KvBlock& block, int head_dim, int64_t padded, int first,
                       float* scores) {
  V acc[kRows][kVectors];
  for (auto& row : acc) {
    for (V& v : row) v = Lanes::broadcast(0.0f);
  }
  panel<kRows, kVectors, Load>(state.q, padded, block.k + first * block.k_across, kLanes * Load::kBytes, block.k_across,
                               0, head_dim, acc);
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) Lanes::store(scores + r * kKeyBlock + (first + v) * kLanes, acc[r][v]);
  }
}

// Turns a row of scores into weights relative to the new maximum; returns the factor of what was summed so far.
inline float weigh_row(float* scores, int64_t lo, int64_t hi, float* sum, float* largest) {
  constexpr float kNone = -__builtin_inff();
  if (hi <= lo) {
    for (int i = 0; i < kKeyBlock; ++i) scores[i] = 0.0f;
    return 1.0f;
  }
  for (int64_t i = 0; i < lo; ++i) scores[i] = kNone;
  for (int64_t i = hi; i < kKeyBlock; ++i) scores[i] = kNone;
  V top = Lanes::load(scores);
  for (int i = kLanes; i < kKeyBlock; i += kLanes) top = Lanes::max(top, Lanes::load(scores + i));
  const float block_top = max_lanes(top);
  const float new_top = block_top > *largest ? block_top : *largest;
  V alpha = exp_lanes(Lanes::broadcast(*largest - new_top));
  *largest = new_top;
  V total = Lanes::mul(Lanes::load(sum), alpha);
  for (int i = 0; i < kKeyBlock; i += kLanes) {
    const V weight = exp_lanes(Lanes::sub(Lanes::load(scores + i), Lanes::broadcast(new_top)));
    Lanes::store(scores + i, weight);
    total = Lanes::add(total, weight);
  }
  Lanes::store(sum, total);
  alignas(64) float lane[kLanes];
  Lanes::store(lane, alpha);
  return lane[0];
}

template <int kRows, int kVectors, typename Load>
inline void value_part(const RowState& state, const KvBlock& block, int64_t padded, int64_t first, int64_t begin,
                       int64_t end, const float* weights, const float* alpha) {
  V acc[kRows][kVectors];
  float* out = state.out + first * kLanes;
  for (int r = 0; r < kRows; ++r) {
    const V factor = Lanes::broadcast(alpha[r]);
    for (int v = 0; v < kVectors; ++v) acc[r][v] = Lanes::mul(Lanes::load(out + r * padded + v * kLanes), factor);
  }
  panel<kRows, kVectors, Load>(weights, kKeyBlock, block.v + first * kLanes * Load::kBytes, block.v_step,
                               kLanes * Load::kBytes, begin, end, acc);
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) Lanes::store(out + r * padded + v * kLanes, acc[r][v]);
  }
}

template <int kRows, typename Load>
void attend_rows(const RowState& state, const KvBlock& block, int head_dim, float* scores) {
  constexpr int kWide = Lanes::kPanelVectors;
  const int64_t padded = padded_head(head_dim);
  for (int first = 0; first < kKeyBlock / kLanes; first += kWide) {
    score_part<kRows, kWide, Load>(state, block, head_dim, padded, first, scores);
  }
  float alpha[kRows];
  int64_t begin = kKeyBlock, end = 0;
  for (int r = 0; r < kRows; ++r) {
    if (state.softcap > 0 || state.slope[r] != 0) adjust_scores(state, r, scores + r * kKeyBlock);
    alpha[r] = weigh_row(scores + r * kKeyBlock, state.lo[r], state.hi[r], state.sum + r * kLanes, state.largest + r);
    if (state.hi[r] <= state.lo[r]) continue;
    begin = state.lo[r] < begin ? state.lo[r] : begin;
    end = state.hi[r] > end ? state.hi[r] : end;
  }
  const int64_t vectors = padded / kLanes;
  int64_t first = 0;
  for (; first + kWide <= vectors; first += kWide) {
    value_part<kRows, kWide, Load>(state, block, padded, first, begin, end, scores, alpha);
  }
  for (; first < vectors; ++first) value_part<kRows, 1, Load>(state, block, padded, first, begin, end, scores, alpha);
}

template <typename Load>
void attend_some_rows(int n, const RowState& state, const KvBlock& block, int head_dim, float* scores) {
  if (n == 4) return attend_rows<4, Load>(state, block, head_dim, scores);
  if (n == 3) return attend_rows<3, Load>(state, block, head_dim, scores);
  if (n == 2) return attend_rows<2, Load>(state, block, head_dim, scores);
  attend_rows<1, Load>(state, block, head_dim, scores);
}

// A block of q8_0 keys and values decoded into `out`: keys (4, head_dim, 16), then values (64, padded).
inline KvBlock decode_block(const char* k, const char* v, int head_dim, int64_t n_keys, float* out) {
  const int64_t padded = padded_head(head_dim);
  const int64_t group_bytes = key_group_bytes(KvType::kQ8_0, head_dim);
  for (int group = 0; group * kLanes < n_keys; ++group) {
    const char* src = k + group * group_bytes;
    const auto* scales = reinterpret_cast<const uint16_t*>(src + int64_t{head_dim} * kLanes);
    for (int d = 0; d < head_dim; ++d) {
      const V scale = Lanes::load_f16(scales + d / kKvGroup * kLanes);
      const V code = Lanes::load_i8(reinterpret_cast<const int8_t*>(src) + d * kLanes);
      Lanes::store(out + (int64_t{group} * head_dim + d) * kLanes, Lanes::mul(code, scale));
    }
  }
  float* values = out + kKeyBlock * padded;
  const int64_t row_bytes = value_row_bytes(KvType::kQ8_0, head_dim);
  for (int64_t key = 0; key < n_keys; ++key) {
    const char* src = v + key * row_bytes;
    const auto* scales = reinterpret_cast<const uint16_t*>(src + padded);
    for (int64_t d = 0; d < padded; d += kLanes) {
      const V scale = Lanes::broadcast(Lanes::f16_value(scales[d / kKvGroup]));
      Lanes::store(values + key * padded + d,
                   Lanes::mul(Lanes::load_i8(reinterpret_cast<const int8_t*>(src) + d), scale));
    }
  }
  return {reinterpret_cast<const char*>(out), int64_t{head_dim} * kLanes * 4, reinterpret_cast<const char*>(values),
          padded * 4};
}

template <KvType kType>
inline KvBlock block_at(const AttentionTask& task, int64_t first_key, int64_t n_keys, float* decoded) {
  const char* k = at(task.k, first_key / kKeyBlock * task.k_stride);
  const char* v = at(task.v, first_key / kKeyBlock * task.v_stride);
  if constexpr (kType == KvType::kQ8_0) {
    return decode_block(k, v, task.head_dim, n_keys, decoded);
  } else {
    return {k, key_group_bytes(kType, task.head_dim), v, value_row_bytes(kType, task.head_dim)};
  }
}

struct TaskMemory {
  float* q;
  float* out;
  float* sum;
  float* largest;
  float* scores;
  float* decoded;
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
  memory.decoded = memory.scores + 4 * kKeyBlock;
  for (int64_t row = 0; row < rows; ++row) {
    const float* q = task.q + row / task.group * task.q_stride + row % task.group * task.head_dim;
    for (int64_t d = 0; d < task.head_dim; ++d) memory.q[row * padded + d] = q[d] * task.scale;
    for (int64_t d = 0; d < padded; ++d) memory.out[row * padded + d] = 0.0f;
    for (int lane = 0; lane < kLanes; ++lane) memory.sum[row * kLanes + lane] = 0.0f;
    memory.largest[row] = -__builtin_inff();
  }
  return memory;
}

inline int64_t clamp_key(int64_t key) { return key < 0 ? 0 : key > kKeyBlock ? kKeyBlock : key; }

// Softmax over blocks of 64 keys, with the running maximum and sum of Milakov and Gimelshein (2018).
template <KvType kType, typename Load>
void attend(const AttentionTask& task) noexcept {
  const int64_t rows = int64_t{task.n_tokens} * task.group;
  const int64_t padded = padded_head(task.head_dim);
  const TaskMemory memory = prepare(task);
  const int64_t last = task.first_position + task.n_tokens - 1;
  const int64_t window = task.window > 0 ? task.window : last + 1;
  const int64_t first_seen = task.first_position - window + 1 > 0 ? task.first_position - window + 1 : 0;
  for (int64_t base = first_seen / kKeyBlock * kKeyBlock; base <= last; base += kKeyBlock) {
    const KvBlock block = block_at<kType>(task, base, clamp_key(last + 1 - base), memory.decoded);
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
        state.lo[r] = clamp_key(position - window + 1 - base);
        state.hi[r] = clamp_key(position + 1 - base);
        any = any || state.hi[r] > state.lo[r];
        if (task.slopes == nullptr) continue;
        state.slope[r] = task.slopes[(row + r) % task.group];
        state.first_distance[r] = static_cast<float>(base - position);
      }
      if (any) attend_some_rows<Load>(n, state, block, task.head_dim, memory.scores);
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
