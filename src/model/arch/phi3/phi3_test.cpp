#include <gtest/gtest.h>

#include "model/arch.h"
#include "token/tokenizer.h"

namespace nibble::model::phi3 {

const Arch& entry();

namespace {

using token::TokenType;

TEST(Phi3, SpecialTokensTakeTheSpaceBehindThemAlong) {
  token::Vocabulary v;
  v.kind = token::TokenizerKind::kSpmBpe;
  v.tokens = {"<unk>", "<s>", "</s>", "<|user|>", "<|tool|>", "\u2581", "a", "\n"};
  v.types = {TokenType::kUnknown,     TokenType::kControl, TokenType::kControl, TokenType::kControl,
             TokenType::kUserDefined, TokenType::kNormal,  TokenType::kNormal,  TokenType::kNormal};
  v.scores.assign(v.tokens.size(), 0.0f);
  v.unk = 0;
  entry().complete_vocabulary(v);
  const auto tokenizer = token::make_tokenizer(v);
  const auto ids = [&](std::string_view text, bool special) {
    return tokenizer->encode(text, {.add_special = false, .parse_special = special});
  };
  using Ids = std::vector<token::TokenId>;
  EXPECT_EQ(ids("<|user|> \n a</s>\n<|tool|>\na<s> a", true), (Ids{3, 6, 2, 4, 6, 1, 5, 6}));
  EXPECT_EQ(ids("<|tool|> a", false), (Ids{4, 6}));
}

}  // namespace
}  // namespace nibble::model::phi3
