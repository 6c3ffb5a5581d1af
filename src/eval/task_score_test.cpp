// Scores of tasks on the bundled model: against those computed token by token without a cache, and what is cut.
#include "eval/task_score.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/cpu.h"
#include "base/error.h"
#include "eval/task_measures.h"
#include "eval/token_score.h"

namespace nibble::eval {
namespace {

using model::MathPath;
using ::testing::HasSubstr;
using token::TokenId;

const std::string kRoot = NIBBLE_SOURCE_DIR;

class TaskScore : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    source_ = model::ModelSource::open(kRoot + "/models/books-7m");
    tokenizer_ = token::make_tokenizer(source_->vocabulary());
    items_ = load_tasks(kRoot + "/text/books-tasks.jsonl");
  }
  static void TearDownTestSuite() {
    source_.reset();
    tokenizer_.reset();
  }
  Contender contender(MathPath path) {
    return {"contender", model::Model::load(context_, source_, {.path = path, .isa = best_isa()}), model::KvType::kF32};
  }

  // One forward pass over all tokens for each that is predicted, and nothing kept between them.
  ChoiceScore direct_score(const model::Model& model, const TaskRequest& request, std::size_t choice) {
    ChoiceScore score;
    std::vector<TokenId> tokens = request.context;
    for (const TokenId next : request.continuations[choice]) {
      model::KvCache cache(model.spec(), model::KvType::kF32, 1, static_cast<std::int64_t>(tokens.size()));
      const model::Segment segment{0, tokens, static_cast<std::int64_t>(tokens.size()) - 1};
      model.forward(context_, cache, {&segment, 1}, [&](std::size_t, std::int64_t, std::int64_t, const float* logits) {
        const LogitSummary summary = summarize_logits(logits, model.spec().vocab);
        score.log_probability += logits[next] - summary.log_sum;
        score.greedy = score.greedy && summary.top == next;
      });
      tokens.push_back(next);
    }
    return score;
  }

  inline static std::shared_ptr<const model::ModelSource> source_;
  inline static std::unique_ptr<token::Tokenizer> tokenizer_;
  inline static std::vector<TaskItem> items_;
  ThreadPool pool_{2};
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_{pool_, cancel_, progress_};
};

TEST_F(TaskScore, ScoresAreThoseOfEveryTokenWithoutACache) {
  const TaskRequests requests = encode_tasks(*tokenizer_, items_, 256);
  ASSERT_EQ(requests.requests.size(), items_.size());
  for (const MathPath path : {MathPath::kExact, MathPath::kFast}) {
    const Contender model = contender(path);
    const ItemScores scores = score_tasks(context_, items_, requests, model);
    for (const TaskRequest& request : requests.requests) {
      if (request.item % 5 != 0) continue;
      for (std::size_t i = 0; i < request.continuations.size(); ++i) {
        const ChoiceScore expected = direct_score(*model.model, request, i);
        const ChoiceScore& score = scores[request.item][i];
        EXPECT_NEAR(score.log_probability, expected.log_probability, 1e-4) << items_[request.item].place << " " << i;
        EXPECT_EQ(score.greedy, expected.greedy) << items_[request.item].place;
      }
    }
  }
}

TEST_F(TaskScore, BatchesAndThreadsChangeNothing) {
  const TaskRequests requests = encode_tasks(*tokenizer_, items_, 256);
  const Contender model = contender(MathPath::kFast);
  const ItemScores whole = score_tasks(context_, items_, requests, model);
  ThreadPool one(1);
  ExecContext alone{one, cancel_, progress_};
  const ItemScores single = score_tasks(alone, items_, requests, model, 1);
  // Tiles of AMX, which larger batches may go to, round in their own way.
  const double rounding = best_isa() >= Isa::kAmx ? 2e-3 : 2e-5;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (std::size_t c = 0; c < whole[i].size(); ++c) {
      EXPECT_NEAR(single[i][c].log_probability, whole[i][c].log_probability, rounding) << i << " " << c;
    }
  }
}

TEST_F(TaskScore, TokensAreCutBehindTheContextsOwn) {
  const std::vector<TaskItem> items = parse_tasks(
      "{\"context\": \"The king went to the \", \"choices\": [\"castle\", \"sea\"], \"answer\": 0}\n"
      "{\"context\": \"The king went to the\", \"choices\": [\"castle\", \"sea\"], \"answer\": 0}\n"
      "{\"context\": \"\", \"choices\": [\"castle\", \"sea\"], \"answer\": 0}\n",
      "tasks", "tasks");
  const TaskRequests requests = encode_tasks(*tokenizer_, items, 256);
  // White space at the end of a context goes over to the choices.
  EXPECT_EQ(requests.requests[0].context, requests.requests[1].context);
  EXPECT_EQ(requests.requests[0].continuations, requests.requests[1].continuations);
  EXPECT_EQ(requests.requests[0].context.front(), tokenizer_->vocabulary().bos);
  std::vector<TokenId> whole = requests.requests[0].context;
  whole.insert(whole.end(), requests.requests[0].continuations[0].begin(), requests.requests[0].continuations[0].end());
  EXPECT_EQ(whole, tokenizer_->encode("The king went to the castle"));
  // Of an empty context the beginning token is left.
  EXPECT_EQ(requests.requests[2].context, std::vector<TokenId>{tokenizer_->vocabulary().bos});
  EXPECT_EQ(requests.requests[2].continuations[0], tokenizer_->encode("castle", {.add_special = false}));
}

