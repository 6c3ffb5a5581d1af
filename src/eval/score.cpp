#include "eval/score.h"

#include <algorithm>
#include <cmath>

#include "eval/token_score.h"

namespace nibble::eval {

namespace {

using calib::TokenChunks;

// The reference's logits of the step under way: one row per scored position of each chunk of the batch.
struct HeldLogits {
  std::vector<float> rows;              // (chunks, positions, vocab)
  std::vector<LogitSummary> summaries;  // (chunks, positions)

  void resize(std::int64_t n_rows, std::int64_t vocab) {
    rows.resize(static_cast<std::size_t>(n_rows * vocab));
    summaries.resize(static_cast<std::size_t>(n_rows));
  }
};

// Chunks [first_chunk, first_chunk + n_chunks), positions [begin, end) of each, of which scored ones start at `scored`.
struct Step {
  std::int64_t first_chunk = 0, n_chunks = 0;
  std::int64_t begin = 0, end = 0, scored = 0;
  std::int64_t n_scored() const { return end - scored; }
};

class Scorer {
 public:
  Scorer(ExecContext& context, const TokenChunks& chunks, std::int64_t vocab)
      : context_(context), chunks_(chunks), vocab_(vocab) {}

  // Runs one model over the step. With `held` null there is no reference; `hold` says that this is the reference
  // itself.
  void run(const Contender& contender, model::KvCache& cache, const Step& step, HeldLogits* held, bool hold,
           TokenScores& scores) const {
    std::vector<model::Segment> segments;
    for (std::int64_t i = 0; i < step.n_chunks; ++i) {
      const auto tokens =
          chunks_.chunk(step.first_chunk + i)
              .subspan(static_cast<std::size_t>(step.begin), static_cast<std::size_t>(step.end - step.begin));
      segments.push_back({static_cast<int>(i), tokens, step.scored - step.begin});
    }
    contender.model->forward(
        context_, cache, segments, [&](std::size_t segment, std::int64_t first, std::int64_t n, const float* logits) {
          const Row row{static_cast<std::int64_t>(segment), step.begin + first};
          context_.pool.parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) {
              score_row(contender, step, {row.chunk, row.position + i}, logits + i * vocab_, held, hold, scores);
            }
          });
        });
  }

 private:
  struct Row {
    std::int64_t chunk = 0;     // of the batch
    std::int64_t position = 0;  // in the chunk
  };

  void score_row(const Contender& contender, const Step& step, Row row, const float* logits, HeldLogits* held,
                 bool hold, TokenScores& scores) const {
    const std::int64_t chunk = step.first_chunk + row.chunk;
    const auto next = static_cast<std::size_t>(chunks_.chunk(chunk)[static_cast<std::size_t>(row.position) + 1]);
    const auto out = static_cast<std::size_t>(chunk * chunks_.scored_per_chunk() + row.position - chunks_.first_scored);
    const LogitSummary summary = summarize_logits(logits, vocab_);
    if (!std::isfinite(summary.log_sum) || !std::isfinite(logits[next])) {
      fail(ErrorCode::kFormat, "{}: the logits at token {} of chunk {} are not finite; are its weights?",
           contender.label, row.position, chunk);
    }
    scores.nll[out] = summary.log_sum - logits[next];
    if (contender.save != nullptr) {
      contender.save->write_row(static_cast<std::int64_t>(out), logits, summary.log_sum);
    }
    if (held == nullptr) return;
    const auto slot = static_cast<std::size_t>(row.chunk * step.n_scored() + row.position - step.scored);
    float* kept = held->rows.data() + static_cast<std::int64_t>(slot) * vocab_;
    if (hold) {
      std::copy_n(logits, vocab_, kept);
      held->summaries[slot] = summary;
      return;
    }
    const LogitSummary& truth = held->summaries[slot];
    scores.kld[out] = kl_divergence(kept, truth, logits, summary, vocab_);
    scores.delta_p[out] = std::exp(logits[next] - summary.log_sum) - std::exp(kept[next] - truth.log_sum);
    scores.same_top[out] = truth.top == summary.top;
  }

  ExecContext& context_;
  const TokenChunks& chunks_;
  std::int64_t vocab_;
};

TokenScores make_scores(std::int64_t n, bool compared) {
  const auto size = static_cast<std::size_t>(n);
  TokenScores scores;
  scores.nll.resize(size);
  if (compared) {
    scores.kld.resize(size);
    scores.delta_p.resize(size);
    scores.same_top.resize(size);
  }
  return scores;
}

