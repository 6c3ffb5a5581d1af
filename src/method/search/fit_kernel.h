// The fit itself, compiled once per instruction set by search_<isa>.cpp, which define kWidth, Vec, Mask and the
// primitives below it. Each lane runs the same IEEE operations in the same order whatever the width, and nothing is
// contracted, so every build gives the same bits. Everything is in an unnamed namespace: no copy compiled for one
// instruction set can be linked into another's code.
#include "method/search/fit.h"

namespace nibble::method::search {
namespace {

constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer, ties to even
constexpr float kTiny = 1e-30f;

inline Vec splat(float value) { return value - Vec{}; }
inline Vec load(const float* src) { return *reinterpret_cast<const VecUnaligned*>(src); }
inline void store(float* dst, Vec value) { *reinterpret_cast<VecUnaligned*>(dst) = value; }
inline Vec select(Mask mask, Vec yes, Vec no) { return mask ? yes : no; }
inline Vec absolute(Vec v) { return vmax(v, -v); }
inline Vec round_near(Vec v) { return (v + kMagic) - kMagic; }
inline Vec clamp(Vec v, Vec lo, Vec hi) { return vmin(vmax(v, lo), hi); }
// a / b, or 0 where |b| is nothing.
inline Vec ratio(Vec a, Vec b) {
  const Mask usable = absolute(b) > kTiny;
  return select(usable, a / select(usable, b, splat(1.0f)), Vec{});
}
// The nearest f16 (to 11 significant bits by Veltkamp's splitting, to multiples of 2^-24 below 2^-14).
inline Vec round_f16(Vec v) {
  const Vec limited = clamp(v, splat(-65504.0f), splat(65504.0f));
  const Vec big = limited * 8193.0f;
  const Vec normal = big - (big - limited);
  const Vec small = (limited + 0.75f) - 0.75f;
  return select(absolute(limited) < 0x1p-14f, small, normal);
}

// Rows of a kWidth x kWidth matrix to its columns: in stage `step` the lanes with that bit change places with the rows.
template <int... kLane>
struct LaneList {};
template <int kCount, int... kLane>
struct CountLanes : CountLanes<kCount - 1, kCount - 1, kLane...> {};
template <int... kLane>
struct CountLanes<0, kLane...> {
  using List = LaneList<kLane...>;
};

template <int kStep, int... kLane>
inline void exchange(Vec& a, Vec& b, LaneList<kLane...>) {
  const Vec low = __builtin_shufflevector(a, b, ((kLane & kStep) != 0 ? kWidth + kLane - kStep : kLane)...);
  b = __builtin_shufflevector(a, b, ((kLane & kStep) != 0 ? kWidth + kLane : kLane + kStep)...);
  a = low;
}

template <int kStep = 1>
inline void transpose(Vec* rows) {
  if constexpr (kStep < kWidth) {
    for (int i = 0; i < kWidth; ++i) {
      if ((i & kStep) == 0) exchange<kStep>(rows[i], rows[i + kStep], CountLanes<kWidth>::List{});
    }
    transpose<2 * kStep>(rows);
  }
}

// A batch, transposed: element e of lane l at [e * kLanes + l].
struct Work {
  alignas(64) float x[kMaxElements];
  alignas(64) float w[kMaxElements];
  // per lane
  alignas(64) float sw[kLanes], swx[kLanes], swxx[kLanes];  // sums of w, w x, w x^2
  alignas(64) float lo[kLanes], hi[kLanes];                 // smallest and largest x
  alignas(64) float scale[kLanes], min[kLanes];             // real-valued fit
  alignas(64) float sq[kLanes], sqq[kLanes], sxq[kLanes];   // sums of w q, w q^2, w x q of the codes in force
  alignas(64) float curve[kLanes];  // second derivative of the error along the scale, min following
  alignas(64) float d[kLanes], dmin[kLanes], sc[kLanes], mn[kLanes], error[kLanes];
};

struct Sums {
  Vec q, qq, xq;
};

// Levels of x / scale, and their weighted sums, for kCount candidates at once (to hide the latency of the sums).
struct Levels {
  Vec lo, hi;
  const float* cells;
};

template <bool kTable>
inline Vec level_of(Vec t, const Levels& levels) {
  if constexpr (kTable) {
    const Vec limited = clamp(t, levels.lo, levels.hi);
    const Vec cell = limited * 0.125f + 16.0f;
    Vec below, above;
    lookup_cells(levels.cells, cell, below, above);
    return select(limited - below > above - limited, above, below);
  } else {
    return clamp(round_near(t), levels.lo, levels.hi);
  }
}

template <bool kMin, bool kTable, int kCount>
inline void candidate_sums(const float* x, const float* w, int n, const Levels& levels, const Vec* inverse,
                           const Vec* offset, Sums* sums) {
  Vec sq[kCount], sqq[kCount], sxq[kCount];
  for (int k = 0; k < kCount; ++k) sq[k] = sqq[k] = sxq[k] = Vec{};
  for (int e = 0; e < n; ++e) {
    const Vec xe = load(x + e * kLanes);
    const Vec we = load(w + e * kLanes);
    for (int k = 0; k < kCount; ++k) {
      Vec t = xe * inverse[k];
      if constexpr (kMin) t = t + offset[k];
      const Vec q = level_of<kTable>(t, levels);
      const Vec p = we * q;
      if constexpr (kMin) sq[k] = sq[k] + p;
      sqq[k] = sqq[k] + p * q;
      sxq[k] = sxq[k] + p * xe;
    }
  }
  for (int k = 0; k < kCount; ++k) sums[k] = {sq[k], sqq[k], sxq[k]};
}

// Best (scale, min) for given codes, and the error left.
struct Fit {
  Vec scale, min, error;
};

struct LaneStats {
  Vec w, wx, wxx;
};

template <bool kMin>
inline Fit solve(const Sums& s, const LaneStats& lane, bool min_positive) {
  Fit fit;
  if constexpr (kMin) {
    const Vec product = lane.w * s.qq;
    const Vec det = product - s.q * s.q;
    const Vec min_det = s.q * s.xq - s.qq * lane.wx;
    Mask both = det > product * 1e-6f;
    if (min_positive) both = both & (min_det >= 0.0f);
    // Where a min has nothing to fit, or would be negative: the scale alone.
    const Vec inverse = 1.0f / select(both, det, vmax(s.qq, splat(kTiny)));
    fit.scale = select(both, lane.w * s.xq - lane.wx * s.q, s.xq) * inverse;
    fit.min = select(both, min_det * inverse, Vec{});
    fit.error = lane.wxx - fit.scale * s.xq + fit.min * lane.wx;
  } else {
    fit.scale = s.xq / vmax(s.qq, splat(kTiny));
    fit.min = Vec{};
    fit.error = lane.wxx - fit.scale * s.xq;
  }
  return fit;
}

// Error of codes with sums `s` at any scale and min.
template <bool kMin>
inline Vec error_at(const Sums& s, const LaneStats& lane, Vec scale, Vec min) {
  Vec error = lane.wxx - scale * (s.xq + s.xq) + scale * scale * s.qq;
  if constexpr (kMin) error = error + min * (lane.wx + lane.wx) - scale * min * (s.q + s.q) + min * min * lane.w;
  return error;
}

inline LaneStats lane_stats(const Work& work, int lane) {
  return {load(work.sw + lane), load(work.swx + lane), load(work.swxx + lane)};
}

// Element e of `source(lane)` to out[e * kLanes + lane].
template <typename Source>
inline void gather_lanes(const Source& source, int n, float* out) {
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    for (int e = 0; e < n; e += kWidth) {
      Vec rows[kWidth];
      for (int i = 0; i < kWidth; ++i) rows[i] = load(source(lane + i) + e);
      transpose(rows);
      for (int i = 0; i < kWidth; ++i) store(out + (e + i) * kLanes + lane, rows[i]);
    }
  }
}

void load_batch(const Layout& layout, const Batch& batch, Work& work) {
  const int n = layout.sub;
  gather_lanes([&](int lane) { return batch.x + lane * n; }, n, work.x);
  gather_lanes([&](int lane) { return batch.importance[lane]; }, n, work.w);
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    Vec w{}, wx{}, wxx{}, lo = load(work.x + lane), hi = lo;
    for (int e = 0; e < n; ++e) {
      const Vec xe = load(work.x + e * kLanes + lane);
      const Vec we = load(work.w + e * kLanes + lane);
      w = w + we;
      wx = wx + we * xe;
      wxx = wxx + we * xe * xe;
      lo = vmin(lo, xe);
      hi = vmax(hi, xe);
    }
    store(work.sw + lane, w);
    store(work.swx + lane, wx);
    store(work.swxx + lane, wxx);
    store(work.lo + lane, lo);
    store(work.hi + lane, hi);
  }
}

