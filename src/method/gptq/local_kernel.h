// The work on one block, compiled once per instruction set. Sums go through sixteen partial sums in a fixed order, so
// that every build gives the same bits.
#pragma once

#include "method/gptq/local.h"

namespace nibble::method::gptq {
namespace {

constexpr float kTiny = 1e-30f;
constexpr int kParts = 16;
constexpr int kLanes = 8;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));

inline float absolute(float v) { return v < 0 ? -v : v; }

inline float dot(const float* a, const float* b, int n) {
  float parts[kParts] = {};
  for (int i = 0; i < n; i += kParts) {
    for (int k = 0; k < kParts; ++k) parts[k] += a[i + k] * b[i + k];
  }
  for (int half = kParts / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) parts[k] += parts[k + half];
  }
  return parts[0];
}

inline void add_times(float* __restrict y, float a, const float* __restrict x, int n) {
  for (int i = 0; i < n; ++i) y[i] += a * x[i];
}

// The nearest f16, as in search/fit_lanes.h.
inline float round_f16(float value) {
  const float limited = value > 65504.0f ? 65504.0f : value < -65504.0f ? -65504.0f : value;
  const float big = limited * 8193.0f;
  const float normal = big - (big - limited);
  const float small = (limited + 0.75f) - 0.75f;
  return absolute(limited) < 0x1p-14f ? small : normal;
}

constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
inline float round_near(float v) { return (v + kMagic) - kMagic; }

inline float hold(float v, float lo, float hi) { return v > lo ? (v < hi ? v : hi) : lo; }

inline float nearest_level(const LocalGrid& grid, float at) {
  const float held = hold(at, grid.level_lo, grid.level_hi);
  if (grid.cells == nullptr) return round_near(held);
  const int cell = static_cast<int>(held * 0.125f + 16.0f);
  const float below = grid.cells[cell], above = grid.cells[32 + cell];
  return held - below > above - held ? above : below;
}

// Rounds n columns one after the other; their errors go to the later ones of `reach`.
inline void round_columns(const LocalGrid& grid, const float* factor, int64_t stride, int n, int reach, float step,
                          float low, float* target, float* level, float* errors) {
  const float inverse = step != 0 ? 1.0f / step : 0.0f;
  for (int k = 0; k < n; ++k) {
    const float* row = factor + k * stride;
    level[k] = nearest_level(grid, (target[k] + low) * inverse);
    const float error = (target[k] - (step * level[k] - low)) / row[k];
    errors[k] = error;
    add_times(target + k + 1, -error, row + k + 1, reach - k - 1);
  }
}

void sweep_block(const LocalGrid& grid, const float* factor, int64_t stride, float* target, float* errors,
                 LocalState& state) {
  for (int i = 0; i < grid.n_subs; ++i) {
    const int at = i * grid.sub;
    const float step = state.d * state.scale[i], low = state.dmin * state.min[i];
    round_columns(grid, factor + at * stride + at, stride, grid.sub, grid.block - at, step, low, target + at,
                  state.level + at, errors + at);
    for (int e = at; e < at + grid.sub; ++e) state.value[e] = step * state.level[e] - low;
  }
}

// Scale and min of one sub-block.
struct Pair {
  float d, scale, dmin, min;
  float step() const { return d * scale; }
  float low() const { return dmin * min; }
};

// The best (step, low) for the codes as they are.
struct Real {
  float step, low;
};
inline Real refit_sub(const LocalGrid& grid, const LocalMetric& metric, const LocalState& state, int i) {
  const int at = i * grid.sub;
  const float* level = state.level + at;
  alignas(64) float ml[32] = {}, m1[32] = {}, ones[32];
  for (int e = 0; e < grid.sub; ++e) {
    const float* row = metric.m + static_cast<int64_t>(at + e) * grid.block + at;
    add_times(ml, level[e], row, grid.sub);
    if (grid.has_min) add_times(m1, 1.0f, row, grid.sub);
    ones[e] = 1.0f;
  }
  const float* g = state.gradient + at;
  const float ll = dot(level, ml, grid.sub), lg = dot(level, g, grid.sub);
  Real at_now = {state.d * state.scale[i], state.dmin * state.min[i]};
  if (!grid.has_min) {
    if (ll > kTiny) at_now.step -= lg / ll;
    return at_now;
  }
  const float l1 = dot(ones, ml, grid.sub), one = dot(ones, m1, grid.sub), g1 = dot(ones, g, grid.sub);
  // With the change of step a and of low b: a ll - b l1 = -lg, a l1 - b one = -g1.
  const float det = ll * one - l1 * l1;
  if (det > 1e-6f * ll * one) {
    at_now.step += (l1 * g1 - lg * one) / det;
    at_now.low += (ll * g1 - l1 * lg) / det;
  } else if (one > kTiny) {
    at_now.low += g1 / one;
  }
  return at_now;
}

constexpr int kMostPairs = 24;

