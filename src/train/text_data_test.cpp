#include "train/text_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "train/tokenizer_test.h"

namespace nibble::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TextDataTest : public ::testing::Test {
 protected:
  std::filesystem::path put(const std::string& name, const std::string& text) {
    write_file_atomically(folder_.path() / name, text);
    return folder_.path() / name;
  }
  std::string error_of(const std::vector<std::filesystem::path>& files, std::int64_t context) {
    try {
      read_texts(*context_, *tokenizer_, files, context);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  TemporaryFolder folder_;
  OwnedExecContext context_{RunContext{.threads = 2}};
  std::unique_ptr<token::Tokenizer> tokenizer_ = byte_tokenizer();
};

TEST_F(TextDataTest, DocumentsBeginWithTheirTokenAndAreCut) {
  const std::vector files = {put("a.txt", "abcde"), put("b.txt", "<s>x"), put("c.txt", "yz")};
  const ExampleSet set = read_texts(*context_, *tokenizer_, files, 5);
  ASSERT_EQ(set.examples.size(), 2u);  // 6 + 5 + 3 tokens
  EXPECT_THAT(set.examples[0].tokens, ElementsAre(256, 'a', 'b', 'c', 'd'));
  EXPECT_THAT(set.examples[1].tokens, ElementsAre('e', 256, '<', 's', '>'));  // spelled: no control token
  EXPECT_THAT(set.examples[1].learned, ElementsAre(0, 1, 1, 1, 1));
  EXPECT_EQ(set.tokens, 10);
  EXPECT_EQ(set.learned, 8);
  EXPECT_EQ(set.dropped_tokens, 4);
  EXPECT_EQ(set.truncated, 0);
}

TEST_F(TextDataTest, WhatCannotBeTrainedOnIsNamed) {
  const auto good = put("good.txt", "abcdefgh"), empty = put("empty.txt", "");
  EXPECT_THAT(error_of({good, empty}, 4), HasSubstr("empty.txt': the text is empty"));
  EXPECT_THAT(error_of({good, folder_.path() / "none.txt"}, 4), HasSubstr("none.txt"));
  EXPECT_THAT(error_of({good}, 10), HasSubstr("has 9 tokens, fewer than one chunk of 10"));
  EXPECT_THAT(error_of({good}, 2), HasSubstr("a context of 2 tokens"));
  EXPECT_THAT(error_of({}, 4), HasSubstr("no text"));
}

}  // namespace
}  // namespace nibble::train
