#include <algorithm>
#include <atomic>
#include <cmath>

#include "model/decoder.h"
#include "ops/kv_layout.h"

namespace nibble::model {

namespace {

constexpr int kMostHeads = 8;  // query heads that one task takes: more are split, so that every thread has some

}  // namespace

// Norms that span all heads of a token.
void ForwardPart::norm_queries_and_keys(const DecoderBlock& block) {
  const BlockSpec& spec = block.spec;
  const std::int64_t q_size = std::int64_t{spec.n_heads} * spec.head_dim;
  const std::int64_t k_size = std::int64_t{spec.n_kv_heads} * spec.head_dim;
  for_rows(q_size, [&](std::int64_t row) {
    float* q = cache_.work.q.floats() + row * q_size;
    float* k = cache_.work.k.floats() + row * k_size;
    norm(block.q_norm, q, q_size, q);
    norm(block.k_norm, k, k_size, k);
  });
}

void ForwardPart::finish_head(float* head, const Norm& norm, int index, std::int64_t row, const BlockSpec& spec) {
  if (spec.qk_norm == QkNorm::kPerHead) {
    this->norm(norm, head, spec.head_dim, head);
  } else if (spec.qk_norm == QkNorm::kPerHeadOwn) {
    const auto eps = static_cast<float>(decoder_.spec.norm_eps);
    const float* weight = norm.weight.data() + std::int64_t{index} * spec.head_dim;
    const bool rms = decoder_.spec.norm == NormKind::kRms;
    if (rms) ops_.rms_norm(head, weight, eps, spec.head_dim, head);
    if (!rms) ops_.layer_norm(head, weight, nullptr, eps, spec.head_dim, head);
  }
  if (decoder_.spec.positions != Positions::kRotary || spec.rope == BlockRope::kNone) return;
  const bool local = spec.rope == BlockRope::kLocal;
  const std::int64_t pairs = (local ? decoder_.spec.local_rope : decoder_.spec.rope).dims / 2;
  const Workspace& work = cache_.work;
  const std::int64_t at = row * pairs;
  ops_.rotate(head, (local ? work.local_cos : work.cos).floats() + at,
              (local ? work.local_sin : work.sin).floats() + at, pairs);
  if (spec.qk_norm == QkNorm::kAfterRope) this->norm(norm, head, spec.head_dim, head);
}

void ForwardPart::rotate_and_store(const Piece& piece, int layer, const DecoderBlock& block, int kv_head) {
  const BlockSpec& spec = block.spec;
  const int group = spec.n_heads / spec.n_kv_heads;
  const std::int64_t dim = spec.head_dim;
  const ops::KvOps& kv = ops_.kv[static_cast<int>(cache_.type)];
  KvCache::State::Layer& cache = cache_.layers[static_cast<std::size_t>(layer)];
  Workspace& work = cache_.work;
  const bool grows = has_query_temperature(decoder_.spec, spec);
  for (std::size_t i = 0; i < piece.tokens.size(); ++i) {
    const std::int64_t row = piece.row + static_cast<std::int64_t>(i);
    const std::int64_t position = piece.position + static_cast<std::int64_t>(i);
    float* q = work.q.floats() + (row * spec.n_heads + std::int64_t{kv_head} * group) * dim;
    for (int h = 0; h < group; ++h) finish_head(q + h * dim, block.q_norm, kv_head * group + h, row, spec);
    if (grows) ops_.scale(q, query_temperature(decoder_.spec, position), group * dim);
    float* k = work.k.floats() + (row * spec.n_kv_heads + kv_head) * dim;
    finish_head(k, block.k_norm, kv_head, row, spec);
    const std::int64_t slot = position % ops::kKeyBlock;
    kv.store_k(cache.keys(piece.sequence, position / ops::kKeyBlock, kv_head), slot, k, spec.head_dim, cache.k_scale);
    const float* v = work.v.floats() + (row * spec.n_kv_heads + kv_head) * dim;
    kv.store_v(cache.values(piece.sequence, position / ops::kKeyBlock, kv_head), slot, v, spec.head_dim, cache.v_scale);
  }
}

void ForwardPart::attend(const Piece& piece, int layer, const DecoderBlock& block, const Heads& heads,
                         std::int64_t first, std::int64_t count, int thread) {
  const BlockSpec& spec = block.spec;
  const int kv_head = heads.kv_head;
  const std::int64_t first_head = std::int64_t{kv_head} * (spec.n_heads / spec.n_kv_heads) + heads.first;
  KvCache::State::Layer& cache = cache_.layers[static_cast<std::size_t>(layer)];
  const std::int64_t stride = std::int64_t{spec.n_heads} * spec.head_dim;
  const std::int64_t at = (piece.row + first) * stride + first_head * spec.head_dim;
  ops::AttentionTask task;
  task.q = cache_.work.q.floats() + at;
  task.q_stride = stride;
  task.out = cache_.work.attended.floats() + at;
  task.out_stride = stride;
  task.n_tokens = static_cast<int>(count);
  task.group = heads.count;
  task.head_dim = spec.head_dim;
  task.first_position = piece.position + first;
  task.window = spec.window;
  task.chunked = spec.chunked;
  const double scale = decoder_.spec.attention_scale;
  task.scale = scale > 0 ? static_cast<float>(scale) : 1.0f / std::sqrt(static_cast<float>(spec.head_dim));
  task.softcap = static_cast<float>(decoder_.spec.attention_softcap);
  task.slopes = decoder_.alibi.empty() ? nullptr : decoder_.alibi.data() + first_head;
  task.sinks = block.sinks.empty() ? nullptr : block.sinks.data() + first_head;
  task.k = cache.keys(piece.sequence, 0, kv_head);
  task.k_stride = cache.k_stride();
  task.v = cache.values(piece.sequence, 0, kv_head);
  task.v_stride = cache.v_stride();
  task.scratch = thread_scratch(thread);
  ops_.kv[static_cast<int>(cache_.type)].attend(task);
}

void ForwardPart::attention(int layer, const DecoderBlock& block) {
  if (block.spec.qk_norm == QkNorm::kWhole) norm_queries_and_keys(block);
  const int kv_heads = block.spec.n_kv_heads, group = block.spec.n_heads / kv_heads;
  const int splits = (group + kMostHeads - 1) / kMostHeads, per_split = (group + splits - 1) / splits;
  const std::int64_t tile = std::max<std::int64_t>(1, ops::kQueryRows / per_split);
  const auto n_pieces = static_cast<std::int64_t>(pieces_.size());
  std::int64_t most_tokens = 0;
  for (const Piece& piece : pieces_)
    most_tokens = std::max(most_tokens, static_cast<std::int64_t>(piece.tokens.size()));
  const std::int64_t tiles = (most_tokens + tile - 1) / tile;  // of the longest piece; shorter ones skip some
  const auto hand_out = [this](std::int64_t n, auto&& body) {
    std::atomic<std::int64_t> next{0};
    context_.pool.run([&](int thread) {
      for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) body(i, thread);
    });
  };
  const auto attend_tile = [&](const Piece& piece, std::int64_t item, std::int64_t index, int thread) {
    const std::int64_t first = index * tile;
    const std::int64_t left = static_cast<std::int64_t>(piece.tokens.size()) - first;
    const int first_head = static_cast<int>(item % splits) * per_split;
    const Heads heads = {static_cast<int>(item / splits), first_head, std::min(per_split, group - first_head)};
    if (left > 0 && heads.count > 0) attend(piece, layer, block, heads, first, std::min(left, tile), thread);
  };
  // A task needs the keys of the whole piece before it; with one task for a head of a piece, whoever stores can go on
  // at once.
  const bool at_once = tiles == 1 && splits == 1;
  hand_out(n_pieces * kv_heads, [&](std::int64_t i, int thread) {
    const Piece& piece = pieces_[static_cast<std::size_t>(i / kv_heads)];
    rotate_and_store(piece, layer, block, static_cast<int>(i % kv_heads));
    if (at_once) attend_tile(piece, i % kv_heads, 0, thread);
  });
  if (observer_ != nullptr) {
    const std::int64_t width = std::int64_t{kv_heads} * block.spec.head_dim;
    observer_->cache_input(context_, layer, cache_.work.k.floats(), cache_.work.v.floats(), n_, width);
  }
  if (at_once) return;
  // Last tiles first: they see the most keys.
  const std::int64_t per_piece = std::int64_t{kv_heads} * splits;
  hand_out(n_pieces * per_piece * tiles, [&](std::int64_t i, int thread) {
    const std::int64_t item = i % (n_pieces * per_piece);
    const std::int64_t index = tiles - 1 - i / (n_pieces * per_piece);
    attend_tile(pieces_[static_cast<std::size_t>(item / per_piece)], item % per_piece, index, thread);
  });
}

}  // namespace nibble::model
