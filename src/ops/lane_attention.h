// Attention over the blocks of the cache.
#pragma once

#include <stdint.h>

#include "ops/kv_layout.h"
#include "ops/lane_activation.h"
#include "ops/lane_math.h"
#include "ops/lane_panel.h"
#include "ops/lane_rotation.h"
#include "ops/op_table.h"

namespace nibble::ops {
namespace {

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
  float* q_sums;            // (4, padded): of each scale group, where codes count from a least number
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

// acc += q times the codes of numbers [d, d + n) of the keys at k, a scale group or, without scales, the whole head.
template <typename Form, int kRows, int kVectors>
inline void score_codes(const float* q, int64_t padded, const char* k, const char* next, int64_t across, int64_t d,
                        int64_t n, V (&acc)[kRows][kVectors]) {
  if constexpr (Form::kNibbles) {
    const int64_t low = (n + 1) / 2, at = d / 2 * kLanes;
    panel(q + d, padded, k + at, kLanes, Apart<LoadU4<0>>{across}, 0, low, next + at, acc);
    panel(q + d + low, padded, k + at, kLanes, Apart<LoadU4<1>>{across}, 0, n - low, k + at, acc);
  } else {
    panel(q, padded, k, Form::kStep, Apart<typename Form::Load>{across}, d, d + n, next, acc);
  }
}

// Scores of the keys of kVectors groups of sixteen.
template <typename Form, int kRows, int kVectors>
inline void score_part(const RowState& state, const KvBlock& block, int head_dim, int64_t padded, int first,
                       float* scores) {
  constexpr KvFormat kFormat = Form::kFormat;
  const int64_t across = key_group_bytes(kFormat, head_dim);
  const char* k = block.k + first * across;
  const char* next = block.next_k + first * across;
  V acc[kRows][kVectors] = {};
  if constexpr (kFormat.group == 0) {
    score_codes<Form>(state.q, padded, k, next, across, 0, head_dim, acc);
  } else {
    const auto* halves = reinterpret_cast<const uint16_t*>(k + key_code_bytes(kFormat, head_dim));
    for (int64_t d = 0, group = 0; d < head_dim; d += kFormat.group, ++group) {
      V part[kRows][kVectors] = {};
      const int64_t n = head_dim - d < kFormat.group ? head_dim - d : kFormat.group;
      score_codes<Form>(state.q, padded, k, next, across, d, n, part);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const uint16_t* own = halves + v * (across / 2) + group * kFormat.halves * kLanes;
        const V scale = Lanes::load_f16(own);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) acc[r][v] = Lanes::fma(part[r][v], scale, acc[r][v]);
        if constexpr (kFormat.halves == 2) {
          const V least = Lanes::load_f16(own + kLanes);
#pragma GCC unroll 4
          for (int r = 0; r < kRows; ++r)
            acc[r][v] = Lanes::fma(Lanes::broadcast(state.q_sums[r * padded + group]), least, acc[r][v]);
        }
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

// Weights of the values in columns of one scale group.
struct GroupWeights {
  const float* weights;  // (rows, 64), times the scales
  float offsets[4];      // of each row: what all columns get, the sum of weights times least numbers
};

// Adds the weighted values of kVectors vectors of columns from `first` on.
template <typename Form, int kRows, int kVectors, typename Row>
inline void value_part(const RowState& state, const KvBlock& block, int head_dim, int64_t first, Row vector,
                       int64_t begin, int64_t end, const GroupWeights& group, const float* alpha) {
  const int64_t padded = padded_head(head_dim);
  V acc[kRows][kVectors];
  float* out = state.out + first * kLanes;
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const V factor = Lanes::broadcast(alpha[r]);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      acc[r][v] = Lanes::mul(Lanes::load(out + r * padded + v * kLanes), factor);
      if constexpr (Form::kFormat.halves == 2) acc[r][v] = Lanes::add(acc[r][v], Lanes::broadcast(group.offsets[r]));
    }
  }
  const int64_t at = Form::kNibbles ? first / 2 * kLanes : first * Form::kStep;
  const char* next = (at % kLine == 0 ? block.next_v : block.v) + at;  // each line once
  panel(group.weights, kKeyBlock, block.v + at, value_row_bytes(Form::kFormat, head_dim), vector, begin, end, next,
        acc);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) Lanes::store(out + r * padded + v * kLanes, acc[r][v]);
  }
}

