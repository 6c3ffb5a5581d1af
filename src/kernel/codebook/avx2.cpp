// The path of AVX2: levels are looked up as two tables of bytes (pshufb) and joined to 16 bits, products with the
// activations, widened to 16 bits, are summed in pairs by madd. One token: sums of a row lie side by side in half a
// vector and are folded once per block. Many: a stretch of a panel is looked up once and turned, so that each lane is a
// row and no sum across a vector is needed.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/codebook/unpack_avx2.h"

namespace nibble::kernel::codebook {

namespace {

constexpr int kStreamTokens = 3;
constexpr int kPrefetchBytes = 2048;

// Eight activations in 16 bits, in both halves.
inline __m256i widen_eight(const int8_t* a) {
  return _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(a))));
}

// Block kSub of a strip times kTokens tokens: sum[h][t] of the rows of each half.
template <int kBits, int kSub, bool kShared, int kTokens>
[[gnu::always_inline]] inline void dot_block(const uint8_t* strip, const PairTables<kShared>& tables,
                                             const Activations& a, int64_t block, __m256i (&sum)[kHalves][kTokens]) {
  __m256i x[kTokens][4];
  for (int t = 0; t < kTokens; ++t) {
    for (int i = 0; i < 4; ++i) x[t][i] = widen_eight(codes_of(a, t) + block * kBlock + i * 8);
  }
#pragma GCC unroll 2
  for (int h = 0; h < kHalves; ++h) {
    __m256i folded[kTokens][2];
#pragma GCC unroll 2
    for (int two = 0; two < 2; ++two) {
      __m256i row[kTokens][2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        __m256i level[4];
        look_up<kBits, kSub, kShared>(strip, tables, (two * 2 + i) * kHalves + h, level);
        for (int t = 0; t < kTokens; ++t) {
          const __m256i first =
              _mm256_add_epi32(_mm256_madd_epi16(level[0], x[t][0]), _mm256_madd_epi16(level[1], x[t][1]));
          const __m256i last =
              _mm256_add_epi32(_mm256_madd_epi16(level[2], x[t][2]), _mm256_madd_epi16(level[3], x[t][3]));
          row[t][i] = _mm256_add_epi32(first, last);
        }
      }
      for (int t = 0; t < kTokens; ++t) folded[t][two] = _mm256_hadd_epi32(row[t][0], row[t][1]);
    }
    for (int t = 0; t < kTokens; ++t) sum[h][t] = _mm256_hadd_epi32(folded[t][0], folded[t][1]);
  }
}

template <int kTokens>
inline void store(const Job& job, int64_t row, const __m256 (&y)[kHalves][kTokens]) {
  for (int h = 0; h < kHalves; ++h) {
    const __m256i mask = row_mask(job.row_end - row - h * kHalfRows);
    for (int t = 0; t < kTokens; ++t) _mm256_maskstore_ps(job.out + t * job.ldo + row + h * kHalfRows, mask, y[h][t]);
  }
}

// What one panel has summed up for a few tokens while its blocks go by.
template <int kBits, bool kShared, int kTokens>
struct Stream {
  const Job& job;
  const uint8_t* panel;
  Tables& tables;
  PairTables<kShared> pairs{tables};
  const uint8_t* group = nullptr;
  int64_t end = 0;  // of the part
  __m256 y[kHalves][kTokens] = {};
  __m256 s[kHalves][kTokens] = {};