// On a grid of sub-scales: around what is there and around the refit.
inline int pairs_on_grid(const LocalGrid& grid, const LocalState& state, int i, const Real& fit, Pair* out) {
  const float d = state.d, dmin = state.dmin;
  int n = 0;
  const auto add = [&](float scale, float min) {
    const Pair pair = {d, hold(scale, grid.scale_min, grid.scale_max), dmin, hold(min, 0.0f, grid.min_max)};
    for (int k = 0; k < n; ++k) {
      if (out[k].scale == pair.scale && out[k].min == pair.min) return;
    }
    if (n < kMostPairs) out[n++] = pair;
  };
  add(state.scale[i], state.min[i]);
  const float fit_scale = d != 0 ? round_near(hold(fit.step / d, -200.0f, 200.0f)) : state.scale[i];
  const float fit_min = dmin != 0 ? round_near(hold(fit.low / dmin, -200.0f, 200.0f)) : state.min[i];
  for (int centre = 0; centre < 2; ++centre) {
    const float scale = centre == 0 ? fit_scale : state.scale[i], min = centre == 0 ? fit_min : state.min[i];
    for (int a = -1; a <= 1; ++a) {
      for (int b = -1; b <= 1; ++b) {
        if (grid.has_min || b == 0) add(scale + static_cast<float>(a), min + static_cast<float>(b));
      }
    }
  }
  if (!grid.has_min) {
    add(fit_scale + 2, 0);
    add(fit_scale - 2, 0);
  }
  return n;
}

// Of a block that is one sub-block: d and dmin themselves.
inline int pairs_of_reals(const LocalGrid& grid, const LocalState& state, const Real& fit, Pair* out) {
  int n = 0;
  const float span = grid.level_hi - grid.level_lo;
  out[n++] = {state.d, 1.0f, state.dmin, state.min[0]};
  for (int a = -2; a <= 2; ++a) {
    const float d = round_f16(fit.step * (1.0f + 0.5f * static_cast<float>(a) / span));
    if (!grid.has_min) {
      out[n++] = {d, 1.0f, 0.0f, 0.0f};
      continue;
    }
    // A wider step about the middle of the levels.
    const float middle = 0.5f * (grid.level_lo + grid.level_hi);
    for (int b = -1; b <= 1; ++b) {
      const float low = fit.low + (d - fit.step) * middle + 0.25f * static_cast<float>(b) * d;
      out[n++] = {d, 1.0f, round_f16(low), 1.0f};
    }
  }
  return n;
}

// What sub-block i would hold if its inputs could be met: value - gradient m⁻¹.
inline void sub_target(const LocalGrid& grid, const LocalMetric& metric, const LocalState& state, int i,
                       float* target) {
  const int n = grid.sub, at = i * n;
  const float* factor = metric.sub_factor + static_cast<int64_t>(i) * n * n;
  for (int e = 0; e < n; ++e) target[e] = state.value[at + e];
  for (int k = 0; k < n; ++k) {
    const float part = dot(factor + k * n, state.gradient + at, n);
    add_times(target, -part, factor + k * n, n);
  }
}

// Takes `change` of sub-block i over where it lowers the measure.
inline bool accept_sub(const LocalGrid& grid, const LocalMetric& metric, int i, const Pair& pair, const float* level,
                       LocalState& state) {
  const int n = grid.sub, at = i * n;
  alignas(64) float change[32], moved[kMaxBlock] = {};
  for (int e = 0; e < n; ++e) {
    change[e] = pair.step() * level[e] - pair.low() - state.value[at + e];
    if (change[e] != 0) add_times(moved, change[e], metric.m + static_cast<int64_t>(at + e) * grid.block, grid.block);
  }
  const float gain = 2 * dot(change, state.gradient + at, n) + dot(change, moved + at, n);
  if (!(gain < 0)) return false;
  for (int e = 0; e < n; ++e) {
    state.level[at + e] = level[e];
    state.value[at + e] += change[e];
  }
  for (int e = 0; e < grid.block; ++e) state.gradient[e] += moved[e];
  state.scale[i] = pair.scale;
  state.min[i] = pair.min;
  if (grid.n_subs == 1) {
    state.d = pair.d;
    state.dmin = pair.dmin;
  }
  return true;
}

inline Lanes nearest_levels(const LocalGrid& grid, Lanes at) {
  const Lanes lo = grid.level_lo - Lanes{}, hi = grid.level_hi - Lanes{};
  Lanes held = at > lo ? at : lo;
  held = held < hi ? held : hi;
  if (grid.cells == nullptr) return (held + kMagic) - kMagic;
  for (int k = 0; k < kLanes; ++k) held[k] = nearest_level(grid, held[k]);
  return held;
}

