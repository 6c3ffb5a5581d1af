#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/decoder.h"
#include "ops/kv_layout.h"

namespace nibble::model {

namespace {

constexpr std::int64_t kLogitsFloats = 16 << 20;  // of one call of the sink

std::int64_t all_rows(const Decoder& decoder, std::int64_t (*of)(const BlockSpec&)) {
  std::int64_t most = 0;
  for (const DecoderBlock& block : decoder.blocks) most = std::max(most, of(block.spec));
  return most;
}

std::int64_t q_size(const BlockSpec& block) { return std::int64_t{block.n_heads} * block.head_dim; }
std::int64_t kv_size(const BlockSpec& block) { return std::int64_t{block.n_kv_heads} * block.head_dim; }
std::int64_t ffn_size(const BlockSpec& block) {
  return std::max({block.ffn, block.experts.used * block.experts.ffn, block.experts.shared});
}
std::int64_t q_rank(const BlockSpec& block) { return block.latent.q_rank; }
std::int64_t head_inputs(const BlockSpec& block) {
  return block.n_heads * std::int64_t{std::max(block.latent.plain, block.latent.kv_rank)};
}
std::int64_t head_outputs(const BlockSpec& block) {
  const LatentSpec& latent = block.latent;
  if (latent.kv_rank == 0) return 0;
  const int query = latent.plain + block.head_dim - latent.kv_rank;
  return block.n_heads * std::int64_t{std::max({query, latent.kv_rank, latent.value})};
}
std::int64_t n_experts(const BlockSpec& block) { return block.experts.count; }
std::int64_t n_used(const BlockSpec& block) { return block.experts.used; }

std::int64_t scratch_of(const Decoder& decoder) {
  std::int64_t most = decoder.head.matrix->scratch_floats();
  const auto add = [&most](std::initializer_list<const Linear*> linears) {
    for (const Linear* linear : linears) {
      if (linear->matrix != nullptr) most = std::max(most, linear->matrix->scratch_floats());
    }
  };
  add({&decoder.embedding_in, &decoder.embedding_out});
  for (const DecoderBlock& block : decoder.blocks) {
    const int group = block.spec.n_heads / block.spec.n_kv_heads;
    const std::int64_t rows = std::max<std::int64_t>(group, ops::kQueryRows);
    most = std::max(most, ops::attention_scratch_floats(rows, block.spec.head_dim));
    add({&block.q, &block.k, &block.v, &block.output, &block.gate, &block.up, &block.down});
    const LatentWeights& latent = block.latent;
    if (!latent.k_b.empty()) add({&latent.q_a, &latent.kv_a, &latent.k_b[0], &latent.v_b[0]});
    if (block.experts.empty()) continue;
    const FeedForward& expert = block.experts[0];
    const FeedForward& shared = block.shared;
    add({&block.router, &expert.gate, &expert.up, &expert.down, &shared.gate, &shared.up, &shared.down});
  }
  return (most + 15) / 16 * 16;
}

}  // namespace

ForwardPart::ForwardPart(ExecContext& context, const Decoder& decoder, KvCache::State& cache,
                         std::span<const Piece> pieces, std::span<const Segment> segments, const LogitsSink& sink,
                         ForwardObserver* observer)
    : context_(context),
      decoder_(decoder),
      ops_(*decoder.ops),
      cache_(cache),
      pieces_(pieces),
      segments_(segments),
      sink_(sink),
      observer_(observer) {
  for (const Piece& piece : pieces) {
    const auto count = static_cast<std::int64_t>(piece.tokens.size());
    for (std::int64_t i = 0; i < count; ++i) {
      if (piece.first_in_segment + i >= segments[piece.segment].logits_from) wanted_.push_back(n_ + i);
    }
    n_ += count;
  }
  Workspace& work = cache.work;
  x_ = work.residual.floats(n_ * decoder.spec.hidden);
  const std::int64_t widest = std::max(decoder.spec.hidden, decoder.spec.embedding_size());
  work.normed.floats(n_ * widest);
  work.projected.floats(n_ * widest);
  const bool parallel = std::ranges::any_of(decoder.blocks, [](const auto& block) { return block.spec.parallel; });
  if (parallel) work.attention_out.floats(n_ * decoder.spec.hidden);
  work.q.floats(n_ * all_rows(decoder, q_size));
  work.attended.floats(n_ * all_rows(decoder, q_size));
  work.k.floats(n_ * all_rows(decoder, kv_size));
  work.v.floats(n_ * all_rows(decoder, kv_size));
  work.gate.floats(n_ * all_rows(decoder, ffn_size));
  work.up.floats(n_ * all_rows(decoder, ffn_size));
  if (const std::int64_t experts = all_rows(decoder, n_experts); experts > 0) {
    work.scores.floats(n_ * experts);
    work.routed.floats(n_ * all_rows(decoder, n_used) * decoder.spec.hidden);
    work.shared.floats(n_ * decoder.spec.hidden);
  }
  work.q_latent.floats(n_ * all_rows(decoder, q_rank));
  work.head_inputs.floats(n_ * all_rows(decoder, head_inputs));
  work.head_outputs.floats(n_ * all_rows(decoder, head_outputs));
  scratch_floats_ = scratch_of(decoder);
  scratch_ = work.threads.floats(scratch_floats_ * context.pool.size());
}

void ForwardPart::run() {
  embed();
  prepare_rope();
  for (int layer = 0; layer < decoder_.spec.n_layers(); ++layer) {
    context_.check_cancelled();
    run_block(layer);
    if (n_ == 0) return;
  }
  emit_logits();
}

void ForwardPart::embed() {
  if (decoder_.embedding_in.matrix == nullptr) {
    look_up_tokens(x_);
  } else {
    const std::int64_t width = decoder_.spec.embedding_size();
    float* rows = cache_.work.normed.floats();
    look_up_tokens(rows);
    static constexpr Role kInput[] = {Role::kEmbeddingIn};
    const LinearUse in[] = {{&decoder_.embedding_in, x_}};
    observe_input(-1, kInput, rows, width);
    round_activations(rows, width, in);
    run_linears(in, rows, After::kKeep);
  }
  if (decoder_.positions != nullptr) add_positions();
  if (observer_ != nullptr) observer_->block_output(context_, -1, x_, n_, decoder_.spec.hidden);
}

void ForwardPart::look_up_tokens(float* rows) {
  const std::int64_t width = decoder_.spec.embedding_size();
  const auto scale = static_cast<float>(decoder_.spec.embedding_scale);
  for (const Piece& piece : pieces_) {
    const auto body = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        float* row = rows + (piece.row + i) * width;
        const token::TokenId id = piece.tokens[static_cast<std::size_t>(i)];
        decoder_.embedding->row(id, row);
        if (decoder_.embedding_added.rank > 0) decoder_.embedding_added.add_row(id, row);
        if (scale != 1) ops_.scale(row, scale, width);
      }
    };
    context_.pool.parallel_for(static_cast<std::int64_t>(piece.tokens.size()), 32, body);
  }
}