  template <int kSub>
  [[gnu::always_inline]] inline void add(const uint8_t* strip, int64_t block) {
    const Geometry& geometry = job.geometry;
    if (block == end) {  // a new part begins
      const uint8_t* next = panel + block / geometry.group_blocks * geometry.group_bytes;
      if (!kShared && next != group) set_group<kBits>(geometry, next, tables);
      group = next;
      end = part_end(geometry, block);
    }
    __m256i sum[kHalves][kTokens];
    dot_block<kBits, kSub, kShared, kTokens>(strip, pairs, job.activations, block, sum);
    for (int t = 0; t < kTokens; ++t) {
      const __m256 a_scale = _mm256_set1_ps(scales_of(job.activations, t)[block]);
      for (int h = 0; h < kHalves; ++h) s[h][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[h][t]), a_scale, s[h][t]);
    }
    if (block + 1 < end) return;
    for (int h = 0; h < kHalves; ++h) {
      const __m256 scale = load_scale(geometry, group, h);
      for (int t = 0; t < kTokens; ++t) {
        y[h][t] = _mm256_fmadd_ps(s[h][t], scale, y[h][t]);
        s[h][t] = _mm256_setzero_ps();
      }
    }
  }
};

// Few tokens: every panel once, through registers.
template <int kBits, bool kShared, int kTokens>
void stream(const Job& job, Tables& tables) {
  const Geometry& geometry = job.geometry;
  if (kShared && job.row_begin < job.row_end)
    set_group<kBits>(geometry, job.packed + job.row_begin / kPanelRows * geometry.bytes, tables);
  for (int64_t row = job.row_begin; row < job.row_end; row += kPanelRows) {
    const uint8_t* panel = job.packed + row / kPanelRows * geometry.bytes;
    const uint8_t* strip = panel + geometry.codes_at;
    Stream<kBits, kShared, kTokens> sums{job, panel, tables};
    for (int64_t b = 0; b < geometry.blocks; b += strip_blocks(kBits), strip += strip_bytes(kBits)) {
      prefetch(strip + kPrefetchBytes, strip_bytes(kBits));
      sums.template add<0>(strip, b);
      if constexpr (kBits < 4) {
        if (b + 1 < geometry.blocks) sums.template add<1>(strip, b + 1);
      }
      if constexpr (kBits == 3) {
        if (b + 2 < geometry.blocks) sums.template add<2>(strip, b + 2);
        if (b + 3 < geometry.blocks) sums.template add<3>(strip, b + 3);
      }
    }
    store<kTokens>(job, row, sums.y);
  }
}

// A stretch of a panel, looked up: levels of two columns in each lane, a lane for each row, and the parts in it.
struct Tile {
  alignas(32) int16_t levels[kStretchBlocks][kBlock / 2][kHalves][kHalfRows * 2];
  __m256 scales[kStretchBlocks][kHalves];
  int part_ends[kStretchBlocks];
  int count;  // blocks
};

// Four rows of four lanes each, in both halves: turned.
inline void turn(const __m256i (&row)[4], __m256i (&column)[4]) {
  const __m256i a = _mm256_unpacklo_epi32(row[0], row[1]), b = _mm256_unpackhi_epi32(row[0], row[1]);
  const __m256i c = _mm256_unpacklo_epi32(row[2], row[3]), d = _mm256_unpackhi_epi32(row[2], row[3]);
  column[0] = _mm256_unpacklo_epi64(a, c);
  column[1] = _mm256_unpackhi_epi64(a, c);
  column[2] = _mm256_unpacklo_epi64(b, d);
  column[3] = _mm256_unpackhi_epi64(b, d);
}

template <int kBits, int kSub>
inline void fill_block(const uint8_t* strip, const Tables& tables,
                       int16_t (&levels)[kBlock / 2][kHalves][kHalfRows * 2]) {
  const PairTables<false> pairs{tables};
  for (int h = 0; h < kHalves; ++h) {
    __m256i level[kHalfPairs][4];
    for (int p = 0; p < kHalfPairs; ++p) look_up<kBits, kSub, false>(strip, pairs, p * kHalves + h, level[p]);
    for (int i = 0; i < 4; ++i) {
      const __m256i row[4] = {level[0][i], level[1][i], level[2][i], level[3][i]};
      __m256i column[4];
      turn(row, column);
      for (int k = 0; k < 4; ++k) _mm256_store_si256(reinterpret_cast<__m256i*>(levels[i * 4 + k][h]), column[k]);
    }
  }
}