TEST_F(TaskScore, WhatIsTooLongLosesItsBeginning) {
  const auto whole = encode_tasks(*tokenizer_, items_, 256).requests[0];
  std::size_t longest = 0;
  for (const auto& tokens : whole.continuations) longest = std::max(longest, tokens.size());
  // The last token of a continuation is never fed: this is just enough.
  const auto enough = static_cast<std::int64_t>(whole.context.size() + longest) - 1;
  EXPECT_EQ(encode_tasks(*tokenizer_, std::span(items_).first(1), enough).cut[0], 0);
  const TaskRequests cut = encode_tasks(*tokenizer_, std::span(items_).first(1), enough - 1);
  EXPECT_EQ(cut.cut[0], 1);
  ASSERT_EQ(cut.requests.size(), whole.continuations.size());  // each choice with the context it leaves room for
  for (std::size_t i = 0; i < cut.requests.size(); ++i) {
    const TaskRequest& request = cut.requests[i];
    EXPECT_EQ(request.first_choice, i);
    EXPECT_EQ(request.continuations[0], whole.continuations[i]);
    EXPECT_TRUE(std::equal(request.context.rbegin(), request.context.rend(), whole.context.rbegin()));
    EXPECT_EQ(request.context.size(),
              std::min(whole.context.size(), static_cast<std::size_t>(enough) - request.continuations[0].size()));
  }
  const Contender model = contender(MathPath::kFast);
  const ItemScores scores = score_tasks(context_, std::span(items_).first(1), cut, model);
  for (std::size_t i = 0; i < cut.requests.size(); ++i) {
    EXPECT_NEAR(scores[0][i].log_probability, direct_score(*model.model, cut.requests[i], 0).log_probability, 1e-4);
  }
  try {
    encode_tasks(*tokenizer_, items_, 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("books-tasks.jsonl:1: choice"));
    EXPECT_THAT(error.what(), HasSubstr("more than the context of 2"));
  }
}

// Scores made by hand: accuracy by sum and by bytes, greedy words, flips.
TEST(TaskMeasures, FromScoresByHand) {
  const std::vector<TaskItem> items = parse_tasks(
      "{\"task\": \"c\", \"context\": \"x\", \"choices\": [\"aa\", \"aaaaaaaa\"], \"answer\": 1}\n"
      "{\"task\": \"w\", \"context\": \"x\", \"target\": \"word\"}\n"
      "{\"task\": \"c\", \"context\": \"x\", \"choices\": [\"aa\", \"bb\"], \"answer\": 1}\n",
      "tasks", "tasks");
  const std::vector<Task> tasks = group_tasks(items);
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_EQ(tasks[0].items, (std::vector<std::size_t>{0, 2}));
  const ItemScores scores = {{{-2, false}, {-4, true}}, {{-3, true}}, {{-1, true}, {-1, false}}};
  const std::vector<Answer> answers = answers_of(tasks[0], items, scores);
  EXPECT_FALSE(answers[0].right);
  EXPECT_TRUE(answers[0].right_norm);  // -4 / 8 bytes beats -2 / 2
  EXPECT_EQ(answers[1].choice, 0u);    // the first of equals
  const ItemScores truth = {{{-5, false}, {-4, true}}, {{-3, false}}, {{-2, true}, {-1, false}}};
  const std::vector<Answer> reference = answers_of(tasks[0], items, truth);
  const TaskMeasures measures = measure_task(tasks[0], items, answers, reference);
  EXPECT_EQ(measures.accuracy.mean, 0);
  EXPECT_EQ(measures.accuracy_norm.mean, 0.5);
  EXPECT_DOUBLE_EQ(measures.log_probability.mean, -2.5);
  EXPECT_DOUBLE_EQ(measures.perplexity, std::exp(2.5));
  EXPECT_DOUBLE_EQ(measures.bits_per_byte, 5 / std::log(2.0) / 10);
  EXPECT_EQ(measures.flips->to_wrong, 2);
  EXPECT_EQ(measures.flips->share, 1);
  EXPECT_DOUBLE_EQ(measures.flips->mcnemar_p, 0.5);  // two of two one way
  EXPECT_EQ(measures.flips_norm->to_wrong, 1);
  const std::vector<Answer> words = answers_of(tasks[1], items, scores);
  EXPECT_TRUE(words[0].right);
  const TaskMeasures last = measure_task(tasks[1], items, words, answers_of(tasks[1], items, truth));
  EXPECT_EQ(last.flips->to_right, 1);
  EXPECT_FALSE(last.flips_norm);
}

}  // namespace
}  // namespace nibble::eval
