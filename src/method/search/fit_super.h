// The steps on the grid of a block: its d and dmin, then the sub-scales and mins of its sub-blocks as multiples of
// those.
#pragma once

#include "method/search/fit_sums.h"

namespace nibble::method::search {
namespace {

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

}  // namespace
}  // namespace nibble::method::search