// The weights times the scales of the values, scaled[r][key], and what their least numbers add; halves: those of the
// group, (scale and perhaps least number, 64).
template <typename Form, int kRows>
inline GroupWeights weigh_group(const float* weights, const uint16_t* halves, float* scaled) {
  GroupWeights group = {scaled, {}};
  V offsets[kRows] = {};
  for (int key = 0; key < kKeyBlock; key += kLanes) {
    const V scale = Lanes::load_f16(halves + key);
    for (int r = 0; r < kRows; ++r) {
      const V weight = Lanes::load(weights + r * kKeyBlock + key);
      Lanes::store(scaled + r * kKeyBlock + key, Lanes::mul(weight, scale));
      if constexpr (Form::kFormat.halves == 2) {
        // Places without a key weigh nothing, whatever they hold.
        const V part = Lanes::mul(weight, Lanes::load_f16(halves + kKeyBlock + key));
        offsets[r] = Lanes::add(offsets[r], Lanes::keep_not_less(part, weight, Lanes::broadcast(__FLT_MIN__)));
      }
    }
  }
  if constexpr (Form::kFormat.halves == 2) {
    for (int r = 0; r < kRows; ++r) group.offsets[r] = sum_lanes(offsets[r]);
  }
  return group;
}

// Keys of the block that any of the rows sees: [begin, end).
struct KeyRange {
  int64_t begin = kKeyBlock, end = 0;
};

// Adds the weighted values of all columns.
template <typename Form, int kRows>
inline void add_values(const RowState& state, const KvBlock& block, int head_dim, KeyRange keys, float* weights,
                       const float* alpha) {
  constexpr KvFormat kFormat = Form::kFormat;
  // Vectors at a time, no more than share a scale.
  constexpr int kGroupVectors = kFormat.group > 0 ? kFormat.group / kLanes : kMostHead;
  constexpr int kWide = Lanes::kPanelVectors < kGroupVectors ? Lanes::kPanelVectors : kGroupVectors;
  const int64_t vectors = padded_head(head_dim) / kLanes;
  const auto* halves = reinterpret_cast<const uint16_t*>(block.v + kKeyBlock * value_row_bytes(kFormat, head_dim));
  GroupWeights group = {weights, {}};
  const auto part = [&](int64_t first, auto width, auto vector) {
    value_part<Form, kRows, width.value>(state, block, head_dim, first, vector, keys.begin, keys.end, group, alpha);
  };
  for (int64_t first = 0; first < vectors;) {
    if (kFormat.group > 0 && first % kGroupVectors == 0) {
      const int64_t at = first / kGroupVectors * kFormat.halves * kKeyBlock;
      group = weigh_group<Form, kRows>(weights, halves + at, weights + 4 * kKeyBlock);
    }
    const bool wide = kWide > 1 && first + kWide <= vectors;
    if constexpr (!Form::kNibbles) {
      const Apart<typename Form::Load> apart = {Form::kStep};
      wide ? part(first, Count<kWide>{}, apart) : part(first, Count<1>{}, apart);
    } else if (wide) {
      part(first, Count<kWide>{}, Paired<0>{});
    } else {
      first % 2 == 0 ? part(first, Count<1>{}, Paired<0>{}) : part(first, Count<1>{}, Paired<1>{});
    }
    first += wide ? kWide : 1;
  }
}

template <typename Form, int kRows>
void attend_rows(const RowState& state, const KvBlock& block, int head_dim, float* scores) {
  constexpr int kWide = Form::kScoreVectors;
  const int64_t padded = padded_head(head_dim);
  for (int first = 0; first < kKeyBlock / kLanes; first += kWide) {
    score_part<Form, kRows, kWide>(state, block, head_dim, padded, first, scores);
  }
  alignas(64) float alpha[kLanes];
  weigh<kRows>(state, scores, alpha);
  KeyRange keys;
  for (int r = 0; r < kRows; ++r) {
    if (state.hi[r] <= state.lo[r]) continue;
    keys.begin = state.lo[r] < keys.begin ? state.lo[r] : keys.begin;
    keys.end = state.hi[r] > keys.end ? state.hi[r] : keys.end;
  }
  add_values<Form, kRows>(state, block, head_dim, keys, scores, alpha);
}

