// What scored items say of a model: accuracy, and which answers differ from those of another model.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/statistics.h"
#include "eval/task_score.h"
#include "json/json.h"

namespace nibble::eval {

// The items of one task, as indices into all items.
struct Task {
  std::string name;
  TaskKind kind{};
  std::vector<std::size_t> items;
};
std::vector<Task> group_tasks(std::span<const TaskItem> items);  // in the order of their first lines

// How a model answers one item.
struct Answer {
  std::size_t choice = 0;  // the most likely one, the first of equals; last word: 0 if greedy decoding gives it, or 1
  std::size_t choice_norm = 0;  // the same per byte of the choice
  bool right = false, right_norm = false;
  double log_probability = 0;  // of the right answer
};
std::vector<Answer> answers_of(const Task& task, std::span<const TaskItem> items, const ItemScores& scores);

// Answers that differ from another model's ("Accuracy is not all you need", Dutta et al. 2024).
struct Flips {
  std::int64_t to_wrong = 0, to_right = 0;
  std::int64_t changed = 0;  // another choice, those between wrong ones included
  double share = 0;          // of items that went from right to wrong or back
  double mcnemar_p = 1;      // that so uneven a pair of counts is chance
};

struct TaskMeasures {
  MeanError accuracy;
  Interval accuracy_interval;              // Wilson, 95 %
  MeanError accuracy_norm;                 // per byte; multiple choice only
  MeanError log_probability;               // of the right answer
  double perplexity = 0;                   // exp of its mean loss: per answer, not per token
  double bits_per_byte = 0;                // of the right answers together
  std::optional<Flips> flips, flips_norm;  // with a reference; the latter for multiple choice only
};
// `reference` is empty where there is none.
TaskMeasures measure_task(const Task& task, std::span<const TaskItem> items, std::span<const Answer> answers,
                          std::span<const Answer> reference);
Flips count_flips(std::span<const Answer> answers, std::span<const Answer> reference, bool norm);

// Adds the figures to an object, each name followed by `suffix`.
void add_to_json(const Flips& flips, std::string_view suffix, json::Value& object);
void add_to_json(TaskKind kind, const TaskMeasures& measures, std::string_view suffix, json::Value& object);

// The same as a few lines for a reader, headed by `title`.
std::string to_text(std::string_view title, TaskKind kind, const TaskMeasures& measures);
std::string to_text(const Flips& flips);  // without a line's end

}  // namespace nibble::eval
