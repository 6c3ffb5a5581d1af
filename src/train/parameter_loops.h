// The loops over the numbers of a parameter, written once and compiled for each instruction set. Every operation is
// rounded by itself and sums run in fixed lanes, so that every vector width gives the same bits. Plain C: only
// <stdint.h> may be included here.
#pragma once

#include <stdint.h>

namespace nibble::train {

inline constexpr int64_t kStateBlock = 256;  // numbers of a state in 8 bits that share a scale, as bitsandbytes has it
inline constexpr int kStateArrays = 4;       // at most, of one parameter

// How a number of -1 .. 1 becomes one of 8 bits: the nearest of ascending levels, the lower one at equal distance. A
// bin of numbers that share exponent and seven bits of mantissa holds at most one border between levels.
struct QuantileTable {
  static constexpr int32_t kFirstBin = (127 - 24) << 7;  // from 2^-24, below which nothing but the lowest level is near
  static constexpr int32_t kBins = (24 << 7) + 1;        // to 1
  float level[256];                                      // by code
  float border[256];      // of magnitudes: beyond it the next level is nearer; of the last one infinity
  uint8_t lowest[kBins];  // of magnitudes: the level nearest to the least number of the bin
  int32_t zero;           // code of the level 0; codes of magnitudes count from there, upward and downward
};

// One step of an optimizer, as f32 scalars that were computed in double.
struct StepScalars {
  float decay;                      // the parameter's factor: 1 - lr * weight decay
  float lr;                         // for rules that move by the sign or by the gradient itself
  float beta1, beta2;               // of lion: of the direction and of the momentum
  float rest1, rest2;               // 1 - beta
  float root_correction2, eps;      // sqrt(1 - beta2^step)
  float step_size;                  // lr / (1 - beta1^step)
  const QuantileTable* signed_map;  // for states in 8 bits
  const QuantileTable* unsigned_map;
};

// A stretch of a parameter. Its states as the optimizer's rule has them; in 8 bits it begins at a block.
struct Slice {
  float* p;
  const float* g;
  void* state[kStateArrays];
  int64_t n;
};

using UpdateLoop = void (*)(const Slice&, const StepScalars&) noexcept;

struct ParameterLoops {
  UpdateLoop adamw;      // state: m f32, v f32
  UpdateLoop adamw8bit;  // state: m u8, scales of m f32 (blocks), v u8, scales of v f32 (blocks)
  UpdateLoop lion;       // state: m f32
  UpdateLoop signsgd;    // no state
  UpdateLoop sgd;        // no state
  double (*sum_squares)(const float* x, int64_t n) noexcept;
  void (*scale)(float* x, float factor, int64_t n) noexcept;
};

const ParameterLoops& parameter_loops_avx2() noexcept;
const ParameterLoops& parameter_loops_avx512() noexcept;

namespace {  // a copy of its own for each file that includes this

// torch.optim.AdamW: decoupled decay (Loshchilov and Hutter 2017), the averages as lerp_ and addcmul_ make them.
inline void loop_adamw(float* __restrict p, const float* __restrict g, float* __restrict m, float* __restrict v,
                       int64_t n, const StepScalars& s) noexcept {
  const float decay = s.decay, rest1 = s.rest1, beta2 = s.beta2, rest2 = s.rest2;
  const float root = s.root_correction2, eps = s.eps, step_size = s.step_size;
  for (int64_t i = 0; i < n; ++i) {
    m[i] += rest1 * (g[i] - m[i]);
    v[i] = v[i] * beta2 + rest2 * g[i] * g[i];
    const float denominator = __builtin_sqrtf(v[i]) / root + eps;
    p[i] = p[i] * decay - step_size * m[i] / denominator;
  }
}

inline void update_adamw(const Slice& slice, const StepScalars& s) noexcept {
  loop_adamw(slice.p, slice.g, static_cast<float*>(slice.state[0]), static_cast<float*>(slice.state[1]), slice.n, s);
}

inline void load_levels(const uint8_t* __restrict codes, const QuantileTable& table, float scale, int64_t n,
                        float* __restrict out) noexcept {
  for (int64_t i = 0; i < n; ++i) out[i] = table.level[codes[i]] * scale;
}

// The codes of a block and, returned, its scale: the largest magnitude.
inline float store_levels(const float* __restrict x, const QuantileTable& table, int64_t n,
                          uint8_t* __restrict codes) noexcept {
  constexpr int kLanes = 16;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) {
      const float a = __builtin_fabsf(x[i + k]);
      lanes[k] = a > lanes[k] ? a : lanes[k];
    }
  }
  for (; i < n; ++i) {
    const float a = __builtin_fabsf(x[i]);
    lanes[0] = a > lanes[0] ? a : lanes[0];
  }
  float most = 0;
  for (const float lane : lanes) most = lane > most ? lane : most;
  const float divisor = most > 0 ? most : 1;
  int32_t bits[kStateBlock], level[kStateBlock];
  float magnitude[kStateBlock];
  for (int64_t j = 0; j < n; ++j) {
    const float scaled = x[j] / divisor;
    __builtin_memcpy(&bits[j], &scaled, sizeof(float));
    magnitude[j] = __builtin_fabsf(scaled);
  }
  for (int64_t j = 0; j < n; ++j) {
    const int32_t bin = ((bits[j] & 0x7FFFFFFF) >> 16) - QuantileTable::kFirstBin;
    const int32_t above = bin > 0 ? bin : 0;
    level[j] = above < QuantileTable::kBins ? above : QuantileTable::kBins - 1;
  }
  for (int64_t j = 0; j < n; ++j) level[j] = table.lowest[level[j]];
  const int32_t zero = table.zero;
  for (int64_t j = 0; j < n; ++j) {
    const int32_t nearest = level[j] + (magnitude[j] > table.border[level[j]] ? 1 : 0);
    const int32_t sign = bits[j] >> 31;  // -1 or 0
    const int32_t code = zero + ((nearest ^ sign) - sign);
    codes[j] = static_cast<uint8_t>(code > 0 ? code : 0);  // the map has no -1
  }
  return most;
}

