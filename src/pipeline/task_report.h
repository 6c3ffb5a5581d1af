// The answers of models to tasks, side by side: accuracy, flips against a reference, two candidates compared.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "eval/task_measures.h"
#include "json/json.h"

namespace nibble::pipeline {

// The items of some files, as one model's tokenizer cuts them.
struct TaskSet {
  std::vector<eval::TaskItem> items;
  std::vector<eval::Task> tasks;
  eval::TaskRequests requests;
};
// Without tokens yet. Throws as eval::load_tasks() and check_tasks() do.
TaskSet open_tasks(const std::vector<std::filesystem::path>& files);

// A model's scores by one path.
struct TaskRun {
  std::string suffix, title;  // of JSON keys; of lines
  eval::ItemScores scores;
};

struct TaskRuns {
  const eval::ItemScores* reference = nullptr;
  std::vector<TaskRun> model, versus;  // the same paths in both; versus may be empty
  std::string reference_name, versus_name;
};

// One object per task, and lines for a reader.
json::Array report_tasks(const TaskSet& set, const TaskRuns& runs, int resamples, std::uint64_t seed,
                         std::string& text);

}  // namespace nibble::pipeline
