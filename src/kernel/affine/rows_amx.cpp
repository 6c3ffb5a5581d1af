// The path of AMX for many tokens whose activations have one scale for a row: codes of 8 bits are tiles as they lie in
// their panels, others are unpacked to such. Each part of a row is summed in 32 bits and then as on every other path.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/affine/rows_avx512.h"
#include "kernel/tile_config.h"

namespace nibble::kernel::affine {

namespace {

constexpr int kPassTokens = 512;
constexpr int kPassPanels = 16;  // panels that share the activations of a pass: rows of them come from afar
constexpr int kPanelBytes = kPanelRows * kBlock;  // of a block, unpacked

constexpr int kKeptInputs = 2048;

// Sums of a pass: those of 16 tokens of a panel side by side; inputs that are kept and what they add up to.
struct alignas(64) Memory {
  uint8_t weights[kPassPanels][kStretchBlocks][kPanelBytes];
  float sums[kPassTokens / kTileRows][kPassPanels][kTileRows][kPanelRows];
  float kept[kPassPanels][kPassTokens][kPanelRows];
  int64_t kept_done[kPassTokens];
  KeptInput inputs[kKeptInputs];
  int32_t part[4][kTileRows][kPanelRows];
};

// Blocks that one tile holds: two, where no part ends within them.
int tile_blocks(const Geometry& geometry) { return geometry.blocks % 2 == 0 && geometry.group_blocks % 2 == 0 ? 2 : 1; }

// Tiles 0, 1 (and 2, 3): sums of a panel each for the first (and second) tokens; 4, 5: activations; 6, 7: weights.
void configure(int tokens, int blocks) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = static_cast<uint16_t>(tile == 4 || tile == 5 ? blocks * kBlock : 64);
    config.rows[tile] = static_cast<uint8_t>(tile < 6 ? tokens : blocks * kGroups);
  }
  _tile_loadconfig(&config);
}

// Where the weights of a stretch lie: in their panels, or unpacked.
struct Stretch {
  const uint8_t* weights;
  int64_t panel_stride;
  int64_t begin, end;  // blocks
};

template <int kP>
class Product {
 public:
  explicit Product(const RowsJob& job) : job_(job), blocks_(tile_blocks(job.geometry)) {}

  void run() {
    const int64_t panels = (job_.row_end - job_.row_begin + kPanelRows - 1) / kPanelRows;
    const int64_t passes = (panels + kPassPanels - 1) / kPassPanels;
    for (int64_t token = 0; token < job_.n; token += kPassTokens) {
      const int64_t n = job_.n - token < kPassTokens ? job_.n - token : kPassTokens;
      for (int64_t pass = 0; pass < passes; ++pass) {
        const int64_t panel = panels * pass / passes;
        run_pass(token, n, job_.row_begin / kPanelRows + panel, static_cast<int>(panels * (pass + 1) / passes - panel));
      }
    }
    _tile_release();
  }

 private:
  const uint8_t* panel_at(int64_t panel) const { return job_.packed + panel * job_.geometry.bytes; }

  void run_pass(int64_t token, int64_t n, int64_t panel, int panels) {
    for (int64_t t = 0; t < n; ++t) {
      memory_.kept_done[t] = 0;
      const bool keeps = header_of(job_.activations, token + t).kept > 0;
      for (int p = 0; p < panels && keeps; ++p) _mm512_store_ps(memory_.kept[p][t], _mm512_setzero_ps());
    }
    for (int64_t begin = 0; begin < job_.geometry.blocks; begin += kStretchBlocks) {
      const Stretch stretch = stretch_of(panel, panels, begin);
      add_tokens(stretch, token, n, panel, panels);
      keep_columns(stretch.end * kBlock, token, n, panel, panels);
    }
    for (int64_t t = 0; t < n; ++t) {
      const bool keeps = header_of(job_.activations, token + t).kept > 0;
      for (int p = 0; p < panels; ++p) {
        const __m512 y = _mm512_load_ps(memory_.sums[t / kTileRows][p][t % kTileRows]);
        const __m512 kept = keeps ? _mm512_load_ps(memory_.kept[p][t]) : _mm512_setzero_ps();
        const int64_t row = (panel + p) * kPanelRows;
        _mm512_mask_storeu_ps(job_.out + (token + t) * job_.ldo + row, row_mask(job_.row_end - row),
                              finish_row(job_, panel_at(panel + p), token + t, y, kept));
      }
    }
  }