template <typename Form>
void attend_some_rows(int n, const RowState& state, const KvBlock& block, int head_dim, float* scores) {
  if (n == 4) return attend_rows<Form, 4>(state, block, head_dim, scores);
  if (n == 3) return attend_rows<Form, 3>(state, block, head_dim, scores);
  if (n == 2) return attend_rows<Form, 2>(state, block, head_dim, scores);
  attend_rows<Form, 1>(state, block, head_dim, scores);
}

struct TaskMemory {
  float* q;
  float* q_sums;
  float* out;
  float* sum;
  float* largest;
  float* scores;
};

// The sums of the numbers that share a scale.
inline void sum_groups(const float* q, const KvFormat& format, int head_dim, float* sums) {
  for (int64_t d = 0, group = 0; d < head_dim; d += format.group, ++group) {
    V sum = Lanes::broadcast(0.0f);
    const int64_t end = d + format.group < head_dim ? d + format.group : head_dim;
    for (int64_t i = d; i < end; i += kLanes) sum = Lanes::add(sum, load_some(q + i, end - i, 0.0f));
    sums[group] = sum_lanes(sum);
  }
}

inline TaskMemory prepare(const AttentionTask& task, const KvFormat& format) {
  const int64_t rows = int64_t{task.n_tokens} * task.group;
  const int64_t room = (rows + 3) / 4 * 4;
  const int64_t padded = padded_head(task.head_dim);
  TaskMemory memory;
  memory.q = task.scratch;
  memory.q_sums = memory.q + room * padded;
  memory.out = memory.q_sums + room * padded;
  memory.sum = memory.out + room * padded;
  memory.largest = memory.sum + room * kLanes;
  memory.scores = memory.largest + room * kLanes;
  for (int64_t row = 0; row < rows; ++row) {
    const float* q = task.q + row / task.group * task.q_stride + row % task.group * task.head_dim;
    for (int64_t d = 0; d < task.head_dim; ++d) memory.q[row * padded + d] = q[d] * task.scale;
    if (format.rotated) rotate_head(memory.q + row * padded, task.head_dim);
    if (format.halves == 2) sum_groups(memory.q + row * padded, format, task.head_dim, memory.q_sums + row * padded);
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
  using Form = Codes<kv_format(kType).bits, kv_format(kType).group, kv_format(kType).halves, Load>;
  constexpr bool kRotated = kv_format(kType).rotated;
  const int64_t rows = int64_t{task.n_tokens} * task.group;
  const int64_t padded = padded_head(task.head_dim);
  const TaskMemory memory = prepare(task, kv_format(kType));
  const int64_t last = task.first_position + task.n_tokens - 1;
  for (int64_t base = first_key(task, task.first_position) / kKeyBlock * kKeyBlock; base <= last; base += kKeyBlock) {
    const int64_t index = base / kKeyBlock;
    const int64_t next = base + kKeyBlock <= last ? index + 1 : index;
    const KvBlock block = {at(task.k, index * task.k_stride), at(task.v, index * task.v_stride),
                           at(task.k, next * task.k_stride), at(task.v, next * task.v_stride)};
    for (int64_t row = 0; row < rows; row += 4) {
      const int n = static_cast<int>(rows - row < 4 ? rows - row : 4);
      RowState state = {memory.q + row * padded,
                        memory.q_sums + row * padded,
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
      if (any) attend_some_rows<Form>(n, state, block, task.head_dim, memory.scores);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    const float inverse = 1.0f / sum_lanes(Lanes::load(memory.sum + row * kLanes));
    if (kRotated) rotate_head(memory.out + row * padded, task.head_dim);
    float* out = task.out + row / task.group * task.out_stride + row % task.group * task.head_dim;
    for (int64_t d = 0; d < task.head_dim; ++d) out[d] = memory.out[row * padded + d] * inverse;
  }
}

}  // namespace
}  // namespace nibble::ops
