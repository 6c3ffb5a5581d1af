// The path of AVX-512 with VNNI: levels, made positive by adding 2^15, are looked up as two tables of bytes, and each
// byte meets the int8 activations alone: sum level * a = 256 sum high * a + sum low * a - 2^15 sum a. One token (or a
// few): sums of a row lie side by side in a quarter of a vector and are folded once per block. Many: a stretch of
// panels is looked up once and turned, so that each lane is a row.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/codebook/unpack_avx512.h"

namespace nibble::kernel::codebook {

namespace {

constexpr int kStreamTokens = 4;  // that meet a block in registers
constexpr int kTurnBlocks = 4;    // of a panel, before the next has its turn
constexpr int kTileTokens = 6;    // 2 panels x 6 tokens: 12 integer and 12 float sums in registers
constexpr int kPassTokens = 126;  // that use an unpacked tile
constexpr int kPrefetchBytes = 2048;
constexpr int16_t kMinusBias = -32768;

// Levels of a pair of rows.
inline void set_pair(Tables& tables, int pair, __m512i first, __m512i second) {
  static constexpr ByteOrder kOrder(4, 2);
  const __m512i both = _mm512_mask_blend_epi16(0xAAAAAAAA, first, _mm512_slli_epi32(second, 16));
  store_pair(tables, pair, kOrder, _mm512_xor_si512(both, _mm512_set1_epi16(kMinusBias)));
}

inline void set_fixed(Tables& tables, const int16_t (&levels)[kMaxLevels]) {
  const __m512i wide = _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(levels)));
  for (int pair = 0; pair < kPairs; ++pair) set_pair(tables, pair, wide, wide);
}

template <int kBits>
void set_group(const Geometry& geometry, const uint8_t* group, Tables& tables) {
  if (geometry.table_rows == 0) return;
  const __m512 scale =
      geometry.table_rows == 1 ? _mm512_set1_ps(*reinterpret_cast<const float*>(group)) : _mm512_loadu_ps(group);
  // Rows that do not exist have a scale of 0.
  const __mmask16 exist = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_GT_OQ);
  alignas(64) float inverse[kPanelRows];
  _mm512_store_ps(inverse, _mm512_maskz_div_ps(exist, _mm512_set1_ps(1.0f), scale));
  const auto levels = [&](int row) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(load_centroids<kBits>(geometry, group, row), _mm512_set1_ps(inverse[row])));
  };
  for (int pair = 0; pair < kPairs; ++pair)
    set_pair(tables, pair, levels(first_row(pair)), levels(first_row(pair) + 4));
}

inline __m512 load_scale(const Geometry& geometry, const uint8_t* group) {
  const __m512 scale = _mm512_loadu_ps(group);
  if (geometry.levels == Levels::kCentroids) return scale;
  return _mm512_mul_ps(scale, _mm512_set1_ps(1.0f / (geometry.levels == Levels::kNf4 ? kNf4Unit : kFp4Unit)));
}

// Sixteen bytes to every quarter.
inline __m512i broadcast_quarter(const uint8_t* sixteen) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

// The sums of each quarter of four vectors, row by row.
inline __m512i fold(const __m512i (&sum)[kVectors]) {
  const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(sum[0], sum[1]), _mm512_unpackhi_epi32(sum[0], sum[1]));
  const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(sum[2], sum[3]), _mm512_unpackhi_epi32(sum[2], sum[3]));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

inline void prefetch_lines(const uint8_t* begin, int n_bytes) {
  for (int line = 0; line < n_bytes; line += 64) _mm_prefetch(begin + line, _MM_HINT_T0);
}

// Block kSub of a strip times kTokens tokens, a lane for each row. rows: of the activations.
template <int kBits, int kSub, bool kShared, int kTokens>
[[gnu::always_inline]] inline void dot_block(const uint8_t* strip, const VectorTables<kShared>& tables,
                                             const Activations& a, const uint8_t* const (&rows)[kTokens], int64_t block,
                                             __m512i (&dot)[kTokens]) {
  __m512i sum[kTokens][kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    __m512i low[2], high[2];
    look_up<kBits, kSub, kShared>(strip, tables, v, low, high);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const __m512i x[2] = {broadcast_quarter(rows[t] + block * kBlock),
                            broadcast_quarter(rows[t] + block * kBlock + 16)};
      __m512i all = _mm512_dpbusd_epi32(_mm512_setzero_si512(), high[0], x[0]);
      all = _mm512_slli_epi32(_mm512_dpbusd_epi32(all, high[1], x[1]), 8);
      sum[t][v] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(all, low[0], x[0]), low[1], x[1]);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    dot[t] =
        _mm512_dpwssd_epi32(fold(sum[t]), broadcast(rows[t] + a.sums_at + block * 4), _mm512_set1_epi16(kMinusBias));
  }
}