// Real-valued (scale, min) of each sub-block: the best of a few inverse scales, each with its least-squares refit.
template <bool kMin, bool kTable>
void coarse_fit(const Layout& layout, Work& work) {
  constexpr int kCount = kCandidates;
  const Levels levels{splat(layout.level_lo), splat(layout.level_hi), layout.cells};
  const bool min_positive = layout.subs_per_block > 1;
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    const LaneStats stats = lane_stats(work, lane);
    Vec lo = load(work.lo + lane), hi = load(work.hi + lane);
    if (kMin && min_positive) lo = vmin(lo, Vec{});
    // The value that the largest code stands for: of a symmetric type the x of largest magnitude, sign included.
    const Vec top = kMin ? hi - lo : select(-lo >= hi, lo, hi);
    const Vec unit = ratio(splat(1.0f), top);
    Fit best{Vec{}, Vec{}, stats.wxx};
    Sums best_sums{};
    if (kMin) {
      best.min = min_positive ? vmax(ratio(-stats.wx, stats.w), Vec{}) : ratio(-stats.wx, stats.w);
      best.error = stats.wxx + best.min * stats.wx;
    }
    const int total = layout.n_coarse + (kMin ? 0 : layout.n_mirrored);
    auto reach = [&](int k) {
      const int count = k < layout.n_coarse ? layout.n_coarse : layout.n_mirrored;
      const int i = k < layout.n_coarse ? k : k - layout.n_coarse;
      const float step = count > 1 ? (layout.coarse_hi - layout.coarse_lo) / static_cast<float>(count - 1) : 0.0f;
      const float shift = layout.coarse_lo + step * static_cast<float>(i);
      if (kMin) return layout.level_hi + shift;
      return k < layout.n_coarse ? layout.level_lo - shift : layout.level_hi + shift;
    };
    auto consider = [&](const Sums& sums) {
      const Fit fit = solve<kMin>(sums, stats, min_positive);
      const Mask better = fit.error < best.error;
      best.scale = select(better, fit.scale, best.scale);
      best.min = select(better, fit.min, best.min);
      best.error = select(better, fit.error, best.error);
      best_sums.q = select(better, sums.q, best_sums.q);
      best_sums.qq = select(better, sums.qq, best_sums.qq);
      best_sums.xq = select(better, sums.xq, best_sums.xq);
    };
    for (int k = 0; k < total; k += kCount) {
      Vec inverse[kCount], offset[kCount];
      Sums sums[kCount];
      for (int i = 0; i < kCount; ++i) {
        inverse[i] = unit * reach(k + i < total ? k + i : total - 1);
        offset[i] = -lo * inverse[i];
      }
      candidate_sums<kMin, kTable, kCount>(work.x + lane, work.w + lane, layout.sub, levels, inverse, offset, sums);
      for (int i = 0; i < kCount; ++i) consider(sums[i]);
    }
    for (int i = 0; i < layout.n_polish; ++i) {
      Vec inverse = ratio(splat(1.0f), best.scale);
      Vec offset = best.min * inverse;
      Sums sums;
      candidate_sums<kMin, kTable, 1>(work.x + lane, work.w + lane, layout.sub, levels, &inverse, &offset, &sums);
      consider(sums);
    }
    store(work.scale + lane, best.scale);
    store(work.min + lane, best.min);
    store(work.error + lane, best.error);
    store(work.sq + lane, best_sums.q);
    store(work.sqq + lane, best_sums.qq);
    store(work.sxq + lane, best_sums.xq);
    // Where the min follows the scale, the part of the codes that a min can take over costs nothing (but a little, lest
    // a sub-block of equal codes has no say).
    Vec curve = best_sums.qq;
    if (kMin) curve = select(best.min > 0.0f, curve - ratio(best_sums.q * best_sums.q, stats.w) * 0.999f, curve);
    store(work.curve + lane, curve);
  }
}

