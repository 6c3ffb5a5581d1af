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
std::int64_t ffn_size(const BlockSpec& block) { return block.ffn; }

std::int64_t scratch_of(const Decoder& decoder) {
  std::int64_t most = decoder.head.matrix->scratch_floats();
  for (const DecoderBlock& block : decoder.blocks) {
    const int group = block.spec.n_heads / block.spec.n_kv_heads;
    const std::int64_t rows = std::max<std::int64_t>(group, ops::kQueryRows);
    most = std::max(most, ops::attention_scratch_floats(rows, block.spec.head_dim));
    for (const Linear* linear : {&block.q, &block.k, &block.v, &block.output, &block.gate, &block.up, &block.down}) {
      most = std::max(most, linear->matrix->scratch_floats());
    }
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
  work.normed.floats(n_ * decoder.spec.hidden);
  work.projected.floats(n_ * decoder.spec.hidden);
  work.q.floats(n_ * all_rows(decoder, q_size));
  work.attended.floats(n_ * all_rows(decoder, q_size));
  work.k.floats(n_ * all_rows(decoder, kv_size));
  work.v.floats(n_ * all_rows(decoder, kv_size));
  work.gate.floats(n_ * all_rows(decoder, ffn_size));
  work.up.floats(n_ * all_rows(decoder, ffn_size));
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
  const std::int64_t hidden = decoder_.spec.hidden;
  for (const Piece& piece : pieces_) {
    const auto body = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        decoder_.embedding->row(piece.tokens[static_cast<std::size_t>(i)], x_ + (piece.row + i) * hidden);
      }
    };
    context_.pool.parallel_for(static_cast<std::int64_t>(piece.tokens.size()), 32, body);
  }
  if (observer_ != nullptr) observer_->block_output(context_, -1, x_, n_, hidden);
}

void ForwardPart::prepare_rope() {
  const std::int64_t pairs = decoder_.spec.rope.dims / 2;
  float* cos = cache_.work.cos.floats(n_ * pairs);
  float* sin = cache_.work.sin.floats(n_ * pairs);
  const bool fixed = rope_is_fixed(decoder_.spec.rope);
  for (const Piece& piece : pieces_) {
    const RopeFrequencies own = fixed ? RopeFrequencies{} : rope_frequencies(decoder_.spec.rope, piece.end_position);
    const RopeFrequencies& rope = fixed ? decoder_.rope : own;
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
  Workspace& work = cache_.work;
  const std::int64_t hidden = decoder_.spec.hidden;
  float* normed = work.normed.floats();

  static constexpr Role kAttnInputs[] = {Role::kAttnQ, Role::kAttnK, Role::kAttnV};
  const Linear* const attn_inputs[] = {&block.q, &block.k, &block.v};
  norm_and_round(x_, block.attn_norm, attn_inputs);
  observe_input(layer, kAttnInputs, normed, hidden);
  const LinearUse qkv[] = {{&block.q, work.q.floats()}, {&block.k, work.k.floats()}, {&block.v, work.v.floats()}};
  run_linears(qkv, normed, After::kKeep);

  attention(layer, block);
  if (layer + 1 == decoder_.spec.n_layers() && observer_ == nullptr) keep_wanted_rows(block);
  if (n_ == 0) return;

  static constexpr Role kAttnOutputs[] = {Role::kAttnOutput};
  const Linear* const attn_outputs[] = {&block.output};
  float* attended = work.attended.floats();
  observe_input(layer, kAttnOutputs, attended, q_size(block.spec));
  round_activations(attended, q_size(block.spec), attn_outputs);
  const LinearUse output[] = {{&block.output, work.projected.floats()}};
  run_linears(output, attended, After::kAddTo);

  static constexpr Role kFfnInputs[] = {Role::kFfnGate, Role::kFfnUp};
  const Linear* const ffn_inputs[] = {&block.gate, &block.up};
  norm_and_round(x_, block.ffn_norm, ffn_inputs);
  observe_input(layer, kFfnInputs, normed, hidden);
  float* gate = work.gate.floats();
  const LinearUse gate_up[] = {{&block.gate, gate}, {&block.up, work.up.floats()}};
  run_linears(gate_up, normed, After::kGate);

  static constexpr Role kFfnOutputs[] = {Role::kFfnDown};
  const Linear* const ffn_outputs[] = {&block.down};
  observe_input(layer, kFfnOutputs, gate, block.spec.ffn);
  round_activations(gate, block.spec.ffn, ffn_outputs);
  const LinearUse down[] = {{&block.down, work.projected.floats()}};
  run_linears(down, gate, After::kAddTo);
  if (observer_ != nullptr) observer_->block_output(context_, layer, x_, n_, hidden);
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
  static constexpr Role kHead[] = {Role::kOutput};
  const Linear* const head_input[] = {&decoder_.head};
  std::size_t piece = 0;
  for (std::int64_t begin = 0; begin < total; begin += most) {
    context_.check_cancelled();
    n_ = std::min(most, total - begin);
    float* logits = cache_.work.logits.floats(n_ * vocab);
    norm_and_round(x_ + begin * hidden, decoder_.output_norm, head_input);
    observe_input(-1, kHead, cache_.work.normed.floats(), hidden);
    const LinearUse head[] = {{&decoder_.head, logits}};
    run_linears(head, cache_.work.normed.floats(), After::kKeep);
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
