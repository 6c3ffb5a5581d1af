// The numbers of all parameters as pieces of work that threads share, and the loops for this processor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "base/cpu.h"
#include "base/thread_pool.h"
#include "train/parameter.h"
#include "train/parameter_loops.h"

namespace nibble::train {

const ParameterLoops& choose_loops(Isa isa);

inline constexpr std::int64_t kPiece = 16384;  // numbers of a parameter in one piece: whole blocks of states

inline std::int64_t piece_count(std::int64_t size) { return (size + kPiece - 1) / kPiece; }
inline std::int64_t piece_count(std::span<Parameter* const> parameters) {
  std::int64_t n = 0;
  for (const Parameter* parameter : parameters) n += piece_count(parameter->size());
  return n;
}

// work(index of the parameter, piece counted over all of them, begin, end) for every piece, from all threads. Where
// pieces lie does not depend on how many threads there are.
template <typename Work>
void for_each_piece(ThreadPool& pool, std::span<Parameter* const> parameters, Work&& work) {
  pool.parallel_for(piece_count(parameters), 1, [&](std::int64_t first, std::int64_t last) {
    std::int64_t before = 0;  // pieces of the parameters before
    for (std::size_t i = 0; i < parameters.size() && before < last; ++i) {
      const std::int64_t size = parameters[i]->size(), own = piece_count(size);
      for (std::int64_t k = std::max<std::int64_t>(first - before, 0); k < std::min(own, last - before); ++k) {
        work(i, before + k, k * kPiece, std::min(size, (k + 1) * kPiece));
      }
      before += own;
    }
  });
}

}  // namespace nibble::train
