// Weights as X.qweight, X.qzeros, X.scales and perhaps X.g_idx: the tensors of GPTQ and AWQ checkpoints, which lie
// transposed. With W of N outputs and K inputs, b bits, G groups, and words of 32 bits, lowest bits first:
//   kInputs (GPTQ)  qweight i32 (K b / 32, N): down each column the codes of its inputs, one bit stream
//   kOutputs (AWQ)  qweight i32 (K, N / 8): a word holds 8 outputs of an input, in kAwqOrder; 4 bits
//   qzeros i32 (G, N b / 32): along each row a bit stream of the zeros less `zero_offset`, or words in kAwqOrder
//   scales (G, N); g_idx i32 (K), the group of each input, without it input k is of group k / g
// W[n, k] = scales[g, n] * (code[k, n] - zero[g, n])
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "container/mapped_checkpoint.h"
#include "encoding/encoding.h"

namespace nibble::container::hf {

enum class QweightPacking : std::uint8_t { kInputs, kOutputs };

// Nibble i of a word is output kAwqOrder[i] of its eight.
inline constexpr std::array<int, 8> kAwqOrder = {0, 2, 4, 6, 1, 3, 5, 7};

struct QweightForm {
  QweightPacking packing{};
  int zero_offset = 0;  // zero = stored field + this
  struct Sizes {
    std::int64_t bits = 0, group = -1;  // -1: one group a row
  };
  std::vector<Sizes> sizes;  // that the config speaks of, the usual ones first
};

// Makes "X.weight" (N, K) of the affine family of each such X. Throws Error{kFormat} naming the tensors.
void join_qweights(CheckpointContents& contents, const QweightForm& form);

// src: (rows, cols) -> dst: (cols, rows).
template <typename T>
void transpose(const T* src, std::int64_t rows, std::int64_t cols, T* dst) {
  constexpr std::int64_t kTile = 16;
  for (std::int64_t r = 0; r < rows; r += kTile) {
    for (std::int64_t c = 0; c < cols; c += kTile) {
      for (std::int64_t j = c; j < std::min(cols, c + kTile); ++j) {
        for (std::int64_t i = r; i < std::min(rows, r + kTile); ++i) dst[j * rows + i] = src[i * cols + j];
      }
    }
  }
}

// The zeros of a tensor as codes are stored, (N, G): of a symmetric encoding its offset. Of one scale for all, (1, 1).
std::vector<std::uint8_t> stored_zeros(const TensorView& tensor);
// The scales (N, G) as (G, N) bytes of the same type.
void transpose_scales(const TensorView& tensor, std::span<std::byte> out);

}  // namespace nibble::container::hf