// The multiple d that represents value[i] ~ d * k_i, k_i integer in [lo, hi], with least sum of weight * difference^2:
// 16 candidates, then a refit.
float fit_multiple(const float* value, const float* weight, int n, float lo, float hi, float span_lo, float span_hi) {
  float top = 0.0f;
  for (int i = 0; i < n; ++i) {
    if (__builtin_fabsf(value[i]) > __builtin_fabsf(top)) top = value[i];
  }
  if (__builtin_fabsf(top) < kTiny) return 0.0f;
  const float largest = -lo > hi ? lo : hi;
  alignas(64) float inverses[kLanes], multiples[kLanes], costs[kLanes];
  for (int k = 0; k < kLanes; ++k) {
    const float at = span_lo + (span_hi - span_lo) * static_cast<float>(k) / static_cast<float>(kLanes - 1);
    inverses[k] = largest * (1.0f + at) / top;
  }
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    const Vec inverse = load(inverses + lane);
    Vec vk{}, kk{}, vv{};
    for (int i = 0; i < n; ++i) {
      const Vec k = clamp(round_near(inverse * value[i]), splat(lo), splat(hi));
      const Vec wk = k * weight[i];
      vk = vk + wk * value[i];
      kk = kk + wk * k;
      vv = vv + splat(weight[i] * value[i] * value[i]);
    }
    const Vec multiple = ratio(vk, kk);
    store(multiples + lane, multiple);
    store(costs + lane, vv - multiple * vk);
  }
  int best = 0;
  for (int k = 1; k < kLanes; ++k) {
    if (costs[k] < costs[best]) best = k;
  }
  return multiples[best];
}