void ForwardPart::add_positions() {
  const std::int64_t hidden = decoder_.spec.hidden;
  for (const Piece& piece : pieces_) {
    const auto body = [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> at(static_cast<std::size_t>(hidden));
      for (std::int64_t i = begin; i < end; ++i) {
        decoder_.positions->row(piece.position + i + decoder_.spec.position_offset, at.data());
        ops_.add(x_ + (piece.row + i) * hidden, at.data(), hidden);
      }
    };
    context_.pool.parallel_for(static_cast<std::int64_t>(piece.tokens.size()), 32, body);
  }
}

void ForwardPart::prepare_rope() {
  const ModelSpec& spec = decoder_.spec;
  if (spec.positions != Positions::kRotary) return;
  Workspace& work = cache_.work;
  const auto prepare = [&](const RopeSpec& rope, const RopeFrequencies& fixed, WorkBuffer& cos, WorkBuffer& sin) {
    const std::int64_t floats = n_ * (rope.dims / 2);
    fill_rope(rope, fixed, cos.floats(floats), sin.floats(floats));
  };
  prepare(spec.rope, decoder_.rope[0], work.cos, work.sin);
  const bool local = std::ranges::any_of(spec.blocks, [](const auto& b) { return b.rope == BlockRope::kLocal; });
  if (local) prepare(spec.local_rope, decoder_.rope[1], work.local_cos, work.local_sin);
}