template <int kBits>
void fill_tile(const Job& job, const uint8_t* panel, int64_t begin, Tables& tables, Tile& tile) {
  const Geometry& geometry = job.geometry;
  const int64_t rest = geometry.blocks - begin;
  tile.count = static_cast<int>(rest < kStretchBlocks ? rest : kStretchBlocks);
  for (int b = 0, part = 0; b < tile.count; ++part) {
    const uint8_t* group = panel + (begin + b) / geometry.group_blocks * geometry.group_bytes;
    set_group<kBits>(geometry, group, tables);
    for (int h = 0; h < kHalves; ++h) tile.scales[part][h] = load_scale(geometry, group, h);
    tile.part_ends[part] = static_cast<int>(part_end(geometry, begin + b) - begin);
    for (; b < tile.part_ends[part]; ++b) {
      const int sub = b % strip_blocks(kBits);  // stretches begin with a strip
      const uint8_t* strip = panel + geometry.codes_at + (begin + b) / strip_blocks(kBits) * strip_bytes(kBits);
      if (sub == 0) fill_block<kBits, 0>(strip, tables, tile.levels[b]);
      if constexpr (kBits < 4) {
        if (sub == 1) fill_block<kBits, 1>(strip, tables, tile.levels[b]);
      }
      if constexpr (kBits == 3) {
        if (sub == 2) fill_block<kBits, 2>(strip, tables, tile.levels[b]);
        if (sub == 3) fill_block<kBits, 3>(strip, tables, tile.levels[b]);
      }
    }
  }
}

// Tokens and panels of one pass: the activations of a stretch in 16 bits and the sums stay in the second-level cache.
constexpr int kPassTokens = 120;
constexpr int kPassPanels = 8;
struct Pass {
  alignas(32) int16_t x[kPassTokens][kStretchBlocks * kBlock + 16];  // rows not a power of two apart
  alignas(32) float sums[kPassPanels][kPassTokens][kHalves][kHalfRows];
};

// A tile times kTokens tokens, added to their sums (or written there, at the first blocks of a row).
template <int kTokens>
void multiply(const Job& job, const Tile& tile, Pass& pass, int panel, int token, int64_t first, int64_t begin) {
  const Activations& a = job.activations;
  float(*sums)[kHalves][kHalfRows] = pass.sums[panel] + token;
  __m256 y[kHalves][kTokens] = {};
#pragma GCC unroll 8
  for (int h = 0; h < kHalves && begin > 0; ++h) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) y[h][t] = _mm256_load_ps(sums[t][h]);
  }
  __m256 s[kHalves][kTokens] = {};
  for (int b = 0, part = 0; b < tile.count; ++b) {
    __m256i sum[kHalves][kTokens];
#pragma GCC unroll 16
    for (int c = 0; c < kBlock / 2; ++c) {
      const __m256i level[kHalves] = {load(tile.levels[b][c][0]), load(tile.levels[b][c][1])};
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m256i two = broadcast(pass.x[token + t] + b * kBlock + c * 2);
#pragma GCC unroll 2
        for (int h = 0; h < kHalves; ++h) {
          const __m256i product = _mm256_madd_epi16(level[h], two);
          sum[h][t] = c == 0 ? product : here(_mm256_add_epi32(sum[h][t], product));
        }
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m256 a_scale = _mm256_set1_ps(scales_of(a, first + token + t)[begin + b]);
#pragma GCC unroll 8
      for (int h = 0; h < kHalves; ++h) s[h][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[h][t]), a_scale, s[h][t]);
    }
    if (b + 1 < tile.part_ends[part]) continue;
#pragma GCC unroll 8
    for (int h = 0; h < kHalves; ++h) {
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        y[h][t] = _mm256_fmadd_ps(s[h][t], tile.scales[part][h], y[h][t]);
        s[h][t] = _mm256_setzero_ps();
      }
    }
    ++part;
  }