inline void fill(float* dst, int n, float value) {
  for (int i = 0; i < n; ++i) dst[i] = value;
}

inline float f16_value(float value) {
  alignas(64) float out[kWidth];
  store(out, round_f16(splat(value)));
  return out[0];
}

// Super-scales from the real-valued fits.
template <bool kMin>
void choose_super(const Layout& layout, Work& work) {
  const int group = layout.subs_per_block;
  for (int first = 0; first < kLanes; first += group) {
    const float d = f16_value(fit_multiple(work.scale + first, work.curve + first, group, layout.scale_min,
                                           layout.scale_max, layout.super_lo, layout.super_hi));
    fill(work.d + first, group, d);
    if (kMin) {
      // The mins that suit the scales once rounded.
      alignas(64) float target[kLanes];
      for (int i = first; i < first + group; ++i) {
        float k = d != 0.0f ? (work.scale[i] / d + kMagic) - kMagic : 0.0f;
        k = k < layout.scale_min ? layout.scale_min : k > layout.scale_max ? layout.scale_max : k;
        const float min = work.sw[i] > kTiny ? (d * k * work.sq[i] - work.swx[i]) / work.sw[i] : 0.0f;
        target[i] = min > 0.0f ? min : 0.0f;
      }
      const float dmin = f16_value(
          fit_multiple(target + first, work.sw + first, group, 0.0f, layout.min_max, layout.super_lo, layout.super_hi));
      fill(work.dmin + first, group, dmin);
    }
  }
}

// The best grid point found so far for a lane.
struct GridBest {
  Vec error, sc, mn;
};

// Tries kCount pairs of sub-scale and min: codes for each, then the min that suits those codes, and the error left.
template <bool kMin, bool kTable, int kCount>
inline void try_pairs(const Layout& layout, const Work& work, int lane, const Levels& levels, const Vec* sc,
                      const Vec* mn, Vec to_min, GridBest& best) {
  const LaneStats stats = lane_stats(work, lane);
  const Vec d = load(work.d + lane), dmin = load(work.dmin + lane);
  Vec inverse[kCount], offset[kCount];
  Sums sums[kCount];
  for (int i = 0; i < kCount; ++i) {
    inverse[i] = ratio(splat(1.0f), d * sc[i]);
    if (kMin) offset[i] = dmin * mn[i] * inverse[i];
  }
  candidate_sums<kMin, kTable, kCount>(work.x + lane, work.w + lane, layout.sub, levels, inverse, offset, sums);
  for (int i = 0; i < kCount; ++i) {
    const Vec scale = d * sc[i];
    Vec refit{};
    if (kMin) refit = clamp(round_near((scale * sums[i].q - stats.wx) * to_min), Vec{}, splat(layout.min_max));
    const Vec error = error_at<kMin>(sums[i], stats, scale, dmin * refit);
    const Mask better = error < best.error;
    best.error = select(better, error, best.error);
    best.sc = select(better, sc[i], best.sc);
    best.mn = select(better, refit, best.mn);
  }
}