void ForwardPart::fill_rope(const RopeSpec& spec, const RopeFrequencies& fixed, float* cos, float* sin) {
  const std::int64_t pairs = spec.dims / 2;
  const bool is_fixed = rope_is_fixed(spec);
  for (const Piece& piece : pieces_) {
    const RopeFrequencies own = is_fixed ? RopeFrequencies{} : rope_frequencies(spec, piece.end_position);
    const RopeFrequencies& rope = is_fixed ? fixed : own;
    const auto body = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        for (std::int64_t j = 0; j < pairs; ++j) {
          const float angle = static_cast<float>(piece.position + i) * rope.inv_freq[static_cast<std::size_t>(j)];
          const std::int64_t at = (piece.row + i) * pairs + j;
          cos[at] = std::cos(angle) * rope.attention_factor;
          sin[at] = std::sin(angle) * rope.attention_factor;
        }
      }
    };
    context_.pool.parallel_for(static_cast<std::int64_t>(piece.tokens.size()), 32, body);
  }
}

void ForwardPart::run_block(int layer) {
  const DecoderBlock& block = decoder_.blocks[static_cast<std::size_t>(layer)];
  run_attention(layer, block);
  if (n_ == 0) return;
  run_feed_forward_half(layer, block);
  if (observer_ != nullptr) observer_->block_output(context_, layer, x_, n_, decoder_.spec.hidden);
}

void ForwardPart::run_feed_forward_half(int layer, const DecoderBlock& block) {
  if (block.experts.empty()) {
    run_feed_forward(layer, block);
  } else {
    run_experts(layer, block);
  }
  if (block.spec.parallel) {
    const std::int64_t hidden = decoder_.spec.hidden;
    const float* attention = cache_.work.attention_out.floats();
    for_rows(hidden, [&](std::int64_t row) { ops_.add(x_ + row * hidden, attention + row * hidden, hidden); });
  }
}

void ForwardPart::embed_to(float* x) {
  embed();
  std::memcpy(x, x_, static_cast<std::size_t>(n_ * decoder_.spec.hidden) * sizeof(float));
}

void ForwardPart::run_halves_of(int layer, bool attention, bool feed_forward, float* x) {
  const DecoderBlock& block = decoder_.blocks[static_cast<std::size_t>(layer)];
  const auto bytes = static_cast<std::size_t>(n_ * decoder_.spec.hidden) * sizeof(float);
  std::memcpy(x_, x, bytes);
  if (attention) {
    prepare_rope();
    run_attention(layer, block);
  }
  if (feed_forward) run_feed_forward_half(layer, block);
  std::memcpy(x, x_, bytes);
}

void ForwardPart::show_head_input(const float* x) { norm_for_head(x); }

void ForwardPart::logits_of(const float* x) {
  std::memcpy(x_, x, static_cast<std::size_t>(n_ * decoder_.spec.hidden) * sizeof(float));
  emit_logits();
}

void ForwardPart::project_queries(int layer, const DecoderBlock& block) {
  Workspace& work = cache_.work;
  static constexpr Role kInputs[] = {Role::kAttnQ, Role::kAttnK, Role::kAttnV};
  static constexpr Role kFusedInput[] = {Role::kAttnQkv};
  const LinearUse qkv[] = {{&block.q, work.q.floats()}, {&block.k, work.k.floats()}, {&block.v, work.v.floats()}};
  const float* x = norm_and_round(x_, block.attn_norm, qkv);
  observe_input(layer, block.spec.qkv_fused ? std::span<const Role>(kFusedInput) : kInputs, x, decoder_.spec.hidden);
  run_linears(qkv, x, After::kKeep);
}