  void add_tokens(const Stretch& stretch, int64_t token, int64_t n, int64_t panel, int panels) {
    int64_t t = 0;
    if (n >= kTileRows) configure(kTileRows, blocks_);
    for (; t + 2 * kTileRows <= n; t += 2 * kTileRows) add_panels<2>(stretch, token, t, panel, panels, kTileRows);
    for (; t + kTileRows <= n; t += kTileRows) add_panels<1>(stretch, token, t, panel, panels, kTileRows);
    if (t == n) return;
    configure(static_cast<int>(n - t), blocks_);
    add_panels<1>(stretch, token, t, panel, panels, static_cast<int>(n - t));
  }

  // Inputs that are kept, up to column `end`: now, while their weights are in the cache.
  void keep_columns(int64_t end, int64_t token, int64_t n, int64_t panel, int panels) {
    int count = 0;
    for (int64_t t = 0; t < n; ++t) {
      const int64_t all = header_of(job_.activations, token + t).kept;
      const int32_t* columns = kept_columns(job_.activations, token + t);
      int64_t& i = memory_.kept_done[t];
      for (; i < all && (i < job_.geometry.kept || columns[i] < end); ++i) {
        memory_.inputs[count++] = kept_input(job_, token + t, i);
        if (count == kKeptInputs) {
          add_inputs(count, token, panel, panels);
          count = 0;
        }
      }
    }
    add_inputs(count, token, panel, panels);
  }

  void add_inputs(int count, int64_t pass_token, int64_t panel, int panels) {
    for (int p = 0; p < panels; ++p) {
      for (int i = 0; i < count; ++i) {
        const KeptInput& input = memory_.inputs[i];
        float* sum = memory_.kept[p][input.token - pass_token];
        _mm512_store_ps(sum, add_kept<kP>(job_, panel_at(panel + p), input, _mm512_load_ps(sum)));
      }
    }
  }

  Stretch stretch_of(int64_t panel, int panels, int64_t begin) {
    constexpr CodePlanes kCodes = kPlanes[kP];
    const int64_t rest = job_.geometry.blocks - begin;
    const int64_t end = begin + (rest < kStretchBlocks ? rest : kStretchBlocks);
    const uint8_t* codes = panel_at(panel) + job_.geometry.codes_at + begin * block_bytes(kCodes);
    if constexpr (kCodes.low_bits == 8) return {codes, job_.geometry.bytes, begin, end};
    for (int p = 0; p < panels; ++p) {
      const uint8_t* block = codes + p * job_.geometry.bytes;
      for (int64_t b = 0; b < end - begin; ++b, block += block_bytes(kCodes)) {
        __m512i w[kGroups];
        unpack_codes<kCodes.low_bits, kCodes.high_bits>(block, w);
        for (int g = 0; g < kGroups; ++g) _mm512_store_si512(memory_.weights[p][b] + g * 64, w[g]);
      }
    }
    memory_is_touched();
    return {memory_.weights[0][0], int64_t{kStretchBlocks} * kPanelBytes, begin, end};
  }

  // A stretch of up to 32 tokens from `first` of the pass on, times all panels of the pass.
  template <int kTokenTiles>
  void add_panels(const Stretch& stretch, int64_t pass_token, int64_t first, int64_t panel, int panels, int tokens) {
    for (int p = 0; p < panels; p += 2) {
      for (int64_t begin = stretch.begin; begin < stretch.end;) {
        const int64_t end = part_end(job_.geometry, begin);
        const uint8_t* weights = stretch.weights + p * stretch.panel_stride + (begin - stretch.begin) * kPanelBytes;
        const int64_t token = pass_token + first;
        if (p + 1 < panels) {
          sum_tiles<2, kTokenTiles>(weights, stretch.panel_stride, token, begin, end);
          add_part<2, kTokenTiles>(token, first / kTileRows, panel + p, p, begin, end, tokens);
        } else {
          sum_tiles<1, kTokenTiles>(weights, stretch.panel_stride, token, begin, end);
          add_part<1, kTokenTiles>(token, first / kTileRows, panel + p, p, begin, end, tokens);
        }
        begin = end;
      }
    }
  }