// Sub-scale and min of each lane on the grid of d and dmin: a window of sub-scales around the real-valued fit, each
// with the min that suits it, then mins around the best.
template <bool kMin, bool kTable>
void grid_scan(const Layout& layout, Work& work) {
  constexpr int kCount = kCandidates;
  const Levels levels{splat(layout.level_lo), splat(layout.level_hi), layout.cells};
  const Vec scale_lo = splat(layout.scale_min), scale_hi = splat(layout.scale_max), min_hi = splat(layout.min_max);
  const int n_scales = layout.n_scales;
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    const LaneStats stats = lane_stats(work, lane);
    const Vec d = load(work.d + lane), dmin = load(work.dmin + lane);
    const Vec base = clamp(round_near(ratio(load(work.scale + lane), d)), scale_lo, scale_hi);
    const Vec sq = load(work.sq + lane);
    const Vec to_min = kMin ? ratio(splat(1.0f), stats.w * dmin) : Vec{};
    GridBest best{splat(3e38f), Vec{}, Vec{}};
    for (int k = 0; k < n_scales; k += kCount) {
      Vec sc[kCount], mn[kCount];
      for (int i = 0; i < kCount; ++i) {
        const int at = k + i < n_scales ? k + i : n_scales - 1;
        sc[i] = clamp(base + static_cast<float>(at - n_scales / 2), scale_lo, scale_hi);
        mn[i] = kMin ? clamp(round_near((d * sc[i] * sq - stats.wx) * to_min), Vec{}, min_hi) : Vec{};
      }
      try_pairs<kMin, kTable, kCount>(layout, work, lane, levels, sc, mn, to_min, best);
    }
    if constexpr (kMin) {
      const GridBest centre = best;
      for (int k = 1; k <= layout.min_window; ++k) {
        const float step = static_cast<float>(k);
        const Vec sc[2] = {centre.sc, centre.sc};
        const Vec mn[2] = {clamp(centre.mn - step, Vec{}, min_hi), clamp(centre.mn + step, Vec{}, min_hi)};
        try_pairs<kMin, kTable, 2>(layout, work, lane, levels, sc, mn, to_min, best);
      }
    }
    store(work.sc + lane, best.sc);
    store(work.mn + lane, best.mn);
  }
}

// Codes for the scales in force: their sums and error.
template <bool kMin, bool kTable>
void round_codes(const Layout& layout, Work& work) {
  const Levels levels{splat(layout.level_lo), splat(layout.level_hi), layout.cells};
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    const LaneStats stats = lane_stats(work, lane);
    const Vec scale = load(work.d + lane) * load(work.sc + lane);
    const Vec min = load(work.dmin + lane) * load(work.mn + lane);
    const Vec inverse = ratio(splat(1.0f), scale);
    const Vec offset = min * inverse;
    Sums sums;
    candidate_sums<kMin, kTable, 1>(work.x + lane, work.w + lane, layout.sub, levels, &inverse, &offset, &sums);
    store(work.sq + lane, sums.q);
    store(work.sqq + lane, sums.qq);
    store(work.sxq + lane, sums.xq);
    store(work.error + lane, error_at<kMin>(sums, stats, scale, min));
  }
}

// d and dmin of each block anew by least squares, codes, sub-scales and mins as they are.
template <bool kMin>
void refit_super(const Layout& layout, Work& work) {
  const int group = layout.subs_per_block;
  for (int first = 0; first < kLanes; first += group) {
    float ss = 0.0f, sm = 0.0f, mm = 0.0f, xs = 0.0f, xm = 0.0f;
    for (int i = first; i < first + group; ++i) {
      const float sc = work.sc[i], mn = work.mn[i];
      ss += sc * sc * work.sqq[i];
      xs += sc * work.sxq[i];
      if (kMin) {
        sm += sc * mn * work.sq[i];
        mm += mn * mn * work.sw[i];
        xm += mn * work.swx[i];
      }
    }
    float d = ss > kTiny ? xs / ss : 0.0f, dmin = 0.0f;
    if (kMin) {
      const float det = ss * mm - sm * sm;
      if (det > ss * mm * 1e-6f) {
        d = (xs * mm - sm * xm) / det;
        dmin = (sm * xs - ss * xm) / det;
      }
    }
    fill(work.d + first, group, f16_value(d));
    fill(work.dmin + first, group, f16_value(dmin));
  }
}

struct Chosen {
  alignas(64) float d[kLanes], dmin[kLanes], sc[kLanes], mn[kLanes], error[kLanes], sxq[kLanes];
};

// Keeps, block by block, whichever has less error.
void keep_better(const Layout& layout, const Work& work, Chosen& chosen, bool first_time) {
  const int group = layout.subs_per_block;
  for (int first = 0; first < kLanes; first += group) {
    float now = 0.0f, before = 0.0f;
    for (int i = first; i < first + group; ++i) {
      now += work.error[i];
      before += chosen.error[i];
    }
    if (!first_time && !(now < before)) continue;
    for (int i = first; i < first + group; ++i) {
      chosen.d[i] = work.d[i];
      chosen.dmin[i] = work.dmin[i];
      chosen.sc[i] = work.sc[i];
      chosen.mn[i] = work.mn[i];
      chosen.error[i] = work.error[i];
      chosen.sxq[i] = work.sxq[i];
    }
  }
}

