// How the work of nodes on rows is shared out; for this folder only.
#pragma once

#include <vector>

#include "train/tape.h"

namespace nibble::train {

inline constexpr std::int64_t kSerialNumbers = 8192;  // below this many, waking the threads costs more than the work

// body(begin, end) over [0, rows) of rows of `cols` numbers.
template <typename Real, typename Body>
void for_rows(Tape<Real>& tape, std::int64_t rows, std::int64_t cols, Body&& body) {
  if (rows * cols < kSerialNumbers) {
    if (rows > 0) body(std::int64_t{0}, rows);
    return;
  }
  tape.context().pool.parallel_for(rows, 1, body);
}

// body(begin, end) over runs of all numbers of a value.
template <typename Real, typename Body>
void for_numbers(Tape<Real>& tape, std::int64_t n, Body&& body) {
  if (n < kSerialNumbers) return body(std::int64_t{0}, n);
  tape.context().pool.parallel_for(n, 1024, body);
}

// Adds to sum (cols) what body(begin, end, part) adds to part for rows [begin, end): in as many parts whatever the
// number of threads.
template <typename Real, typename Body>
void sum_rows(Tape<Real>& tape, std::int64_t rows, std::int64_t cols, Real* sum, Body&& body) {
  constexpr std::int64_t kParts = 16, kLeastRows = 32;
  const std::int64_t per_part = std::max(kLeastRows, (rows + kParts - 1) / kParts);
  const std::int64_t n_parts = (rows + per_part - 1) / per_part;
  std::vector<Real> parts(static_cast<std::size_t>(n_parts * cols));
  const auto run_part = [&](std::int64_t part) {
    body(part * per_part, std::min(rows, (part + 1) * per_part), parts.data() + part * cols);
  };
  if (rows * cols < kSerialNumbers) {
    for (std::int64_t part = 0; part < n_parts; ++part) run_part(part);
  } else {
    tape.context().pool.parallel_dynamic(n_parts, run_part);
  }
  for (std::int64_t part = 0; part < n_parts; ++part)
    tape.ops().add_scaled(sum, Real{1}, parts.data() + part * cols, cols);
}

}  // namespace nibble::train
