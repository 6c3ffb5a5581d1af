#include "eval/task_measures.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"

namespace nibble::eval {

namespace {

Answer choose(const TaskItem& item, std::span<const ChoiceScore> scores) {
  Answer answer;
  const auto per_byte = [&](std::size_t i) {
    return scores[i].log_probability / static_cast<double>(item.choices[i].size());
  };
  for (std::size_t i = 1; i < scores.size(); ++i) {
    if (scores[i].log_probability > scores[answer.choice].log_probability) answer.choice = i;
    if (per_byte(i) > per_byte(answer.choice_norm)) answer.choice_norm = i;
  }
  return answer;
}

MeanError share_of(std::span<const Answer> answers, bool Answer::*member) {
  std::vector<double> values;
  for (const Answer& answer : answers) values.push_back(answer.*member ? 1 : 0);
  return mean_with_error(values);
}

}  // namespace

std::vector<Task> group_tasks(std::span<const TaskItem> items) {
  std::vector<Task> tasks;
  for (std::size_t i = 0; i < items.size(); ++i) {
    auto task = std::ranges::find(tasks, items[i].task, &Task::name);
    if (task == tasks.end()) task = tasks.insert(task, {items[i].task, items[i].kind, {}});
    task->items.push_back(i);
  }
  return tasks;
}

std::vector<Answer> answers_of(const Task& task, std::span<const TaskItem> items, const ItemScores& scores) {
  std::vector<Answer> answers;
  for (const std::size_t i : task.items) {
    Answer answer = choose(items[i], scores[i]);
    if (task.kind == TaskKind::kLastWord) answer.choice = answer.choice_norm = scores[i][0].greedy ? 0 : 1;
    answer.right = answer.choice == items[i].answer;
    answer.right_norm = answer.choice_norm == items[i].answer;
    answer.log_probability = scores[i][items[i].answer].log_probability;
    answers.push_back(answer);
  }
  return answers;
}

Flips count_flips(std::span<const Answer> answers, std::span<const Answer> reference, bool norm) {
  const auto right = norm ? &Answer::right_norm : &Answer::right;
  const auto choice = norm ? &Answer::choice_norm : &Answer::choice;
  Flips flips;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    flips.to_wrong += reference[i].*right && !(answers[i].*right);
    flips.to_right += !(reference[i].*right) && answers[i].*right;
    flips.changed += answers[i].*choice != reference[i].*choice;
  }
  flips.share = static_cast<double>(flips.to_wrong + flips.to_right) / static_cast<double>(answers.size());
  flips.mcnemar_p = mcnemar_exact(flips.to_wrong, flips.to_right);
  return flips;
}

TaskMeasures measure_task(const Task& task, std::span<const TaskItem> items, std::span<const Answer> answers,
                          std::span<const Answer> reference) {
  TaskMeasures measures;
  measures.accuracy = share_of(answers, &Answer::right);
  measures.accuracy_interval =
      wilson_interval(std::ranges::count(answers, true, &Answer::right), static_cast<std::int64_t>(answers.size()));
  measures.accuracy_norm = share_of(answers, &Answer::right_norm);
  std::vector<double> values;
  double nats = 0, bytes = 0;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const TaskItem& item = items[task.items[i]];
    values.push_back(answers[i].log_probability);
    nats -= answers[i].log_probability;
    bytes += static_cast<double>(item.choices[item.answer].size());
  }
  measures.log_probability = mean_with_error(values);
  measures.perplexity = std::exp(-measures.log_probability.mean);
  measures.bits_per_byte = nats / std::log(2.0) / bytes;
  if (reference.empty()) return measures;
  measures.flips = count_flips(answers, reference, false);
  if (task.kind == TaskKind::kMultipleChoice) measures.flips_norm = count_flips(answers, reference, true);
  return measures;
}

void add_to_json(const Flips& flips, std::string_view suffix, json::Value& object) {
  const auto set = [&](std::string_view name, json::Value value) {
    object.set(std::string(name) + std::string(suffix), std::move(value));
  };
  set("flips", flips.share);
  set("flips_to_wrong", flips.to_wrong);
  set("flips_to_right", flips.to_right);
  set("changed", flips.changed);
  set("mcnemar_p", flips.mcnemar_p);
}

void add_to_json(TaskKind kind, const TaskMeasures& measures, std::string_view suffix, json::Value& object) {
  const auto set = [&](std::string_view name, double value) {
    object.set(std::string(name) + std::string(suffix), value);
  };
  set("accuracy", measures.accuracy.mean);
  set("accuracy_error", measures.accuracy.error);
  set("accuracy_low", measures.accuracy_interval.low);
  set("accuracy_high", measures.accuracy_interval.high);
  if (kind == TaskKind::kMultipleChoice) {
    set("accuracy_norm", measures.accuracy_norm.mean);
    set("accuracy_norm_error", measures.accuracy_norm.error);
  }
  set("target_log_probability", measures.log_probability.mean);
  set("target_log_probability_error", measures.log_probability.error);
  set("target_perplexity", measures.perplexity);
  set("target_bits_per_byte", measures.bits_per_byte);
  if (measures.flips) add_to_json(*measures.flips, suffix, object);
  if (measures.flips_norm) add_to_json(*measures.flips_norm, "_norm" + std::string(suffix), object);
}

std::string to_text(const Flips& flips) {
  return format_text("flipped {:.2f} %: {} right to wrong, {} wrong to right (McNemar p {:.3g}); {} chose otherwise",
                     flips.share * 100, flips.to_wrong, flips.to_right, flips.mcnemar_p, flips.changed);
}

std::string to_text(std::string_view title, TaskKind kind, const TaskMeasures& measures) {
  const auto percent = [](const MeanError& share) {
    return format_text("{:.2f} +- {:.2f} %", share.mean * 100, share.error * 100);
  };
  std::string text = format_text("{:<11} accuracy {} (95 %: {:.2f} to {:.2f})", title, percent(measures.accuracy),
                                 measures.accuracy_interval.low * 100, measures.accuracy_interval.high * 100);
  if (kind == TaskKind::kMultipleChoice) {
    text += format_text(", by bytes {}, {:.4f} bits per byte of right answers\n", percent(measures.accuracy_norm),
                        measures.bits_per_byte);
  } else {
    text += format_text(", perplexity of the word {:.4f}, log-probability {:.4f} +- {:.4f}\n", measures.perplexity,
                        measures.log_probability.mean, measures.log_probability.error);
  }
  if (measures.flips) text += format_text("{:<11} {}\n", "", to_text(*measures.flips));
  if (measures.flips_norm) text += format_text("{:<11} by bytes {}\n", "", to_text(*measures.flips_norm));
  return text;
}

}  // namespace nibble::eval