template <bool kMin, bool kTable>
void write_levels(const Layout& layout, const Chosen& chosen, Batch& batch) {
  const Levels levels{splat(layout.level_lo), splat(layout.level_hi), layout.cells};
  alignas(64) float inverse[kLanes], offset[kLanes];
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    const Vec scale = load(chosen.d + lane) * load(chosen.sc + lane);
    store(inverse + lane, ratio(splat(1.0f), scale));
    store(offset + lane, load(chosen.dmin + lane) * load(chosen.mn + lane) * load(inverse + lane));
  }
  for (int lane = 0; lane < kLanes; ++lane) {  // by rows: nothing to transpose back
    const float* x = batch.x + lane * layout.sub;
    int8_t* out = batch.level + lane * layout.sub;
    for (int e = 0; e < layout.sub; e += kWidth) {
      Vec t = load(x + e) * inverse[lane];
      if (kMin) t = t + offset[lane];
      const Bytes bytes = __builtin_convertvector(__builtin_convertvector(level_of<kTable>(t, levels), Mask), Bytes);
      __builtin_memcpy(out + e, &bytes, kWidth);
    }
  }
}

// Least squares shrinks: what it gives has a weighted projection below 1 on the weights it stands for, the more so the
// fewer the bits, and a shrinkage adds up over the layers of a model where the rest of the error averages out. Scales
// each block to projection 1, codes kept (at 2 bits a quarter less KL divergence, from measurement).
template <bool kMin>
void unshrink(const Layout& layout, const Work& work, Chosen& chosen) {
  const int group = layout.subs_per_block;
  for (int first = 0; first < kLanes; first += group) {
    float xy = 0.0f, xx = 0.0f;
    for (int i = first; i < first + group; ++i) {
      xy += chosen.d[i] * chosen.sc[i] * chosen.sxq[i];
      if (kMin) xy -= chosen.dmin[i] * chosen.mn[i] * work.swx[i];
      xx += work.swxx[i];
    }
    const float gain = xx > kTiny && xy > 0.5f * xx ? xx / xy : 1.0f;
    fill(chosen.d + first, group, f16_value(chosen.d[first] * gain));
    if (kMin) fill(chosen.dmin + first, group, f16_value(chosen.dmin[first] * gain));
  }
}

template <bool kMin, bool kTable>
void fit_kind(const Layout& layout, Batch& batch) {
  Work work;
  Chosen chosen;
  load_batch(layout, batch, work);
  coarse_fit<kMin, kTable>(layout, work);
  fill(work.dmin, kLanes, 0.0f);
  fill(work.mn, kLanes, 0.0f);
  if (layout.subs_per_block == 1) {
    fill(work.sc, kLanes, 1.0f);
    if (kMin) fill(work.mn, kLanes, 1.0f);
    for (int lane = 0; lane < kLanes; lane += kWidth) {
      store(work.d + lane, round_f16(load(work.scale + lane)));
      store(work.dmin + lane, round_f16(load(work.min + lane)));
    }
  } else {
    choose_super<kMin>(layout, work);
    grid_scan<kMin, kTable>(layout, work);
  }
  round_codes<kMin, kTable>(layout, work);
  keep_better(layout, work, chosen, true);
  for (int round = 0; round < layout.n_rounds; ++round) {
    refit_super<kMin>(layout, work);
    round_codes<kMin, kTable>(layout, work);
    keep_better(layout, work, chosen, false);
  }
  write_levels<kMin, kTable>(layout, chosen, batch);
  unshrink<kMin>(layout, work, chosen);
  for (int lane = 0; lane < kLanes; ++lane) {
    batch.d[lane] = chosen.d[lane];
    batch.dmin[lane] = chosen.dmin[lane];
    batch.scale[lane] = chosen.sc[lane];
    batch.min[lane] = chosen.mn[lane];
  }
}

inline void fit_batch(const Layout& layout, Batch& batch) {
  if (layout.has_min) {
    fit_kind<true, false>(layout, batch);
  } else if (layout.cells != nullptr) {
    fit_kind<false, true>(layout, batch);
  } else {
    fit_kind<false, false>(layout, batch);
  }
}

}  // namespace
}  // namespace nibble::method::search