// kLanes candidates for scale and min of a sub-block side by side, each with codes swept for it; the least cost and its
// levels go to `least` and `best` where they beat what is there. The candidate's index, else -1.
inline int try_pairs(const LocalGrid& grid, const float* factor, const float* wanted, const Pair* pairs, int count,
                     float& least, float* best) {
  const int n = grid.sub;
  Lanes target[32], level[32], step, low, inverse, cost = {};
  for (int k = 0; k < kLanes; ++k) {
    const Pair& pair = pairs[k < count ? k : 0];
    step[k] = pair.step();
    low[k] = pair.low();
    inverse[k] = step[k] != 0 ? 1.0f / step[k] : 0.0f;
  }
  for (int e = 0; e < n; ++e) target[e] = wanted[e] - Lanes{};
  for (int k = 0; k < n; ++k) {
    const float* row = factor + k * n;
    level[k] = nearest_levels(grid, (target[k] + low) * inverse);
    const Lanes error = (target[k] - (step * level[k] - low)) * (1.0f / row[k]);
    cost = cost + error * error;
    for (int next = k + 1; next < n; ++next) target[next] = target[next] - error * row[next];
  }
  int chosen = -1;
  for (int k = 0; k < count; ++k) {
    if (!(cost[k] < least)) continue;
    least = cost[k];
    chosen = k;
  }
  for (int e = 0; e < n && chosen >= 0; ++e) best[e] = level[e][chosen];
  return chosen;
}

bool improve_sub(const LocalGrid& grid, const LocalMetric& metric, int i, LocalState& state) {
  const int n = grid.sub;
  const float* factor = metric.sub_factor + static_cast<int64_t>(i) * n * n;
  Pair pairs[kMostPairs];
  const Real fit = refit_sub(grid, metric, state, i);
  const int count =
      grid.n_subs > 1 ? pairs_on_grid(grid, state, i, fit, pairs) : pairs_of_reals(grid, state, fit, pairs);
  alignas(64) float wanted[32], best[32];
  sub_target(grid, metric, state, i, wanted);
  float least = 3e38f;
  int chosen = -1;
  for (int first = 0; first < count; first += kLanes) {
    const int n_tried = count - first < kLanes ? count - first : kLanes;
    const int found = try_pairs(grid, factor, wanted, pairs + first, n_tried, least, best);
    if (found >= 0) chosen = first + found;
  }
  return chosen >= 0 && accept_sub(grid, metric, i, pairs[chosen], best, state);
}

// d and dmin anew by least squares, everything else as it is.
bool refit_super(const LocalGrid& grid, const LocalMetric& metric, LocalState& state) {
  const int n = grid.block;
  alignas(64) float u[kMaxBlock], t[kMaxBlock], mu[kMaxBlock] = {}, mt[kMaxBlock] = {};
  for (int e = 0; e < n; ++e) {
    u[e] = state.scale[e / grid.sub] * state.level[e];
    t[e] = state.min[e / grid.sub];
  }
  for (int e = 0; e < n; ++e) {
    add_times(mu, u[e], metric.m + static_cast<int64_t>(e) * n, n);
    if (grid.has_min) add_times(mt, t[e], metric.m + static_cast<int64_t>(e) * n, n);
  }
  const float uu = dot(u, mu, n), ug = dot(u, state.gradient, n);
  if (!(uu > kTiny)) return false;
  float a = -ug / uu, b = 0, ut = 0, tt = 0, tg = 0;
  if (grid.has_min) {
    ut = dot(u, mt, n);
    tt = dot(t, mt, n);
    tg = dot(t, state.gradient, n);
    const float det = uu * tt - ut * ut;
    if (det > 1e-6f * uu * tt) {
      a = (ut * tg - tt * ug) / det;
      b = (uu * tg - ut * ug) / det;
    }
  }
  a = round_f16(state.d + a) - state.d;
  b = round_f16(state.dmin + b) - state.dmin;
  const float gain = 2 * (a * ug - b * tg) + a * a * uu - 2 * a * b * ut + b * b * tt;
  if (!(gain < 0)) return false;
  state.d += a;
  state.dmin += b;
  for (int e = 0; e < n; ++e) {
    state.value[e] = state.d * state.scale[e / grid.sub] * state.level[e] - state.dmin * t[e];
    state.gradient[e] += a * mu[e] - b * mt[e];
  }
  return true;
}

// Codes one at a time.
bool descend(const LocalGrid& grid, const LocalMetric& metric, LocalState& state) {
  bool any = false;
  for (int e = 0; e < grid.block; ++e) {
    const float step = state.d * state.scale[e / grid.sub], low = state.dmin * state.min[e / grid.sub];
    const float* row = metric.m + static_cast<int64_t>(e) * grid.block;
    if (step == 0 || !(row[e] > 0)) continue;
    const float level = nearest_level(grid, state.level[e] - state.gradient[e] / (row[e] * step));
    if (level == state.level[e]) continue;
    const float change = step * (level - state.level[e]);
    if (!(change * (2 * state.gradient[e] + change * row[e]) < 0)) continue;
    state.level[e] = level;
    state.value[e] = step * level - low;
    add_times(state.gradient, change, row, grid.block);
    any = true;
  }
  return any;
}

void refine_block(const LocalGrid& grid, const LocalMetric& metric, int rounds, LocalState& state) {
  for (int round = 0; round < rounds; ++round) {
    bool any = false;
    for (int i = 0; i < grid.n_subs; ++i) any |= improve_sub(grid, metric, i, state);
    if (grid.n_subs > 1) any |= refit_super(grid, metric, state);
    any |= descend(grid, metric, state);
    if (!any) return;
  }
}

}  // namespace
}  // namespace nibble::method::gptq
