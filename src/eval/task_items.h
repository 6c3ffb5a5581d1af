// Tasks with right answers, read from lines of JSON: multiple choice, and prediction of a text's last word.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::eval {

enum class TaskKind : std::uint8_t { kMultipleChoice, kLastWord };
std::string_view task_kind_name(TaskKind kind);  // "multiple_choice", "last_word"

struct TaskItem {
  std::string task;   // the task it counts for
  std::string place;  // "file.jsonl:12", for messages
  TaskKind kind{};
  std::string context;
  std::vector<std::string> choices;     // as they stand in the file; of a last word the target alone
  std::vector<std::string> delimiters;  // what is put between the context and each choice
  std::size_t answer = 0;               // index of the right choice

  std::string continuation(std::size_t choice) const { return delimiters[choice] + choices[choice]; }
};

// One object a line; empty lines are skipped.
//   {"context": C, "choices": [X, Y, ...], "answer": I}    multiple choice
//   {"context": C, "target": T} or {"text": T}             last word; T is cut before its last word
// and in each, if wanted, "task" (name; else the file's, without its ending), "id" (for the reader) and "delimiter"
// (else one space where neither side brings white space). Throws Error{kFormat} naming file and line for anything else,
// and for a task of two kinds; Error{kInvalidArgument} for a file without items.
std::vector<TaskItem> load_tasks(const std::filesystem::path& path);
// The same of a text; `name` stands for the file in messages, `task` is the name of lines without one.
std::vector<TaskItem> parse_tasks(std::string_view text, std::string_view name, std::string_view task);
// Throws Error{kFormat} where one task has lines of both kinds.
void check_tasks(const std::vector<TaskItem>& items);

}  // namespace nibble::eval