// To the residual stream; of a parallel block to work.attention_out, as its other half reads the stream, too.
void ForwardPart::run_attention(int layer, const DecoderBlock& block) {
  Workspace& work = cache_.work;
  const bool latent = block.spec.latent.kv_rank > 0;
  latent ? latent_queries(layer, block) : project_queries(layer, block);
  attention(layer, block);
  if (layer + 1 == decoder_.spec.n_layers() && observer_ == nullptr) keep_wanted_rows(block);
  if (n_ == 0) return;

  static constexpr Role kOutputs[] = {Role::kAttnOutput};
  float* attended = latent ? latent_values(layer, block) : work.attended.floats();
  const std::int64_t cols = block.output.matrix->cols();
  mix(block.output_mixer.get(), attended);
  observe_input(layer, kOutputs, attended, cols);
  float* out = block.spec.parallel ? work.attention_out.floats() : work.projected.floats();
  const LinearUse output[] = {{&block.output, out}};
  round_activations(attended, cols, output);
  const bool plain = !block.spec.parallel && block.attn_post_norm.empty() && decoder_.spec.residual_scale == 1;
  run_linears(output, attended, plain ? After::kAddTo : After::kKeep);
  if (!plain) finish_half(block.attn_post_norm, out, !block.spec.parallel, block.spec.norm_sums);
}

void ForwardPart::run_feed_forward(int layer, const DecoderBlock& block) {
  Workspace& work = cache_.work;
  static constexpr Role kInputs[] = {Role::kFfnGate, Role::kFfnUp};
  static constexpr Role kFusedInput[] = {Role::kFfnGateUp};
  const LinearUse gate_up[] = {{&block.gate, work.gate.floats()}, {&block.up, work.up.floats()}};
  const std::span<const LinearUse> uses = std::span(gate_up).subspan(block.spec.gated ? 0 : 1);
  const bool shared = block.spec.parallel && block.ffn_norm.empty();
  const float* x = norm_and_round(x_, shared ? block.attn_norm : block.ffn_norm, uses);
  const std::span<const Role> roles(kInputs);
  observe_input(layer,
                !block.spec.gated          ? roles.subspan(1)
                : block.spec.gate_up_fused ? kFusedInput
                                           : roles,
                x, decoder_.spec.hidden);
  float* inner = block.spec.gated ? work.gate.floats() : work.up.floats();
  run_linears(uses, x, block.spec.gated ? After::kGate : After::kActivate, block.spec.activation);

  static constexpr Role kOutputs[] = {Role::kFfnDown};
  const LinearUse down[] = {{&block.down, work.projected.floats()}};
  mix(block.down_mixer.get(), inner);
  observe_input(layer, kOutputs, inner, block.spec.ffn);
  round_activations(inner, block.spec.ffn, down);
  const bool plain = block.ffn_post_norm.empty() && decoder_.spec.residual_scale == 1;
  run_linears(down, inner, plain ? After::kAddTo : After::kKeep);
  if (!plain) finish_half(block.ffn_post_norm, work.projected.floats(), true, block.spec.norm_sums);
}

void ForwardPart::finish_half(const Norm& post_norm, float* out, bool add, bool norm_sum) {
  const std::int64_t hidden = decoder_.spec.hidden;
  const auto scale = static_cast<float>(decoder_.spec.residual_scale);
  if (post_norm.empty() && scale == 1 && !add) return;
  for_rows(hidden, [&](std::int64_t row) {
    float* y = out + row * hidden;
    float* x = x_ + row * hidden;
    if (!post_norm.empty() && !norm_sum) norm(post_norm, y, hidden, y);
    if (scale != 1) ops_.scale(y, scale, hidden);
    if (add) ops_.add(x, y, hidden);
    if (norm_sum) norm(post_norm, x, hidden, x);
  });
}

