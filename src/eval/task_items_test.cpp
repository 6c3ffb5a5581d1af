// Lines of tasks: what each form means, and what is refused.
#include "eval/task_items.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace nibble::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<TaskItem> parse(std::string_view text) { return parse_tasks(text, "tasks.jsonl", "tasks"); }

std::string refusal(std::string_view text) {
  try {
    check_tasks(parse(text));
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(TaskItems, FormsOfLines) {
  const auto items = parse(
      "{\"context\": \"Two and two are\", \"choices\": [\"four\", \" five\"], \"answer\": 1, \"task\": \"sums\", "
      "\"id\": 7}\r\n"
      "\n"
      "{\"text\": \"The sun rose over\\n the hills. \\n\"}\n"
      "{\"context\": \"A \", \"target\": \"b\"}");
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0].task, "sums");
  EXPECT_EQ(items[0].place, "tasks.jsonl:1");
  EXPECT_EQ(items[0].kind, TaskKind::kMultipleChoice);
  EXPECT_THAT(items[0].choices, ElementsAre("four", " five"));
  EXPECT_EQ(items[0].continuation(0), " four");  // as the harness: one space between
  EXPECT_EQ(items[0].continuation(1), " five");
  EXPECT_EQ(items[0].answer, 1u);
  EXPECT_EQ(items[1].task, "tasks");
  EXPECT_EQ(items[1].place, "tasks.jsonl:3");
  EXPECT_EQ(items[1].kind, TaskKind::kLastWord);
  EXPECT_EQ(items[1].context, "The sun rose over\n the");
  EXPECT_EQ(items[1].continuation(0), " hills.");
  EXPECT_EQ(items[2].continuation(0), "b");
  EXPECT_EQ(parse("{\"context\": \"A\", \"target\": \"b\", \"delimiter\": \"\\n\"}")[0].continuation(0), "\nb");
  EXPECT_EQ(parse("{\"context\": \"\", \"target\": \"b\"}")[0].continuation(0), "b");
  EXPECT_EQ(parse("{\"text\": \"one\\n\\ntwo\"}")[0].continuation(0), "\n\ntwo");
}

TEST(TaskItems, WhatIsRefusedIsNamed) {
  const std::string good = "{\"text\": \"a b\"}\n";
  EXPECT_THAT(refusal(good + "{\"text\": \"a b\""), HasSubstr("tasks.jsonl:2: "));
  EXPECT_THAT(refusal(good + "[1]"), HasSubstr("tasks.jsonl:2: not a JSON object"));
  EXPECT_THAT(refusal("{\"context\": \"a\"}"), HasSubstr("none of 'choices', 'target' and 'text'"));
  EXPECT_THAT(refusal("{\"text\": \"a b\", \"target\": \"c\"}"), HasSubstr("several of"));
  EXPECT_THAT(refusal("{\"text\": \"a b\", \"context\": \"c\"}"), HasSubstr("and not with 'text'"));
  EXPECT_THAT(refusal("{\"target\": \"a\"}"), HasSubstr("'context' belongs with"));
  EXPECT_THAT(refusal("{\"text\": \"a b\", \"delimeter\": \"\"}"), HasSubstr("unknown key 'delimeter'"));
  EXPECT_THAT(refusal("{\"text\": \" alone \"}"), HasSubstr("no words before"));
  EXPECT_THAT(refusal("{\"text\": \" \"}"), HasSubstr("no words before"));
  EXPECT_THAT(refusal("{\"text\": 3}"), HasSubstr("tasks.jsonl:1: "));
  EXPECT_THAT(refusal("{\"context\": \"a\", \"target\": \"\"}"), HasSubstr("the target is empty"));
  const auto choice = [](const std::string& rest) { return refusal("{\"context\": \"a\", " + rest + "}"); };
  EXPECT_THAT(choice("\"choices\": [], \"answer\": 0"), HasSubstr("0 choices"));
  EXPECT_THAT(choice("\"choices\": [\"b\"], \"answer\": 0"), HasSubstr("1 choices"));
  EXPECT_THAT(choice("\"choices\": [\"b\", \"\"], \"answer\": 0"), HasSubstr("choice 1 is empty"));
  EXPECT_THAT(choice("\"choices\": [\"b\", \"c\"], \"answer\": 2"), HasSubstr("answer 2 of 2 choices"));
  EXPECT_THAT(choice("\"choices\": [\"b\", \"c\"], \"answer\": -1"), HasSubstr("answer -1 of 2 choices"));
  EXPECT_THAT(choice("\"choices\": [\"b\", \"c\"]"), HasSubstr("belong together"));
  EXPECT_THAT(refusal(""), HasSubstr("tasks.jsonl: no items"));
  EXPECT_THAT(refusal("\n \n"), HasSubstr("no items"));
  EXPECT_THAT(refusal(good + "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 0}"),
              HasSubstr("tasks.jsonl:2: task 'tasks' is of the kind multiple_choice here, and last_word at"));
}

}  // namespace
}  // namespace nibble::eval