#pragma GCC unroll 8
  for (int h = 0; h < kHalves; ++h) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) _mm256_store_ps(sums[t][h], y[h][t]);
  }
}

// The activations of `n` tokens in blocks [begin, end), in 16 bits.
void widen_tokens(const Activations& a, int64_t first, int n, int64_t begin, int64_t end, Pass& pass) {
  for (int t = 0; t < n; ++t) {
    const int8_t* from = codes_of(a, first + t) + begin * kBlock;
    for (int64_t i = 0; i < (end - begin) * kBlock; i += 16) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(pass.x[t] + i), _mm256_cvtepi8_epi16(load_half(from + i)));
    }
  }
}

// Tokens [first, first + n), some panels at a time.
template <int kBits>
void multiply_panels(const Job& job, int64_t first, int n, Tables& tables) {
  using Multiply = void (*)(const Job&, const Tile&, Pass&, int, int, int64_t, int64_t);
  static constexpr Multiply kMultiply[kTileTokens] = {multiply<1>, multiply<2>, multiply<3>,
                                                      multiply<4>, multiply<5>, multiply<6>};
  const Geometry& geometry = job.geometry;
  Pass pass;
  Tile tile;
  for (int64_t row = job.row_begin; row < job.row_end; row += kPassPanels * kPanelRows) {
    const int64_t rest = (job.row_end - row + kPanelRows - 1) / kPanelRows;
    const int panels = static_cast<int>(rest < kPassPanels ? rest : kPassPanels);
    for (int64_t begin = 0; begin < geometry.blocks; begin += kStretchBlocks) {
      const int64_t end = begin + kStretchBlocks < geometry.blocks ? begin + kStretchBlocks : geometry.blocks;
      widen_tokens(job.activations, first, n, begin, end, pass);
      for (int p = 0; p < panels; ++p) {
        fill_tile<kBits>(job, job.packed + (row / kPanelRows + p) * geometry.bytes, begin, tables, tile);
        for_token_shares<kTileTokens>(n, [&](int64_t token, int64_t tokens) {
          kMultiply[tokens - 1](job, tile, pass, p, static_cast<int>(token), first, begin);
        });
      }
    }
    for (int p = 0; p < panels; ++p) {
      const int64_t at = row + p * kPanelRows;
      store_sums(pass.sums[p], n, job.out + first * job.ldo + at, job.ldo, job.row_end - at);
    }
  }
}

template <int kBits, bool kShared>
void stream_tokens(const Job& job, Tables& tables) {
  if (job.n == 1) return stream<kBits, kShared, 1>(job, tables);
  if (job.n == 2) return stream<kBits, kShared, 2>(job, tables);
  stream<kBits, kShared, kStreamTokens>(job, tables);
}

template <int kBits>
void compute(const Job& job) {
  Tables tables;
  if (job.geometry.levels == Levels::kNf4) set_fixed(tables, kNf4Levels);
  if (job.geometry.levels == Levels::kFp4) set_fixed(tables, kFp4Levels);
  if (job.n <= kStreamTokens) {
    return job.geometry.table_rows < kPanelRows ? stream_tokens<kBits, true>(job, tables)
                                                : stream_tokens<kBits, false>(job, tables);
  }
  for (int64_t first = 0; first < job.n; first += kPassTokens) {
    const int64_t rest = job.n - first;
    multiply_panels<kBits>(job, first, static_cast<int>(rest < kPassTokens ? rest : kPassTokens), tables);
  }
}

}  // namespace

void compute_avx2(const Job& job) noexcept {
  if (job.geometry.bits == 4) return compute<4>(job);
  if (job.geometry.bits == 3) return compute<3>(job);
  compute<2>(job);
}

}  // namespace nibble::kernel::codebook
