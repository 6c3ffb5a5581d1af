// What one token makes the machine do at least: bytes of weights read, multiply-adds of the linears. Set against what
// the machine can do (kernel/roofline.h) it gives the fraction of the limit that a speed reaches.
#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <numeric>

#include "base/cpu.h"
#include "kernel/roofline.h"
#include "model/source.h"

namespace nibble::eval {

// Multiply-adds by what limits them (kernel::ProductKind).
struct Macs {
  std::array<double, std::size(kernel::kProductKinds)> of{};
  double& operator[](kernel::ProductKind kind) { return of[static_cast<std::size_t>(kind)]; }
  double operator[](kernel::ProductKind kind) const { return of[static_cast<std::size_t>(kind)]; }
  double all() const { return std::accumulate(of.begin(), of.end(), 0.0); }
};

struct TokenWork {
  double weight_bytes = 0;  // every linear and the head once, as their encodings pack them; not the embedding's row
  // Of stacked experts: all, and the share of them that a token is routed to.
  double expert_bytes = 0, expert_share = 0;
  // Multiply-adds that the kernels of `isa` execute for each token of a batch, and those of the head for one token
  // whose logits are asked for. Attention is not counted.
  Macs body, head;
};
// Bytes of weights that a step over one token of each of `batch` sequences reads; of experts as many as sequences meet
// that are routed without regard to each other.
double step_bytes(const TokenWork& work, int batch);
// `batch`: tokens that are computed together; many of them may go to other kernels than few.
TokenWork token_work(const model::ModelSource& source, Isa isa, std::int64_t batch);

// Seconds that the machine needs at its limit for a prefill of `tokens` with the logits of the last one: products
// alone.
double prefill_limit_seconds(const TokenWork& work, std::int64_t tokens, const kernel::Roofline& roofline);
// Multiply-adds of the same prefill.
double prefill_macs(const TokenWork& work, std::int64_t tokens);

}  // namespace nibble::eval
