// A batch as lanes of sub-blocks, the weighted sums of candidate codes, and the least-squares fits that follow from
// them.
#pragma once

#include "method/search/fit_lanes.h"

namespace nibble::method::search {
namespace {

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

}  // namespace
}  // namespace nibble::method::search
