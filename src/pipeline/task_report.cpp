#include "pipeline/task_report.h"

#include <algorithm>
#include <iterator>

#include "base/format.h"

namespace nibble::pipeline {

namespace {

using eval::Answer;
using eval::Task;
using eval::TaskKind;

class TaskTable {
 public:
  TaskTable(const TaskSet& set, const Task& task, const TaskRuns& runs) : set_(set), task_(task), runs_(runs) {
    if (runs.reference != nullptr) reference_ = eval::answers_of(task, set.items, *runs.reference);
  }

  json::Value report(int resamples, std::uint64_t seed, std::string& text) {
    report_task(text);
    json::Value out = std::move(head_);
    for (const TaskRun& run : runs_.model) report_run(run, out, text);
    if (runs_.versus.empty()) return out;
    json::Value versus;
    text += format_text("versus {}\n", runs_.versus_name);
    for (std::size_t i = 0; i < runs_.versus.size(); ++i) {
      report_run(runs_.versus[i], versus, text);
      compare(runs_.model[i], runs_.versus[i], resamples, seed, versus, text);
    }
    versus.set("resamples", resamples);
    out.set("versus", std::move(versus));
    return out;
  }

 private:
  std::vector<Answer> answers(const TaskRun& run) const { return eval::answers_of(task_, set_.items, run.scores); }

  void report_task(std::string& text) {
    std::int64_t cut = 0;
    for (const std::size_t item : task_.items) cut += set_.requests.cut[item];
    head_.set("task", task_.name);
    head_.set("kind", eval::task_kind_name(task_.kind));
    head_.set("items", static_cast<std::int64_t>(task_.items.size()));
    head_.set("cut", cut);
    text += format_text("task {}: {}, {} items", task_.name,
                        task_.kind == TaskKind::kMultipleChoice ? "multiple choice" : "last word", task_.items.size());
    if (cut > 0) text += format_text(", {} too long and cut from the left", cut);
    text += "\n";
    if (reference_.empty()) return;
    const eval::TaskMeasures measures = eval::measure_task(task_, set_.items, reference_, {});
    eval::add_to_json(task_.kind, measures, "_reference", head_);
    text += eval::to_text("reference", task_.kind, measures);
  }

  void report_run(const TaskRun& run, json::Value& object, std::string& text) const {
    const eval::TaskMeasures measures = eval::measure_task(task_, set_.items, answers(run), reference_);
    eval::add_to_json(task_.kind, measures, run.suffix, object);
    text += eval::to_text(run.title, task_.kind, measures);
  }

  // The model against the other candidate, item by item.
  void compare(const TaskRun& model, const TaskRun& versus, int resamples, std::uint64_t seed, json::Value& object,
               std::string& text) const {
    const std::vector<Answer> ours = answers(model), theirs = answers(versus);
    const auto difference = [&](std::string_view name, auto figure) {
      std::vector<double> values;
      for (std::size_t i = 0; i < ours.size(); ++i) values.push_back(figure(ours[i]) - figure(theirs[i]));
      const double mean = eval::mean_with_error(values).mean;
      const eval::Interval interval = eval::bootstrap_mean(values, resamples, seed);
      const std::string key = std::string(name) + "_difference";
      object.set(key + model.suffix, mean);
      object.set(key + "_low" + model.suffix, interval.low);
      object.set(key + "_high" + model.suffix, interval.high);
      return std::pair(mean, interval);
    };
    const auto [right, range] = difference("accuracy", [](const Answer& answer) { return answer.right ? 1.0 : 0.0; });
    text += format_text("{:<11} accuracy {:+.2f} % beside the other model's, 95 % interval {:+.2f} to {:+.2f}\n",
                        model.title, right * 100, range.low * 100, range.high * 100);
    if (task_.kind == TaskKind::kMultipleChoice) {
      const auto [norm, norm_range] =
          difference("accuracy_norm", [](const Answer& answer) { return answer.right_norm ? 1.0 : 0.0; });
      text += format_text("{:<11} by bytes {:+.2f} %, {:+.2f} to {:+.2f}\n", "", norm * 100, norm_range.low * 100,
                          norm_range.high * 100);
    }
    const auto [nats, nats_range] =
        difference("target_log_probability", [](const Answer& answer) { return answer.log_probability; });
    text += format_text("{:<11} log-probability of right answers {:+.4f}, {:+.4f} to {:+.4f}\n", "", nats,
                        nats_range.low, nats_range.high);
    const eval::Flips flips = eval::count_flips(ours, theirs, false);
    object.set("better" + model.suffix, flips.to_right);
    object.set("worse" + model.suffix, flips.to_wrong);
    object.set("mcnemar_p_versus" + model.suffix, flips.mcnemar_p);
    text += format_text("{:<11} right alone in {} items, the other in {} (McNemar p {:.3g})\n", "", flips.to_right,
                        flips.to_wrong, flips.mcnemar_p);
  }

  const TaskSet& set_;
  const Task& task_;
  const TaskRuns& runs_;
  std::vector<Answer> reference_;
  json::Value head_;
};

}  // namespace

TaskSet open_tasks(const std::vector<std::filesystem::path>& files) {
  TaskSet set;
  for (const std::filesystem::path& file : files) {
    std::vector<eval::TaskItem> items = eval::load_tasks(file);
    std::ranges::move(items, std::back_inserter(set.items));
  }
  eval::check_tasks(set.items);
  set.tasks = eval::group_tasks(set.items);
  return set;
}

json::Array report_tasks(const TaskSet& set, const TaskRuns& runs, int resamples, std::uint64_t seed,
                         std::string& text) {
  json::Array out;
  if (runs.reference != nullptr) text += format_text("tasks, reference {}\n", runs.reference_name);
  for (const Task& task : set.tasks) out.push_back(TaskTable(set, task, runs).report(resamples, seed, text));
  return out;
}

}  // namespace nibble::pipeline
