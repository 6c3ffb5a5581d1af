#include <algorithm>

#include "linalg/gemm.h"
#include "model/decoder.h"

namespace nibble::model {

namespace {

constexpr std::int64_t kTokens = 32;  // that are reduced by one thread at a time

}  // namespace

std::vector<const float*> ForwardPart::reduce_inputs(std::span<const LinearUse> uses, const float* x) {
  std::int64_t floats = 0;
  for (const LinearUse& use : uses) floats += rows_of(use) * use.linear->added.rank;
  if (floats == 0) return {};
  float* out = cache_.work.low_rank.floats(floats);
  std::vector<const float*> reduced;
  for (const LinearUse& use : uses) {
    const LowRank& added = use.linear->added;
    reduced.push_back(added.rank > 0 ? out : nullptr);
    if (added.rank == 0) continue;
    const std::int64_t cols = added.cols(), n = rows_of(use);
    const auto body = [&](std::int64_t begin, std::int64_t end) {
      linalg::gemm_nt(end - begin, added.rank, cols, x + (first_input(use) + begin) * cols, cols, added.a.data(), cols,
                      out + begin * added.rank, added.rank);
    };
    const std::int64_t tiles = (n + kTokens - 1) / kTokens;
    if (tiles == 1) body(0, n);
    if (tiles > 1) {
      context_.pool.parallel_dynamic(
          tiles, [&](std::int64_t tile) { body(tile * kTokens, std::min(n, (tile + 1) * kTokens)); });
    }
    out += n * added.rank;
  }
  return reduced;
}

void ForwardPart::add_low_rank(const LinearUse& use, const float* reduced, std::int64_t row_begin,
                               std::int64_t row_end) const {
  const LowRank& added = use.linear->added;
  const std::int64_t rows = added.rows(), n = rows_of(use);
  for (std::int64_t t = 0; t < n; ++t) {
    float* out = use.out + (use.first_row + t) * rows + row_begin;
    ops_.add_products(reduced + t * added.rank, added.rank, added.b.data() + row_begin, rows, row_end - row_begin, out);
  }
}

}  // namespace nibble::model
