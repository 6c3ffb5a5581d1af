// The first step of the fit: real-valued scale and min of each sub-block, by itself.
#pragma once

#include "method/search/fit_sums.h"

namespace nibble::method::search {
namespace {

// The level that candidate k lets the value of largest magnitude stand for: n_coarse spread around the last code, then,
// for types without min, n_mirrored around the code at the other end.
template <bool kMin>
inline float reach(const Layout& layout, int k) {
  const bool mirrored = k >= layout.n_coarse;
  const int count = mirrored ? layout.n_mirrored : layout.n_coarse;
  const int i = mirrored ? k - layout.n_coarse : k;
  const float step = count > 1 ? (layout.coarse_hi - layout.coarse_lo) / static_cast<float>(count - 1) : 0.0f;
  const float shift = layout.coarse_lo + step * static_cast<float>(i);
  if (kMin) return layout.level_hi + shift;
  return mirrored ? layout.level_hi + shift : layout.level_lo - shift;
}

// The best fit of each lane so far, and the sums of its codes.
template <bool kMin>
struct CoarseBest {
  Fit fit;
  Sums sums{};

  // Before any codes: no scale, and the min that suits none.
  CoarseBest(const LaneStats& stats, bool min_positive) : fit{Vec{}, Vec{}, stats.wxx} {
    if (!kMin) return;
    fit.min = ratio(-stats.wx, stats.w);
    if (min_positive) fit.min = vmax(fit.min, Vec{});
    fit.error = stats.wxx + fit.min * stats.wx;
  }

  void consider(const Sums& other, const LaneStats& stats, bool min_positive) {
    const Fit now = solve<kMin>(other, stats, min_positive);
    const Mask better = now.error < fit.error;
    fit.scale = select(better, now.scale, fit.scale);
    fit.min = select(better, now.min, fit.min);
    fit.error = select(better, now.error, fit.error);
    sums.q = select(better, other.q, sums.q);
    sums.qq = select(better, other.qq, sums.qq);
    sums.xq = select(better, other.xq, sums.xq);
  }
};

template <bool kMin>
inline void store_coarse(const CoarseBest<kMin>& best, const LaneStats& stats, int lane, Work& work) {
  store(work.scale + lane, best.fit.scale);
  store(work.min + lane, best.fit.min);
  store(work.error + lane, best.fit.error);
  store(work.sq + lane, best.sums.q);
  store(work.sqq + lane, best.sums.qq);
  store(work.sxq + lane, best.sums.xq);
  // Where the min follows the scale, the part of the codes that a min can take over costs nothing (but a little, lest a
  // sub-block of equal codes has no say).
  Vec curve = best.sums.qq;
  if (kMin) curve = select(best.fit.min > 0.0f, curve - ratio(best.sums.q * best.sums.q, stats.w) * 0.999f, curve);
  store(work.curve + lane, curve);
}

// Real-valued (scale, min) of each sub-block: the best of a few inverse scales, each with its least-squares refit.
template <bool kMin, bool kTable>
void coarse_fit(const Layout& layout, Work& work) {
  constexpr int kCount = kCandidates;
  const Levels levels{splat(layout.level_lo), splat(layout.level_hi), layout.cells};
  const bool min_positive = layout.subs_per_block > 1;
  const int total = layout.n_coarse + (kMin ? 0 : layout.n_mirrored);
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    const LaneStats stats = lane_stats(work, lane);
    const float* x = work.x + lane;
    const float* w = work.w + lane;
    Vec lo = load(work.lo + lane), hi = load(work.hi + lane);
    if (kMin && min_positive) lo = vmin(lo, Vec{});
    // The value that the largest code stands for: of a symmetric type the x of largest magnitude, sign included.
    const Vec unit = ratio(splat(1.0f), kMin ? hi - lo : select(-lo >= hi, lo, hi));
    CoarseBest<kMin> best(stats, min_positive);
    for (int k = 0; k < total; k += kCount) {
      Vec inverse[kCount], offset[kCount];
      Sums sums[kCount];
      for (int i = 0; i < kCount; ++i) {
        inverse[i] = unit * reach<kMin>(layout, k + i < total ? k + i : total - 1);
        offset[i] = -lo * inverse[i];
      }
      candidate_sums<kMin, kTable, kCount>(x, w, layout.sub, levels, inverse, offset, sums);
      for (int i = 0; i < kCount; ++i) best.consider(sums[i], stats, min_positive);
    }
    for (int i = 0; i < layout.n_polish; ++i) {
      const Vec inverse = ratio(splat(1.0f), best.fit.scale);
      const Vec offset = best.fit.min * inverse;
      Sums sums;
      candidate_sums<kMin, kTable, 1>(x, w, layout.sub, levels, &inverse, &offset, &sums);
      best.consider(sums, stats, min_positive);
    }
    store_coarse<kMin>(best, stats, lane, work);
  }
}

}  // namespace
}  // namespace nibble::method::search
