// The fit itself, compiled once per instruction set by search_<isa>.cpp, which define kWidth, Vec, Mask and their
// primitives first. Each lane runs the same IEEE operations in the same order whatever the width, and nothing is
// contracted, so every build gives the same bits. Everything is in an unnamed namespace: no copy compiled for one
// instruction set can be linked into another's code.
#include "method/search/fit_coarse.h"
#include "method/search/fit_super.h"

namespace nibble::method::search {
namespace {

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
      store_levels(out + e, level_of<kTable>(t, levels));
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