  // The integer sums of a part, to memory_.part: token tile i of panel p at 2 * i + p.
  template <int kPanels, int kTokenTiles>
  void sum_tiles(const uint8_t* weights, int64_t panel_stride, int64_t token, int64_t begin, int64_t end) {
    const int64_t stride = job_.activations.stride;
    const uint8_t* x = job_.activations.rows + token * stride + begin * kBlock;
    _tile_zero(0);
    if constexpr (kPanels == 2) _tile_zero(1);
    if constexpr (kTokenTiles == 2) _tile_zero(2);
    if constexpr (kTokenTiles == 2 && kPanels == 2) _tile_zero(3);
    for (int64_t b = begin; b < end; b += blocks_, x += blocks_ * kBlock, weights += blocks_ * kPanelBytes) {
      _tile_loadd(6, weights, 64);
      _tile_loadd(4, x, stride);
      _tile_dpbsud(0, 4, 6);
      if constexpr (kPanels == 2) {
        _tile_loadd(7, weights + panel_stride, 64);
        _tile_dpbsud(1, 4, 7);
      }
      if constexpr (kTokenTiles == 2) {
        _tile_loadd(5, x + kTileRows * stride, stride);
        _tile_dpbsud(2, 5, 6);
        if constexpr (kPanels == 2) _tile_dpbsud(3, 5, 7);
      }
    }
    _tile_stored(0, memory_.part[0], 64);
    if constexpr (kPanels == 2) _tile_stored(1, memory_.part[1], 64);
    if constexpr (kTokenTiles == 2) _tile_stored(2, memory_.part[2], 64);
    if constexpr (kTokenTiles == 2 && kPanels == 2) _tile_stored(3, memory_.part[3], 64);
    memory_is_touched();
  }

  template <int kPanels, int kTokenTiles>
  void add_part(int64_t token, int64_t tile, int64_t panel, int pass_panel, int64_t begin, int64_t end, int tokens) {
    const int64_t group = begin / job_.geometry.group_blocks;
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* header = panel_at(panel + p);
      const __m512 scale = load_scale(job_.scale_type, header, group);
      const __m512i zero = load_zero(job_.zero, header + job_.geometry.zeros_at, group);
      for (int i = 0; i < kTokenTiles; ++i) {
        for (int t = 0; t < tokens; ++t) {
          const int32_t* sums = sums_of(job_.activations, token + i * kTileRows + t);
          const __m512i zeros = _mm512_mullo_epi32(zero, _mm512_set1_epi32(sums[begin] - sums[end]));
          const __m512i dot = _mm512_add_epi32(_mm512_load_si512(memory_.part[2 * i + p][t]), zeros);
          float* sum = memory_.sums[tile + i][pass_panel + p][t];
          const __m512 y = begin == 0 ? _mm512_setzero_ps() : _mm512_load_ps(sum);
          _mm512_store_ps(sum, _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, y));
        }
      }
    }
  }

  const RowsJob& job_;
  const int blocks_;
  Memory memory_;
};

template <int kP>
void compute(const RowsJob& job) {
  Product<kP>(job).run();
}

}  // namespace

void compute_rows_amx(const RowsJob& job) noexcept {
  static constexpr void (*kByPlanes[kPlanesCount])(const RowsJob&) = {compute<0>, compute<1>, compute<2>,
                                                                      compute<3>, compute<4>, compute<5>};
  kByPlanes[job.geometry.planes](job);
}

}  // namespace nibble::kernel::affine
