// Both factors are packed as tiles of the AMX unit, 16 lines of 32 numbers: of the left one a line is 32 columns of a
// row, of the right one two rows of 16 columns, interleaved. Four tiles of sums at a time stay in registers.
#include <immintrin.h>

#include "linalg/bf16_product.h"

namespace nibble::linalg {

namespace {

constexpr int64_t kEdge = 16, kDepth = 32, kTileBytes = 1024;  // rows and columns of sums, what a tile sums over

struct alignas(64) Configuration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

int64_t tiles_of(int64_t n, int64_t edge) { return (n + edge - 1) / edge; }
__mmask16 first_lanes(int64_t n) {
  return n >= 16 ? __mmask16{0xFFFF} : n <= 0 ? __mmask16{0} : static_cast<__mmask16>((1 << n) - 1);
}

__m512i words_of(__m512 low, __m512 high) {
  const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
  __m512i words;
  __builtin_memcpy(&words, &both, sizeof(words));
  return words;
}
__m512 numbers_of(__m256i words) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16)); }

// Lines of 16 pairs each, turned: pair j of line i becomes pair i of line j.
void transpose(__m512i* line) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(line[i], line[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(line[i], line[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    line[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    line[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    line[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    line[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // line[4 q + j], 128 bits l: pairs 4 l + j of lines 4 q to 4 q + 3
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(line[j], line[4 + j], 0x88),
                  b = _mm512_shuffle_i32x4(line[8 + j], line[12 + j], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(line[j], line[4 + j], 0xDD),
                  d = _mm512_shuffle_i32x4(line[8 + j], line[12 + j], 0xDD);
    t[j] = _mm512_shuffle_i32x4(a, b, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(a, b, 0xDD);
    t[4 + j] = _mm512_shuffle_i32x4(c, d, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(c, d, 0xDD);
  }
  for (int i = 0; i < 16; ++i) line[i] = t[i];
}

// What is packed of a factor: `along` counts rows of the left or columns of the right factor, `deep` what is summed
// over.
struct Piece {
  const float* from;
  int64_t stride, along, deep;
};

// Up to 16 rows of 32 numbers that lie side by side.
template <int kParts>
void lines_of_rows(const Piece& piece, __m512i (*lines)[16]) {
  const __mmask16 first = first_lanes(piece.deep), second = first_lanes(piece.deep - 16);
  for (int64_t r = 0; r < kEdge; ++r) {
    __m512 low = _mm512_setzero_ps(), high = low;
    if (r < piece.along) {
      low = _mm512_maskz_loadu_ps(first, piece.from + r * piece.stride);
      high = _mm512_maskz_loadu_ps(second, piece.from + r * piece.stride + 16);
    }
    const __m512i words = words_of(low, high);
    lines[0][r] = words;
    if constexpr (kParts == 2) {
      low = _mm512_sub_ps(low, numbers_of(_mm512_castsi512_si256(words)));
      high = _mm512_sub_ps(high, numbers_of(_mm512_extracti64x4_epi64(words, 1)));
      lines[1][r] = words_of(low, high);
    }
  }
}

// Up to 32 rows of 16 numbers, two a line.
template <int kParts>
void lines_of_pairs(const Piece& piece, __m512i (*lines)[16]) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __mmask16 lanes = first_lanes(piece.along);
  for (int64_t p = 0; p < kEdge; ++p) {
    const float* from = piece.from + 2 * p * piece.stride;
    __m512 even = _mm512_setzero_ps(), odd = even;
    if (2 * p < piece.deep) even = _mm512_maskz_loadu_ps(lanes, from);
    if (2 * p + 1 < piece.deep) odd = _mm512_maskz_loadu_ps(lanes, from + piece.stride);
    const __m512i words = words_of(even, odd);
    lines[0][p] = _mm512_permutexvar_epi16(order, words);
    if constexpr (kParts == 2) {
      even = _mm512_sub_ps(even, numbers_of(_mm512_castsi512_si256(words)));
      odd = _mm512_sub_ps(odd, numbers_of(_mm512_extracti64x4_epi64(words, 1)));
      lines[1][p] = _mm512_permutexvar_epi16(order, words_of(even, odd));
    }
  }
}

// Tiles of a factor, those that are summed over one behind the other, part by part. Numbers that do not
// lie as a tile wants them are turned.
template <int kParts>
void pack(const Bf16Factor& factor, bool left, int64_t along, int64_t deep_begin, int64_t deep, uint8_t* out) {
  const bool side_by_side = left != factor.transposed;
  const int64_t depth = tiles_of(deep, kDepth), part = tiles_of(along, kEdge) * depth * kTileBytes;
  __m512i lines[kParts][16];
  for (int64_t i = 0; i < along; i += kEdge) {
    for (int64_t d = 0; d < deep; d += kDepth, out += kTileBytes) {
      const int64_t first = side_by_side ? i * factor.stride + deep_begin + d : (deep_begin + d) * factor.stride + i;
      const Piece piece = {factor.from + first, factor.stride, along - i, deep - d};
      if (side_by_side) {
        lines_of_rows<kParts>(piece, lines);
      } else {
        lines_of_pairs<kParts>(piece, lines);
      }
      for (int p = 0; p < kParts; ++p) {
        if (side_by_side != left) transpose(lines[p]);
        for (int64_t l = 0; l < 16; ++l) _mm512_store_si512(out + p * part + l * 64, lines[p][l]);
      }
    }
  }
}

struct alignas(64) Sums {
  float of[2][2][kEdge][kEdge];
};

// The sums of two by two tiles over a chunk.
template <int kParts>
void sum(const uint8_t* a, int64_t a_next, int64_t a_part, const uint8_t* b, int64_t b_next, int64_t b_part,
         int64_t depth, Sums& sums) {
  constexpr int kLine = 64;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t d = 0; d < depth * kTileBytes; d += kTileBytes) {
    for (int p = 0; p < kParts; ++p) {
      _tile_loadd(4, a + p * a_part + d, kLine);
      _tile_loadd(5, a + p * a_part + a_next + d, kLine);
      for (int q = 0; q + p < kParts; ++q) {
        _tile_loadd(6, b + q * b_part + d, kLine);
        _tile_loadd(7, b + q * b_part + b_next + d, kLine);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  _tile_stored(0, sums.of[0][0], kLine);
  _tile_stored(1, sums.of[0][1], kLine);
  _tile_stored(2, sums.of[1][0], kLine);
  _tile_stored(3, sums.of[1][1], kLine);
  asm volatile("" : : : "memory");  // the intrinsics do not say what they write
}

void store(const Bf16Job& job, const Sums& sums, int64_t row, int64_t col, bool adds) {
  const int64_t rows = job.m - row < 2 * kEdge ? job.m - row : 2 * kEdge;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t half = 0; half < 2; ++half) {
      const __mmask16 lanes = first_lanes(job.n - col - half * kEdge);
      float* to = job.c + (row + r) * job.ldc + col + half * kEdge;
      __m512 sum = _mm512_load_ps(sums.of[r / kEdge][half][r % kEdge]);
      if (adds) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, to));
      _mm512_mask_storeu_ps(to, lanes, sum);
    }
  }
}

template <int kParts>
void product(const Bf16Job& job) {
  constexpr int64_t kChunk = kBf16Chunk / kParts;
  Sums sums;
  // An odd last tile is summed with itself as its neighbour, which is not stored.
  const int64_t row_tiles = tiles_of(job.m, kEdge), col_tiles = tiles_of(job.n, kEdge);
  for (int64_t begin = 0; begin < job.k; begin += kChunk) {
    const int64_t deep = job.k - begin < kChunk ? job.k - begin : kChunk, depth = tiles_of(deep, kDepth);
    const int64_t next = depth * kTileBytes, a_part = row_tiles * next, b_part = col_tiles * next;
    uint8_t *a = job.packed, *b = job.packed + kParts * a_part;
    pack<kParts>(job.a, true, job.m, begin, deep, a);
    pack<kParts>(job.b, false, job.n, begin, deep, b);
    asm volatile("" : : : "memory");
    for (int64_t col = 0; col < col_tiles; col += 2) {
      for (int64_t row = 0; row < row_tiles; row += 2) {
        sum<kParts>(a + row * next, row + 1 < row_tiles ? next : 0, a_part, b + col * next,
                    col + 1 < col_tiles ? next : 0, b_part, depth, sums);
        store(job, sums, row * kEdge, col * kEdge, job.adds || begin > 0);
      }
    }
  }
}

}  // namespace

void bf16_product(const Bf16Job& job) noexcept {
  const Configuration configuration;
  _tile_loadconfig(&configuration);
  job.parts == 2 ? product<2>(job) : product<1>(job);
  _tile_release();
}

}  // namespace nibble::linalg