// After the last attention only the rows whose logits are wanted matter.
void ForwardPart::keep_wanted_rows(const DecoderBlock& block) {
  const auto keep = [this](float* rows, std::int64_t cols) {
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      if (wanted_[i] == static_cast<std::int64_t>(i)) continue;
      std::memcpy(rows + static_cast<std::int64_t>(i) * cols, rows + wanted_[i] * cols,
                  static_cast<std::size_t>(cols) * sizeof(float));
    }
  };
  keep(x_, decoder_.spec.hidden);
  keep(cache_.work.attended.floats(), q_size(block.spec));
  n_ = static_cast<std::int64_t>(wanted_.size());
  compacted_ = true;
}

void ForwardPart::finish_logits(float* logits) {
  const std::int64_t vocab = decoder_.spec.vocab;
  const auto scale = static_cast<float>(decoder_.spec.logit_scale);
  const auto cap = static_cast<float>(decoder_.spec.logit_softcap);
  if (scale == 1 && cap == 0) return;
  for_rows(vocab, [&](std::int64_t row) {
    if (scale != 1) ops_.scale(logits + row * vocab, scale, vocab);
    if (cap != 0) ops_.softcap(logits + row * vocab, cap, vocab);
  });
}

// Rounded for the head.
const float* ForwardPart::norm_for_head(const float* x) {
  static constexpr Role kHead[] = {Role::kOutput};
  static constexpr Role kOut[] = {Role::kEmbeddingOut};
  const std::int64_t hidden = decoder_.spec.hidden, width = decoder_.spec.embedding_size();
  const bool projected = decoder_.embedding_out.matrix != nullptr;
  const LinearUse head[] = {{&decoder_.head, nullptr}};
  const LinearUse out[] = {{&decoder_.embedding_out, cache_.work.projected.floats()}};
  x = norm_and_round(x, decoder_.output_norm, projected ? out : head);
  if (projected) {
    observe_input(-1, kOut, x, hidden);
    run_linears(out, x, After::kKeep);
    x = cache_.work.projected.floats();
    round_activations(x, width, head);
  }
  observe_input(-1, kHead, x, width);
  return x;
}

void ForwardPart::emit_logits() {
  const std::int64_t hidden = decoder_.spec.hidden;
  const std::int64_t vocab = decoder_.spec.vocab;
  if (!compacted_) {
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      std::memmove(x_ + static_cast<std::int64_t>(i) * hidden, x_ + wanted_[i] * hidden,
                   static_cast<std::size_t>(hidden) * sizeof(float));
    }
  }
  const auto total = static_cast<std::int64_t>(wanted_.size());
  const std::int64_t most = std::clamp<std::int64_t>(kLogitsFloats / vocab, 1, kPartTokens);
  std::size_t piece = 0;
  for (std::int64_t begin = 0; begin < total; begin += most) {
    context_.check_cancelled();
    n_ = std::min(most, total - begin);
    float* logits = cache_.work.logits.floats(n_ * vocab);
    const float* x = norm_for_head(x_ + begin * hidden);
    const LinearUse head[] = {{&decoder_.head, logits}};
    run_linears(head, x, After::kKeep);
    finish_logits(logits);
    // Runs of rows that lie in one piece.
    for (std::int64_t i = 0; i < n_;) {
      const std::int64_t row = wanted_[static_cast<std::size_t>(begin + i)];
      while (row >= pieces_[piece].row + static_cast<std::int64_t>(pieces_[piece].tokens.size())) ++piece;
      const Piece& in = pieces_[piece];
      const std::int64_t left = in.row + static_cast<std::int64_t>(in.tokens.size()) - row;
      const std::int64_t count = std::min(left, n_ - i);
      sink_(in.segment, in.first_in_segment + row - in.row, count, logits + i * vocab);
      i += count;
    }
  }
}

}  // namespace nibble::model
