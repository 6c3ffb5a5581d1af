// Decodes what a fuzzed file says it holds, so that a view outside the file shows.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "container/checkpoint.h"
#include "encoding/encoding.h"

namespace nibble::fuzz {

inline void read_tensors(std::span<const container::TensorEntry> tensors) {
  constexpr std::int64_t kMaxCols = 1 << 16;
  std::vector<float> row;
  for (const auto& entry : tensors) {
    encoding::validate(entry.view);
    const TensorView& view = entry.view;
    if (view.rows() == 0 || view.cols() == 0 || view.cols() > kMaxCols) continue;
    if (view.encoding->decode == nullptr && view.n_parts == 1) continue;
    row.resize(static_cast<std::size_t>(view.cols()));
    encoding::decode_rows(view, 0, 1, row.data());
    encoding::decode_rows(view, view.rows() - 1, view.rows(), row.data());
  }
}

}  // namespace nibble::fuzz
