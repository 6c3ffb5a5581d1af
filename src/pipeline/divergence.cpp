#include "pipeline/divergence.h"

#include <algorithm>
#include <numeric>

namespace nibble::pipeline {

using model::BlockModel;

DivergenceWalk::DivergenceWalk(ExecContext& context, const BlockModel& model, const calib::TokenChunks& chunks,
                               std::uint64_t memory_limit)
    : tokens_(chunks.tokens), length_(chunks.context), n_sequences_(chunks.n_chunks), vocab_(model.spec().vocab) {
  const std::uint64_t n = tokens_.size(), hidden = static_cast<std::uint64_t>(model.spec().hidden);
  states_ = SpillBuffer(n * hidden * sizeof(float), memory_limit);
  work_ = SpillBuffer(n * hidden * sizeof(float), memory_limit);
  logits_ = SpillBuffer(n * static_cast<std::uint64_t>(vocab_) * sizeof(float), memory_limit);
  summaries_.resize(n);
  model.embed(context, tokens_, length_, states_.floats());
  std::copy_n(states_.floats(), n * hidden, work_.floats());
  run_on(context, model, 0, BlockModel::Half::kBoth);
  model.logits(
      context, n_sequences_, length_, work_.floats(), [&](std::int64_t first, std::int64_t rows, const float* logits) {
        std::copy_n(logits, rows * vocab_, logits_.floats() + first * vocab_);
        context.pool.parallel_for(rows, 1, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i)
            summaries_[static_cast<std::size_t>(first + i)] = eval::summarize_logits(logits + i * vocab_, vocab_);
        });
      });
}

void DivergenceWalk::pass(ExecContext& context, const BlockModel& model, int layer, BlockModel::Half half) {
  model.run(context, layer, half, n_sequences_, length_, states_.floats());
}

double DivergenceWalk::divergence(ExecContext& context, const BlockModel& model, int layer, BlockModel::Half half) {
  std::copy_n(states_.floats(), static_cast<std::int64_t>(tokens_.size()) * model.spec().hidden, work_.floats());
  run_on(context, model, layer, half);
  return compare(context, model);
}

double DivergenceWalk::divergence_of(ExecContext& context, const BlockModel& other) {
  other.embed(context, tokens_, length_, work_.floats());
  run_on(context, other, 0, BlockModel::Half::kBoth);
  return compare(context, other);
}

// work_, from that half on to behind the last block.
void DivergenceWalk::run_on(ExecContext& context, const BlockModel& model, int layer, BlockModel::Half half) {
  // What is left of the block: all of it, or its second half.
  const auto rest = half == BlockModel::Half::kFeedForward ? half : BlockModel::Half::kBoth;
  for (int at = layer; at < model.spec().n_layers(); ++at)
    model.run(context, at, at == layer ? rest : BlockModel::Half::kBoth, n_sequences_, length_, work_.floats());
}

double DivergenceWalk::compare(ExecContext& context, const BlockModel& model) {
  std::vector<double> kld(tokens_.size());
  model.logits(context, n_sequences_, length_, work_.floats(),
               [&](std::int64_t first, std::int64_t rows, const float* logits) {
                 context.pool.parallel_for(rows, 1, [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t i = begin; i < end; ++i) {
                     const auto token = static_cast<std::size_t>(first + i);
                     const float* row = logits + i * vocab_;
                     kld[token] = eval::kl_divergence(logits_.floats() + (first + i) * vocab_, summaries_[token], row,
                                                      eval::summarize_logits(row, vocab_), vocab_);
                   }
                 });
               });
  return std::accumulate(kld.begin(), kld.end(), 0.0) / static_cast<double>(kld.size());
}

}  // namespace nibble::pipeline
