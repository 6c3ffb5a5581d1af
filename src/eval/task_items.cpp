#include "eval/task_items.h"

#include <algorithm>
#include <map>

#include "base/atomic_file.h"
#include "base/error.h"
#include "json/json.h"

namespace nibble::eval {

namespace {

constexpr std::string_view kSpaces = " \t\n\r\v\f";
constexpr std::string_view kKeys[] = {"task", "id", "context", "choices", "answer", "text", "target", "delimiter"};

bool is_space(char c) { return kSpaces.find(c) != std::string_view::npos; }

// What stands between the two where the line does not say: nothing, if either side has white space there.
std::string usual_delimiter(std::string_view context, std::string_view choice) {
  const bool separate = context.empty() || is_space(context.back()) || is_space(choice.front());
  return separate ? "" : " ";
}

void read_choices(const json::Value& line, TaskItem& item) {
  for (const json::Value& choice : line.at("choices").as_array()) {
    item.choices.push_back(choice.as_string());
    if (item.choices.back().empty()) fail(ErrorCode::kFormat, "choice {} is empty", item.choices.size() - 1);
  }
  if (item.choices.size() < 2) {
    fail(ErrorCode::kFormat, "{} choices; a multiple choice has at least 2", item.choices.size());
  }
  const std::int64_t answer = line.at("answer").as_int();
  if (answer < 0 || answer >= static_cast<std::int64_t>(item.choices.size())) {
    fail(ErrorCode::kFormat, "answer {} of {} choices, which count from 0", answer, item.choices.size());
  }
  item.answer = static_cast<std::size_t>(answer);
}

// Cuts a text before its last word; the white space between them goes with the word.
void read_text(const std::string& text, TaskItem& item) {
  const std::size_t end = text.find_last_not_of(kSpaces);
  const std::size_t space = end == std::string::npos ? end : text.find_last_of(kSpaces, end);
  const std::size_t context_end = space == std::string::npos ? space : text.find_last_not_of(kSpaces, space);
  if (context_end == std::string::npos) fail(ErrorCode::kFormat, "the text has no words before its last one");
  item.context = text.substr(0, context_end + 1);
  item.choices = {text.substr(space + 1, end - space)};
  item.delimiters = {text.substr(context_end + 1, space - context_end)};
}

void check_keys(const json::Value& line) {
  if (!line.is_object()) fail(ErrorCode::kFormat, "not a JSON object");
  for (const auto& [key, value] : line.as_object()) {
    if (std::ranges::find(kKeys, key) == std::end(kKeys)) fail(ErrorCode::kFormat, "unknown key '{}'", key);
  }
  const int forms =
      (line.find("choices") != nullptr) + (line.find("target") != nullptr) + (line.find("text") != nullptr);
  if (forms != 1) {
    fail(ErrorCode::kFormat, "{} of 'choices', 'target' and 'text'; a line has one of them",
         forms == 0 ? "none" : "several");
  }
  if ((line.find("text") != nullptr) == (line.find("context") != nullptr)) {
    fail(ErrorCode::kFormat, "'context' belongs with 'choices' or 'target', and not with 'text'");
  }
  if ((line.find("answer") != nullptr) != (line.find("choices") != nullptr)) {
    fail(ErrorCode::kFormat, "'choices' and 'answer' belong together");
  }
}

TaskItem parse_item(std::string_view text, std::string_view task) {
  const json::Value line = json::parse(text);
  check_keys(line);
  TaskItem item;
  item.task = line.get("task", task);
  item.kind = line.find("choices") != nullptr ? TaskKind::kMultipleChoice : TaskKind::kLastWord;
  if (const json::Value* whole = line.find("text")) {
    read_text(whole->as_string(), item);
  } else {
    item.context = line.at("context").as_string();
    if (item.kind == TaskKind::kMultipleChoice) {
      read_choices(line, item);
    } else {
      item.choices = {line.at("target").as_string()};
      if (item.choices[0].empty()) fail(ErrorCode::kFormat, "the target is empty");
    }
    for (const std::string& choice : item.choices) item.delimiters.push_back(usual_delimiter(item.context, choice));
  }
  if (const json::Value* delimiter = line.find("delimiter")) {
    std::fill(item.delimiters.begin(), item.delimiters.end(), delimiter->as_string());
  }
  return item;
}

}  // namespace

std::string_view task_kind_name(TaskKind kind) {
  return kind == TaskKind::kMultipleChoice ? "multiple_choice" : "last_word";
}

std::vector<TaskItem> parse_tasks(std::string_view text, std::string_view name, std::string_view task) {
  std::vector<TaskItem> items;
  for (std::int64_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(kSpaces) == std::string_view::npos) continue;
    const std::string place = format_text("{}:{}", name, number);
    items.push_back(with_context(place, [&] { return parse_item(line, task); }));
    items.back().place = place;
  }
  if (items.empty()) fail(ErrorCode::kInvalidArgument, "{}: no items: one JSON object a line is asked for", name);
  return items;
}

std::vector<TaskItem> load_tasks(const std::filesystem::path& path) {
  return parse_tasks(read_file(path), path.string(), path.stem().string());
}

void check_tasks(const std::vector<TaskItem>& items) {
  std::map<std::string_view, const TaskItem*> first;
  for (const TaskItem& item : items) {
    const TaskItem& other = *first.emplace(item.task, &item).first->second;
    if (other.kind == item.kind) continue;
    fail(ErrorCode::kFormat, "{}: task '{}' is of the kind {} here, and {} at {}: give each kind its own \"task\"",
         item.place, item.task, task_kind_name(item.kind), task_kind_name(other.kind), other.place);
  }
}

}  // namespace nibble::eval
