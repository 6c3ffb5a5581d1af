#include <algorithm>
#include <cstring>

#include "model/decoder.h"

namespace nibble::model {

// Multi-head latent attention (arXiv 2405.04434, 2.1) in its absorbed form: a head's keys and values are products of
// the token's latent, so the query is multiplied by the key's matrix instead, and what is attended by the value's.
// The decoder then sees one key/value head of all query heads: (rotated part, latent). Its value is the latent, too,
// behind zeros where the rotated part is: keys and values lie in different orders, so the cache holds it twice.

namespace {

void copy(const float* from, std::int64_t n, float* to) {
  std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}

}  // namespace

// Fills work.q, work.k and work.v.
void ForwardPart::latent_queries(int layer, const DecoderBlock& block) {
  Workspace& work = cache_.work;
  const LatentSpec& spec = block.spec.latent;
  const LatentWeights& weights = block.latent;
  const std::int64_t heads = block.spec.n_heads, dim = block.spec.head_dim, rotated = dim - spec.kv_rank;
  const std::int64_t query = spec.plain + rotated, n = n_;
  float* queries = latent_projections(layer, block);  // (n, heads, query)
  for_rows(dim, [&](std::int64_t row) {
    float *k = work.k.floats() + row * dim, *v = work.v.floats() + row * dim;  // v: (latent, rotated)
    copy(v + spec.kv_rank, rotated, k);
    norm(weights.kv_a_norm, v, spec.kv_rank, k + rotated);
    std::fill_n(v, rotated, 0.0f);
    copy(k + rotated, spec.kv_rank, v + rotated);
  });
  float* plain = work.head_inputs.floats();
  for_rows(heads * query, [&](std::int64_t row) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const float* q = queries + (row * heads + h) * query;
      copy(q, spec.plain, plain + (h * n + row) * spec.plain);
      copy(q + spec.plain, rotated, work.q.floats() + (row * heads + h) * dim);
    }
  });
  const float* absorbed = run_heads(layer, Role::kAttnKB, weights.k_b, spec.plain);
  for_rows(heads * dim, [&](std::int64_t row) {
    for (std::int64_t h = 0; h < heads; ++h)
      copy(absorbed + (h * n + row) * spec.kv_rank, spec.kv_rank, work.q.floats() + (row * heads + h) * dim + rotated);
  });
}

// The queries, (n, heads, plain + rotated); work.v holds latent and rotated part of the keys, (n, head_dim).
float* ForwardPart::latent_projections(int layer, const DecoderBlock& block) {
  Workspace& work = cache_.work;
  const std::int64_t rank = block.spec.latent.q_rank;
  static constexpr Role kRoles[] = {Role::kAttnQ, Role::kAttnKvA}, kLatentRoles[] = {Role::kAttnQA, Role::kAttnKvA};
  float *queries = work.head_outputs.floats(), *latent = work.q_latent.floats();
  const LinearUse first[] = {{rank > 0 ? &block.latent.q_a : &block.q, rank > 0 ? latent : queries},
                             {&block.latent.kv_a, work.v.floats()}};
  const float* x = norm_and_round(x_, block.attn_norm, first);
  observe_input(layer, rank > 0 ? kLatentRoles : kRoles, x, decoder_.spec.hidden);
  run_linears(first, x, After::kKeep);
  if (rank == 0) return queries;
  for_rows(rank,
           [&](std::int64_t row) { norm(block.latent.q_a_norm, latent + row * rank, rank, latent + row * rank); });
  static constexpr Role kSecond[] = {Role::kAttnQB};
  const LinearUse expand[] = {{&block.q, queries}};
  observe_input(layer, kSecond, latent, rank);
  round_activations(latent, rank, expand);
  run_linears(expand, latent, After::kKeep);
  return queries;
}

// What the heads attended, (n, heads, value), in place of work.attended.
float* ForwardPart::latent_values(int layer, const DecoderBlock& block) {
  Workspace& work = cache_.work;
  const LatentSpec& spec = block.spec.latent;
  const std::int64_t heads = block.spec.n_heads, dim = block.spec.head_dim, n = n_;
  float *attended = work.attended.floats(), *latents = work.head_inputs.floats();
  for_rows(heads * dim, [&](std::int64_t row) {
    for (std::int64_t h = 0; h < heads; ++h)
      copy(attended + (row * heads + h + 1) * dim - spec.kv_rank, spec.kv_rank, latents + (h * n + row) * spec.kv_rank);
  });
  const float* values = run_heads(layer, Role::kAttnVB, block.latent.v_b, spec.kv_rank);
  for_rows(heads * spec.value, [&](std::int64_t row) {
    for (std::int64_t h = 0; h < heads; ++h)
      copy(values + (h * n + row) * spec.value, spec.value, attended + (row * heads + h) * spec.value);
  });
  return attended;
}

// work.head_inputs, (heads, n, cols), each times the matrix of its head; returns work.head_outputs, (heads, n, rows).
const float* ForwardPart::run_heads(int layer, Role role, std::span<const Linear> linears, std::int64_t cols) {
  Workspace& work = cache_.work;
  const std::int64_t n_tokens = n_;
  const auto heads = static_cast<std::int64_t>(linears.size());
  const float* x = work.head_inputs.floats();
  std::vector<LinearUse> uses;
  std::vector<std::int64_t> begins;
  for (std::int64_t h = 0; h <= heads; ++h) {
    begins.push_back(h * n_tokens);
    if (h < heads)
      uses.push_back({&linears[static_cast<std::size_t>(h)], work.head_outputs.floats(), h * n_tokens, n_tokens});
  }
  observe_stack(layer, {&role, 1}, x, begins, cols);
  n_ *= heads;
  round_activations(x, cols, uses);
  run_linears(uses, x, After::kKeep);
  n_ = n_tokens;
  return work.head_outputs.floats();
}

}  // namespace nibble::model
