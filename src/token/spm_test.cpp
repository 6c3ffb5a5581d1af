#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "token/tokenizer.h"

namespace nibble::token {
namespace {

const std::string kBooks = NIBBLE_SOURCE_DIR "/models/books-7m";

TEST(BooksTokenizer, RoundTripsText) {
  const auto tokenizer = make_tokenizer(load_vocabulary(kBooks));
  EXPECT_EQ(tokenizer->size(), 4096);
  EXPECT_EQ(tokenizer->vocabulary().bos, 1);
  EXPECT_EQ(tokenizer->vocabulary().eos, 2);
  for (const std::string text : {"Call me Ishmael.", "  two  spaces\n", "漢字 👍🏽 é", ""}) {
    const auto ids = tokenizer->encode(text);
    ASSERT_FALSE(ids.empty());
    EXPECT_EQ(ids[0], 1);
    EXPECT_EQ(tokenizer->decode(ids), text);
  }
}

TEST(BooksTokenizer, ControlTokensOnlyWhereAskedFor) {
  const auto tokenizer = make_tokenizer(load_vocabulary(kBooks));
  EXPECT_EQ(tokenizer->encode("</s>", {.add_special = false, .parse_special = true}), std::vector<TokenId>{2});
  const auto plain = tokenizer->encode("</s>", {.add_special = false, .parse_special = false});
  EXPECT_GT(plain.size(), 1u);
  EXPECT_EQ(tokenizer->decode(plain), "</s>");
}

TEST(LoadVocabulary, NamesTheFolderWithoutTokenizer) {
  try {
    load_vocabulary("/nonexistent/folder");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(error.what()).find("/nonexistent/folder"), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble::token
