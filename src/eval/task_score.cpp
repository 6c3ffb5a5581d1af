#include "eval/task_score.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eval/token_score.h"

namespace nibble::eval {

namespace {

using token::TokenId;

// What the model's files put before a text; where that is nothing, `instead` stands before a continuation of nothing.
struct Beginning {
  std::vector<TokenId> usual, instead;
};

Beginning beginning_of(const token::Vocabulary& vocabulary) {
  Beginning beginning;
  beginning.usual.assign(vocabulary.prefix_ids.begin(), vocabulary.prefix_ids.end());
  if (beginning.usual.empty() && vocabulary.add_bos && vocabulary.bos >= 0) beginning.usual = {vocabulary.bos};
  beginning.instead = beginning.usual;
  const TokenId first = vocabulary.bos >= 0 ? vocabulary.bos : vocabulary.eos;
  if (beginning.instead.empty() && first >= 0) beginning.instead = {first};
  return beginning;
}

class Encoder {
 public:
  Encoder(const token::Tokenizer& tokenizer, std::int64_t limit)
      : tokenizer_(tokenizer), beginning_(beginning_of(tokenizer.vocabulary())), limit_(limit) {}

  void encode(const TaskItem& item, std::size_t index, TaskRequests& out) const {
    TaskRequest request = whole_request(item, index);
    std::size_t longest = 0;
    for (const auto& continuation : request.continuations) longest = std::max(longest, continuation.size());
    // The last token of a continuation is predicted and never seen.
    const bool fits = static_cast<std::int64_t>(request.context.size() + longest) <= limit_ + 1;
    out.cut.push_back(!fits);
    if (fits) {
      out.requests.push_back(std::move(request));
      return;
    }
    for (std::size_t i = 0; i < request.continuations.size(); ++i) {
      TaskRequest& one = out.requests.emplace_back(TaskRequest{index, i, {}, {std::move(request.continuations[i])}});
      const std::size_t room = static_cast<std::size_t>(limit_) + 1 - one.continuations[0].size();
      const auto kept = static_cast<std::ptrdiff_t>(std::min(room, request.context.size()));
      one.context.assign(request.context.end() - kept, request.context.end());
    }
  }

 private:
  TaskRequest whole_request(const TaskItem& item, std::size_t index) const {
    const std::size_t end = item.context.find_last_not_of(" \t\n\r\v\f") + 1;  // 0: nothing but white space
    const std::string context = item.context.substr(0, end);
    TaskRequest request{index, 0, beginning_.usual, {}};
    const std::vector<TokenId> tokens = tokens_of(context);
    request.context.insert(request.context.end(), tokens.begin(), tokens.end());
    if (tokens.empty()) request.context = beginning_.instead;
    if (request.context.empty()) {
      fail(ErrorCode::kFormat, "the context is empty, and the model has no token that begins a text");
    }
    for (std::size_t i = 0; i < item.choices.size(); ++i) {
      const std::vector<TokenId> whole = tokens_of(item.context + item.continuation(i));
      if (whole.size() <= tokens.size()) fail(ErrorCode::kFormat, "choice {} adds no tokens to the context's", i);
      const std::size_t size = whole.size() - tokens.size();
      if (static_cast<std::int64_t>(size) > limit_) {
        fail(ErrorCode::kFormat, "choice {} has {} tokens, more than the context of {}", i, size, limit_);
      }
      request.continuations.emplace_back(whole.end() - static_cast<std::ptrdiff_t>(size), whole.end());
    }
    return request;
  }

  std::vector<TokenId> tokens_of(const std::string& text) const {
    if (text.empty()) return {};
    return tokenizer_.encode(text, {.add_special = false, .parse_special = false});
  }

  const token::Tokenizer& tokenizer_;
  const Beginning beginning_;
  const std::int64_t limit_;
};

using RequestPtr = const TaskRequest*;

// Tokens of a sequence that holds the context and one choice after the other.
std::int64_t room_of(const TaskRequest& request) {
  std::size_t longest = 0;
  for (const auto& tokens : request.continuations) longest = std::max(longest, tokens.size());
  return static_cast<std::int64_t>(request.context.size() + longest) - 1;
}

// Some requests, the longest first, each a sequence of one cache.
class Batch {
 public:
  Batch(ExecContext& context, const Contender& contender, std::span<const RequestPtr> requests,
        std::span<const TaskItem> items, ItemScores& scores)
      : context_(context),
        contender_(contender),
        requests_(requests),
        items_(items),
        scores_(scores),
        cache_(contender.model->spec(), contender.kv, static_cast<int>(requests.size()), room_of(*requests[0])) {}

  void run() {
    run_contexts();
    std::size_t rounds = 0;
    for (const RequestPtr request : requests_) rounds = std::max(rounds, request->continuations.size());
    for (std::size_t choice = 0; choice < rounds; ++choice) run_choices(choice);
  }