void check_vocabularies(const TokenChunks& chunks, std::span<const Contender* const> all) {
  const std::int64_t vocab = all[0]->model->spec().vocab;
  for (const Contender* contender : all) {
    if (contender->model->spec().vocab != vocab) {
      fail(ErrorCode::kInvalidArgument, "{} has a vocabulary of {} tokens, {} one of {}: they cannot be compared",
           contender->label, contender->model->spec().vocab, all[0]->label, vocab);
    }
  }
  for (const token::TokenId token : chunks.tokens) {
    if (token < 0 || token >= vocab) {
      fail(ErrorCode::kInvalidArgument, "the tokenizer gives token {}, but {} has a vocabulary of {}", token,
           all[0]->label, vocab);
    }
  }
}

// Walks the batches of chunks, and inside one the steps that keep the held logits within their limit.
class Walk {
 public:
  Walk(ExecContext& context, const TokenChunks& chunks, const Contender* reference,
       std::span<const Contender> contenders, const ScoreLimits& limits)
      : context_(context), chunks_(chunks), inputs_(chunks.context - 1) {
    if (reference != nullptr) all_.push_back(reference);
    for (const Contender& contender : contenders) all_.push_back(&contender);
    has_reference_ = reference != nullptr;
    check_vocabularies(chunks, all_);
    vocab_ = all_[0]->model->spec().vocab;
    const std::uint64_t row_bytes = static_cast<std::uint64_t>(vocab_) * sizeof(float);
    const auto max_rows = static_cast<std::int64_t>(limits.logits_limit_bytes / row_bytes);
    batch_ = std::clamp(limits.batch_tokens / chunks.context, std::int64_t{1}, chunks.n_chunks);
    stride_ = std::max(std::min(max_rows, limits.batch_tokens) / batch_, std::int64_t{1});
  }

  ScoreTable run() {
    ScoreTable table;
    std::vector<TokenScores> scores;
    for (std::size_t i = 0; i < all_.size(); ++i)
      scores.push_back(make_scores(chunks_.scored(), has_reference_ && i > 0));
    const auto total = static_cast<std::uint64_t>(chunks_.n_chunks * inputs_) * all_.size();
    ProgressTask progress(context_.progress, "evaluate", total, "tokens");
    for (std::int64_t chunk = 0; chunk < chunks_.n_chunks; chunk += batch_) run_batch(chunk, scores, progress);
    if (has_reference_) {
      table.reference = std::move(scores.front());
      scores.erase(scores.begin());
    }
    table.contenders = std::move(scores);
    return table;
  }

 private:
  void run_batch(std::int64_t first_chunk, std::vector<TokenScores>& scores, ProgressTask& progress) {
    Step step;
    step.first_chunk = first_chunk;
    step.n_chunks = std::min(batch_, chunks_.n_chunks - first_chunk);
    std::vector<std::unique_ptr<model::KvCache>> caches;
    for (const Contender* each : all_) {
      caches.push_back(
          std::make_unique<model::KvCache>(each->model->spec(), each->kv, static_cast<int>(step.n_chunks), inputs_));
    }
    const Scorer scorer(context_, chunks_, vocab_);
    for (; step.begin < inputs_; step.begin = step.end) {
      step.end = std::min(inputs_, step.begin + stride_);
      step.scored = std::clamp(chunks_.first_scored, step.begin, step.end);
      if (has_reference_) held_.resize(step.n_chunks * step.n_scored(), vocab_);
      for (std::size_t i = 0; i < all_.size(); ++i) {
        context_.check_cancelled();
        scorer.run(*all_[i], *caches[i], step, has_reference_ ? &held_ : nullptr, i == 0, scores[i]);
        progress.add(static_cast<std::uint64_t>(step.n_chunks * (step.end - step.begin)));
      }
    }
  }

  ExecContext& context_;
  const TokenChunks& chunks_;
  std::int64_t inputs_;  // the last token of a chunk predicts nothing that is scored, so it is not run
  std::vector<const Contender*> all_;
  bool has_reference_ = false;  // all_[0] is the reference
  std::int64_t vocab_ = 0;
  std::int64_t batch_ = 1;   // chunks per forward pass
  std::int64_t stride_ = 1;  // positions of each chunk per forward pass
  HeldLogits held_;
};

}  // namespace

ScoreTable score_chunks(ExecContext& context, const TokenChunks& chunks, const Contender* reference,
                        std::span<const Contender> contenders, const ScoreLimits& limits) {
  return Walk(context, chunks, reference, contenders, limits).run();
}

}  // namespace nibble::eval