// The same with states that are widened for the step and rounded to 8 bits after it (8-bit Optimizers via Block-wise
// Quantization, arXiv 2110.02861).
inline void update_adamw8bit(const Slice& slice, const StepScalars& s) noexcept {
  auto* const m_codes = static_cast<uint8_t*>(slice.state[0]);
  auto* const m_scales = static_cast<float*>(slice.state[1]);
  auto* const v_codes = static_cast<uint8_t*>(slice.state[2]);
  auto* const v_scales = static_cast<float*>(slice.state[3]);
  float m[kStateBlock], v[kStateBlock];
  for (int64_t begin = 0, block = 0; begin < slice.n; begin += kStateBlock, ++block) {
    const int64_t n = slice.n - begin < kStateBlock ? slice.n - begin : kStateBlock;
    load_levels(m_codes + begin, *s.signed_map, m_scales[block], n, m);
    load_levels(v_codes + begin, *s.unsigned_map, v_scales[block], n, v);
    loop_adamw(slice.p + begin, slice.g + begin, m, v, n, s);
    m_scales[block] = store_levels(m, *s.signed_map, n, m_codes + begin);
    v_scales[block] = store_levels(v, *s.unsigned_map, n, v_codes + begin);
  }
}

inline float sign_of(float x) noexcept { return (x > 0 ? 1.0f : 0.0f) - (x < 0 ? 1.0f : 0.0f); }

// Lion (Chen et al., arXiv 2302.06675, algorithm 2).
inline void update_lion(const Slice& slice, const StepScalars& s) noexcept {
  float* __restrict p = slice.p;
  const float* __restrict g = slice.g;
  float* __restrict m = static_cast<float*>(slice.state[0]);
  const float decay = s.decay, lr = s.lr, beta1 = s.beta1, rest1 = s.rest1, beta2 = s.beta2, rest2 = s.rest2;
  for (int64_t i = 0; i < slice.n; ++i) {
    const float direction = m[i] * beta1 + rest1 * g[i];
    p[i] = p[i] * decay - lr * sign_of(direction);
    m[i] = m[i] * beta2 + rest2 * g[i];
  }
}

inline void update_signsgd(const Slice& slice, const StepScalars& s) noexcept {
  float* __restrict p = slice.p;
  const float* __restrict g = slice.g;
  const float decay = s.decay, lr = s.lr;
  for (int64_t i = 0; i < slice.n; ++i) p[i] = p[i] * decay - lr * sign_of(g[i]);
}

inline void update_sgd(const Slice& slice, const StepScalars& s) noexcept {
  float* __restrict p = slice.p;
  const float* __restrict g = slice.g;
  const float decay = s.decay, lr = s.lr;
  for (int64_t i = 0; i < slice.n; ++i) p[i] = p[i] * decay - lr * g[i];
}

inline double loop_sum_squares(const float* x, int64_t n) noexcept {
  constexpr int kLanes = 16;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int k = 0; k < kLanes; ++k) lanes[k] += static_cast<double>(x[i + k]) * static_cast<double>(x[i + k]);
  }
  for (; i < n; ++i) lanes[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

inline void loop_scale(float* x, float factor, int64_t n) noexcept {
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

inline constexpr ParameterLoops kParameterLoops = {update_adamw, update_adamw8bit, update_lion, update_signsgd,
                                                   update_sgd,   loop_sum_squares, loop_scale};

}  // namespace

}  // namespace nibble::train