// Adds the blocks [begin, end) of a panel, which lie in one part, to its sums.
template <int kBits, bool kShared, int kTokens>
[[gnu::always_inline]] inline void stream_blocks(const Activations& a, const uint8_t* codes, const Tables& all_tables,
                                                 const uint8_t* const (&rows)[kTokens], int64_t begin, int64_t end,
                                                 __m512 (&s)[kTokens]) {
  const VectorTables<kShared> tables{all_tables};
  for_blocks<kBits>(
      codes, begin, end, [&]<int kSub>(const uint8_t* strip, int64_t b) __attribute__((always_inline)) {
        if constexpr (kSub == 0) prefetch_lines(strip + kPrefetchBytes, strip_bytes(kBits));
        __m512i dot[kTokens];
        dot_block<kBits, kSub, kShared, kTokens>(strip, tables, a, rows, b, dot);
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          const __m512 a_scale = broadcast_f32(rows[t] + a.scales_at + b * 4);
          s[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t]), a_scale, s[t]);
        }
      });
}

// kPanels panels from the one with row `row` on, each `apart` behind the one before, kTurnBlocks blocks of each in
// turn: memory gives more to several streams than to one. shared: the tables, where all rows have the same.
template <int kBits, bool kShared, int kTokens, int kPanels>
void stream_panels(const Job& job, const Tables& shared, int64_t row, int64_t apart) {
  constexpr int kTurn = kPanels == 1 ? kStretchBlocks : kTurnBlocks;
  const Geometry& geometry = job.geometry;
  const uint8_t* panel = job.packed + row / kPanelRows * geometry.bytes;
  const uint8_t* rows[kTokens];
  for (int t = 0; t < kTokens; ++t) rows[t] = job.activations.rows + t * job.activations.stride;
  Tables tables[kShared ? 1 : kPanels];
  __m512 y[kPanels][kTokens] = {};
  __m512 s[kPanels][kTokens] = {};
  for (int64_t begin = 0, end; begin < geometry.blocks; begin = end) {
    const int64_t index = begin / geometry.group_blocks, turn = (begin / kTurn + 1) * kTurn;
    const int64_t last = part_end(geometry, begin);  // of the part
    end = turn < last ? turn : last;
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* at = panel + p * apart * geometry.bytes;
      const uint8_t* group = at + index * geometry.group_bytes;
      if (!kShared && begin == index * geometry.group_blocks) set_group<kBits>(geometry, group, tables[p]);
      prefetch_lines(group + kPrefetchBytes, 64);
      stream_blocks<kBits, kShared, kTokens>(job.activations, at + geometry.codes_at, kShared ? shared : tables[p],
                                             rows, begin, end, s[p]);
      if (end < last) continue;
      const __m512 scale = load_scale(geometry, group);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        y[p][t] = _mm512_fmadd_ps(s[p][t], scale, y[p][t]);
        s[p][t] = _mm512_setzero_ps();
      }
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    const int64_t at = row + p * apart * kPanelRows;
    const __mmask16 mask = row_mask(job.row_end - at);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) _mm512_mask_storeu_ps(job.out + t * job.ldo + at, mask, y[p][t]);
  }
}

