// Files of one JSON object a line as training examples.
#pragma once

#include <ctime>
#include <filesystem>
#include <span>
#include <string>

#include "base/exec_context.h"
#include "train/example.h"

namespace nibble::train {

inline std::tm first_of_2025() {
  std::tm day{};
  day.tm_mday = 1;
  day.tm_year = 125;
  day.tm_wday = 3;
  return day;
}

struct JsonlOptions {
  std::int64_t context = 2048;     // most tokens of an example; what is beyond is cut off and counted
  std::string chat_template = {};  // Jinja; empty: the tokenizer's own
  // What a template is told when it asks for the date: a fixed one, so that a run that is resumed has the same
  // examples.
  std::tm now = first_of_2025();
};

// Each line that is not blank is an example, in one of three forms, told apart by their members in this order:
//   {"messages": [{"role", "content"}, ...]}  by the chat template (chat_example.h), "tools" too; answers are learned
//   {"prompt", "completion"}                  one text, of which the completion is learned, and the end token behind it
//   {"text"}                                  all learned, and the end token behind it
// The tokenizer's beginning token comes first (messages: as the template has it); control tokens spelled in the texts
// are control tokens, as in the transformers library. A token that goes over the seam of prompt and completion is
// learned. Throws Error naming file and line: kFormat for what is no such object, kInvalidArgument for an empty file, a
// missing chat template and for lines of which nothing learned lies in the context.
ExampleSet read_jsonl(ExecContext& context, const token::Tokenizer& tokenizer,
                      std::span<const std::filesystem::path> files, const JsonlOptions& options);

}  // namespace nibble::train
