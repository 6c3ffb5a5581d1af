#include "train/clip.h"

#include <numeric>
#include <vector>

#include "train/pieces.h"

namespace nibble::train {

double gradient_norm(ExecContext& context, std::span<Parameter* const> parameters) {
  const ParameterLoops& loops = choose_loops(best_isa());
  std::vector<double> sums(static_cast<std::size_t>(piece_count(parameters)));
  for_each_piece(
      context.pool, parameters, [&](std::size_t i, std::int64_t piece, std::int64_t begin, std::int64_t end) {
        sums[static_cast<std::size_t>(piece)] = loops.sum_squares(parameters[i]->gradients() + begin, end - begin);
      });
  return std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0));
}

Clipped clip_gradients(ExecContext& context, std::span<Parameter* const> parameters, double max_norm) {
  constexpr double kEps = 1e-6;
  if (!(max_norm >= 0)) fail(ErrorCode::kInvalidArgument, "a greatest gradient norm of {}", max_norm);
  Clipped clipped{.norm = gradient_norm(context, parameters)};
  if (max_norm == 0 || !clipped.finite()) return clipped;
  clipped.factor = std::min(1.0, max_norm / (clipped.norm + kEps));
  if (clipped.factor == 1) return clipped;
  const ParameterLoops& loops = choose_loops(best_isa());
  const auto factor = static_cast<float>(clipped.factor);
  for_each_piece(context.pool, parameters, [&](std::size_t i, std::int64_t, std::int64_t begin, std::int64_t end) {
    loops.scale(parameters[i]->gradients() + begin, factor, end - begin);
  });
  return clipped;
}

}  // namespace nibble::train