// Few tokens: every panel once, through registers; the streams go through a share of the panels each.
template <int kBits, bool kShared>
void stream(const Job& job, const Tables& shared) {
  using Stream = void (*)(const Job&, const Tables&, int64_t, int64_t);
  static constexpr Stream kManyPanels[kStreamTokens] = {
      stream_panels<kBits, kShared, 1, 4>, stream_panels<kBits, kShared, 2, 2>, stream_panels<kBits, kShared, 3, 1>,
      stream_panels<kBits, kShared, 4, 1>};
  static constexpr Stream kOnePanel[] = {stream_panels<kBits, kShared, 1, 1>, stream_panels<kBits, kShared, 2, 1>};
  static constexpr int kPanels[kStreamTokens] = {4, 2, 1, 1};
  const int64_t panels = (job.row_end - job.row_begin + kPanelRows - 1) / kPanelRows;
  const int64_t share = panels / kPanels[job.n - 1];
  for (int64_t i = 0; i < share; ++i) kManyPanels[job.n - 1](job, shared, job.row_begin + i * kPanelRows, share);
  for (int64_t i = share * kPanels[job.n - 1]; i < panels; ++i)
    kOnePanel[job.n - 1](job, shared, job.row_begin + i * kPanelRows, 0);
}

// A stretch of one or two panels, looked up: bytes of four columns in each lane, a lane for each row, and the parts in
// it.
template <int kPanels>
struct Tile {
  alignas(64) uint8_t low[kStretchBlocks][kGroups][kPanels][64];
  alignas(64) uint8_t high[kStretchBlocks][kGroups][kPanels][64];
  alignas(64) float scales[kStretchBlocks][kPanels][kPanelRows];
  int part_ends[kStretchBlocks];
  int count;  // blocks
};

// Columns 4g..4g+3 to bytes[g][panel].
template <int kPanels>
inline void store_turned(const __m512i (&rows)[2][kVectors], uint8_t (&bytes)[kGroups][kPanels][64], int panel) {
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    __m512i columns[4];
    turn(rows[i], columns);
    for (int k = 0; k < 4; ++k) _mm512_store_si512(bytes[i * 4 + k][panel], columns[k]);
  }
}

template <int kBits, int kPanels>
void fill_tile(const Job& job, const uint8_t* panel, int64_t begin, Tables& tables, int p, Tile<kPanels>& tile) {
  const Geometry& geometry = job.geometry;
  const int64_t rest = geometry.blocks - begin;
  tile.count = static_cast<int>(rest < kStretchBlocks ? rest : kStretchBlocks);
  for (int b = 0, part = 0; b < tile.count; ++part) {
    const uint8_t* group = panel + (begin + b) / geometry.group_blocks * geometry.group_bytes;
    set_group<kBits>(geometry, group, tables);
    _mm512_store_ps(tile.scales[part][p], load_scale(geometry, group));
    tile.part_ends[part] = static_cast<int>(part_end(geometry, begin + b) - begin);
    const auto fill_block = [&]<int kSub>(const uint8_t* strip, int64_t block) {
      __m512i low[2][kVectors], high[2][kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        __m512i l[2], h[2];
        look_up<kBits, kSub, false>(strip, {tables}, v, l, h);
        low[0][v] = l[0], low[1][v] = l[1], high[0][v] = h[0], high[1][v] = h[1];
      }
      store_turned<kPanels>(low, tile.low[block - begin], p);
      store_turned<kPanels>(high, tile.high[block - begin], p);
    };
    for_blocks<kBits>(panel + geometry.codes_at, begin + b, begin + tile.part_ends[part], fill_block);
    b = tile.part_ends[part];
  }
}

// Adds the products of one plane of bytes of a block.
template <int kPanels, int kTokens>
[[gnu::always_inline]] inline void add_plane(const uint8_t (&bytes)[kGroups][kPanels][64], const uint8_t* a,
                                             int64_t stride, __m512i (&dot)[kPanels][kTokens]) {
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) {
    __m512i w[kPanels];
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) w[p] = _mm512_load_si512(bytes[g][p]);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const __m512i four = broadcast(a + t * stride + g * 4);
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], w[p], four);
    }
  }
}