 private:
  // The logits behind a context decide the first token of each of its choices.
  void run_contexts() {
    std::vector<model::Segment> segments;
    for (const RequestPtr request : requests_) {
      const auto last = static_cast<std::int64_t>(request->context.size()) - 1;
      segments.push_back({static_cast<int>(segments.size()), request->context, last});
    }
    contender_.model->forward(context_, cache_, segments,
                              [&](std::size_t segment, std::int64_t, std::int64_t, const float* logits) {
                                const TaskRequest& request = *requests_[segment];
                                const LogitSummary summary = summarize_logits(logits, contender_.model->spec().vocab);
                                for (std::size_t i = 0; i < request.continuations.size(); ++i) {
                                  add(request, i, request.continuations[i][0], logits, summary);
                                }
                              });
  }

  // Of each request the choice of that number, behind the context that the cache holds.
  void run_choices(std::size_t choice) {
    std::vector<model::Segment> segments;
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      const TaskRequest& request = *requests_[i];
      if (choice >= request.continuations.size() || request.continuations[choice].size() < 2) continue;
      const std::span<const TokenId> tokens = request.continuations[choice];
      segments.push_back({static_cast<int>(i), tokens.first(tokens.size() - 1), 0});
    }
    if (segments.empty()) return;
    const std::int64_t vocab = contender_.model->spec().vocab;
    std::vector<LogitSummary> summaries;
    contender_.model->forward(
        context_, cache_, segments, [&](std::size_t segment, std::int64_t first, std::int64_t n, const float* logits) {
          summaries.resize(static_cast<std::size_t>(n));
          context_.pool.parallel_for(n, 1, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) {
              summaries[static_cast<std::size_t>(i)] = summarize_logits(logits + i * vocab, vocab);
            }
          });
          const TaskRequest& request = *requests_[static_cast<std::size_t>(segments[segment].sequence)];
          for (std::int64_t i = 0; i < n; ++i) {
            const TokenId next = request.continuations[choice][static_cast<std::size_t>(first + i) + 1];
            add(request, choice, next, logits + i * vocab, summaries[static_cast<std::size_t>(i)]);
          }
        });
    for (const model::Segment& segment : segments) {
      const TaskRequest& request = *requests_[static_cast<std::size_t>(segment.sequence)];
      cache_.truncate(segment.sequence, static_cast<std::int64_t>(request.context.size()));
    }
  }

  void add(const TaskRequest& request, std::size_t choice, TokenId next, const float* logits,
           const LogitSummary& summary) {
    if (!std::isfinite(summary.log_sum) || !std::isfinite(logits[next])) {
      fail(ErrorCode::kFormat, "{}: the logits of {} are not finite; are its weights?", contender_.label,
           items_[request.item].place);
    }
    ChoiceScore& score = scores_[request.item][request.first_choice + choice];
    score.log_probability += logits[next] - summary.log_sum;
    score.greedy = score.greedy && summary.top == next;
  }

  ExecContext& context_;
  const Contender& contender_;
  std::span<const RequestPtr> requests_;
  std::span<const TaskItem> items_;
  ItemScores& scores_;
  model::KvCache cache_;
};

void check_tokens(const TaskRequests& requests, const Contender& contender) {
  const std::int64_t vocab = contender.model->spec().vocab;
  for (const TaskRequest& request : requests.requests) {
    for (const auto& tokens : request.continuations) {
      const auto outside = std::ranges::find_if(tokens, [&](TokenId id) { return id < 0 || id >= vocab; });
      if (outside == tokens.end()) continue;
      fail(ErrorCode::kInvalidArgument, "the tokenizer gives token {}, but {} has a vocabulary of {}", *outside,
           contender.label, vocab);
    }
  }
}

}  // namespace

TaskRequests encode_tasks(const token::Tokenizer& tokenizer, std::span<const TaskItem> items, std::int64_t limit) {
  if (limit < 1) fail(ErrorCode::kInvalidArgument, "a context of {} tokens", limit);
  const Encoder encoder(tokenizer, limit);
  TaskRequests requests;
  for (std::size_t i = 0; i < items.size(); ++i) {
    with_context(items[i].place, [&] { encoder.encode(items[i], i, requests); });
  }
  return requests;
}

ItemScores score_tasks(ExecContext& context, std::span<const TaskItem> items, const TaskRequests& requests,
                       const Contender& contender, std::int64_t batch_tokens) {
  check_tokens(requests, contender);
  ItemScores scores(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) scores[i].resize(items[i].choices.size());
  std::vector<RequestPtr> order;
  for (const TaskRequest& request : requests.requests) order.push_back(&request);
  std::ranges::stable_sort(order, std::greater{}, [](RequestPtr request) { return room_of(*request); });
  const std::span<const RequestPtr> all = order;
  ProgressTask progress(context.progress, "tasks", all.size(), "contexts");
  for (std::size_t begin = 0; begin < all.size();) {
    context.check_cancelled();
    const std::int64_t fit = std::max<std::int64_t>(1, batch_tokens / room_of(*all[begin]));
    const std::size_t n = std::min(all.size() - begin, static_cast<std::size_t>(fit));
    Batch(context, contender, all.subspan(begin, n), items, scores).run();
    progress.add(n);
    begin += n;
  }
  return scores;
}

}  // namespace nibble::eval