// A tile times kTokens tokens from `rows` on, added to their sums.
template <int kPanels, int kTokens>
void multiply(const Job& job, const Tile<kPanels>& tile, const uint8_t* rows, int64_t begin,
              float (*sums)[kPanels][kPanelRows]) {
  const Activations& a = job.activations;
  for (int b = 0, part = 0; b < tile.count; ++part) {
    __m512 s[kPanels][kTokens] = {};
    for (; b < tile.part_ends[part]; ++b) {
      __m512i dot[kPanels][kTokens];
      const uint8_t* a_sums = rows + a.sums_at + (begin + b) * 4;
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) {
          dot[p][t] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), broadcast(a_sums + t * a.stride),
                                          _mm512_set1_epi16(kMinusBias / 256));
        }
      }
      add_plane<kPanels, kTokens>(tile.high[b], rows + (begin + b) * kBlock, a.stride, dot);
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
        for (int t = 0; t < kTokens; ++t) dot[p][t] = _mm512_slli_epi32(dot[p][t], 8);
      }
      add_plane<kPanels, kTokens>(tile.low[b], rows + (begin + b) * kBlock, a.stride, dot);
      const uint8_t* a_scales = rows + a.scales_at + (begin + b) * 4;
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) {
        const __m512 a_scale = broadcast_f32(a_scales + t * a.stride);
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) s[p][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[p][t]), a_scale, s[p][t]);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) {
        const __m512 y = _mm512_load_ps(sums[t][p]), scale = _mm512_load_ps(tile.scales[part][p]);
        _mm512_store_ps(sums[t][p], _mm512_fmadd_ps(s[p][t], scale, y));
      }
    }
  }
}

// Up to kPassTokens tokens from `first` on times one or two panels.
template <int kBits, int kPanels>
void multiply_panels(const Job& job, int64_t first, int64_t n, int64_t row, Tables& tables) {
  using Multiply = void (*)(const Job&, const Tile<kPanels>&, const uint8_t*, int64_t, float(*)[kPanels][kPanelRows]);
  static constexpr Multiply kMultiply[kTileTokens] = {multiply<kPanels, 1>, multiply<kPanels, 2>, multiply<kPanels, 3>,
                                                      multiply<kPanels, 4>, multiply<kPanels, 5>, multiply<kPanels, 6>};
  const Geometry& geometry = job.geometry;
  const int64_t shares = (n + kTileTokens - 1) / kTileTokens;  // tokens are shared out evenly
  Tile<kPanels> tile;
  alignas(64) float sums[kPassTokens][kPanels][kPanelRows];
  __builtin_memset(sums, 0, sizeof(sums[0]) * static_cast<uint64_t>(n));
  for (int64_t begin = 0; begin < geometry.blocks; begin += kStretchBlocks) {
    for (int p = 0; p < kPanels; ++p)
      fill_tile<kBits, kPanels>(job, job.packed + (row / kPanelRows + p) * geometry.bytes, begin, tables, p, tile);
    for (int64_t i = 0; i < shares; ++i) {
      const int64_t token = n * i / shares;
      kMultiply[n * (i + 1) / shares - token - 1](
          job, tile, job.activations.rows + (first + token) * job.activations.stride, begin, sums + token);
    }
  }
  for (int p = 0; p < kPanels; ++p) {
    const __mmask16 mask = row_mask(job.row_end - row - p * kPanelRows);
    float* out = job.out + first * job.ldo + row + p * kPanelRows;
    for (int64_t t = 0; t < n; ++t) _mm512_mask_storeu_ps(out + t * job.ldo, mask, _mm512_load_ps(sums[t][p]));
  }
}

template <int kBits>
void compute(const Job& job) {
  Tables tables;
  if (job.geometry.levels == Levels::kNf4) set_fixed(tables, kNf4Levels);
  if (job.geometry.levels == Levels::kFp4) set_fixed(tables, kFp4Levels);
  if (job.n <= kStreamTokens) {
    if (job.geometry.table_rows == kPanelRows) return stream<kBits, false>(job, tables);
    if (job.row_begin < job.row_end)
      set_group<kBits>(job.geometry, job.packed + job.row_begin / kPanelRows * job.geometry.bytes, tables);
    return stream<kBits, true>(job, tables);
  }
  for (int64_t first = 0; first < job.n; first += kPassTokens) {
    const int64_t n = job.n - first < kPassTokens ? job.n - first : kPassTokens;
    int64_t row = job.row_begin;
    for (; row + kPanelRows < job.row_end; row += 2 * kPanelRows) multiply_panels<kBits, 2>(job, first, n, row, tables);
    if (row < job.row_end) multiply_panels<kBits, 1>(job, first, n, row, tables);
  }
}

}  // namespace

void compute_avx512(const Job& job) noexcept {
  if (job.geometry.bits == 4) return compute<4>(job);
  if (job.geometry.bits == 3) return compute<3>(job);
  compute<2>(job);
}

}  // namespace nibble::kernel::codebook
