#include "token/tokenizer_json_writer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "token/byte_alphabet.h"
#include "token/pre_tokenizer.h"
#include "token/tokenizer.h"
#include "token/tokenizer_json.h"

namespace nibble::token {
namespace {

Vocabulary small_vocabulary() {
  Vocabulary vocabulary;
  vocabulary.kind = TokenizerKind::kByteBpe;
  for (const std::string& byte : byte_alphabet()) vocabulary.tokens.push_back(byte);
  vocabulary.merges = {{"t", "h"}, {"th", "e"}, {"\xC4\xA0", "the"}, {"1", "2"}};
  for (const auto& [left, right] : vocabulary.merges) vocabulary.tokens.push_back(left + right);
  vocabulary.types.assign(vocabulary.tokens.size(), TokenType::kNormal);
  for (const char* text : {"<|begin|>", "<|end|>"}) {
    vocabulary.tokens.emplace_back(text);
    vocabulary.types.push_back(TokenType::kControl);
  }
  vocabulary.tokens.emplace_back("<tool>");
  vocabulary.types.push_back(TokenType::kUserDefined);
  vocabulary.bos = 260;
  vocabulary.eos = 261;
  vocabulary.add_bos = true;
  vocabulary.pre = "llama-bpe";
  const PreTokenizer* pre = find_pre_tokenizer("llama-bpe");
  vocabulary.split_patterns = pre->patterns;
  vocabulary.ignore_merges = pre->ignore_merges;
  return vocabulary;
}

TEST(TokenizerJsonWriter, ReadsBackAsTheSameTokenizer) {
  const Vocabulary original = small_vocabulary();
  Vocabulary copy = parse_tokenizer_json(write_tokenizer_json(original));
  EXPECT_EQ(copy.tokens, original.tokens);
  EXPECT_EQ(copy.types, original.types);
  EXPECT_EQ(copy.merges, original.merges);
  EXPECT_EQ(copy.split_patterns, original.split_patterns);
  EXPECT_EQ(copy.pre, original.pre);
  EXPECT_EQ(copy.ignore_merges, original.ignore_merges);
  copy.bos = original.bos;  // tokenizer_config.json names them
  copy.eos = original.eos;
  const auto a = make_tokenizer(original);
  const auto b = make_tokenizer(copy);
  for (const char* text : {"the cat in the hat", " 1234 <|end|> <tool>", "\xF0\x9F\x98\x80 \xFF caf\xC3\xA9\n\n  x"}) {
    EXPECT_EQ(a->encode(text), b->encode(text)) << text;
  }
}

TEST(TokenizerJsonWriter, ConfigurationNamesTheSpecialTokens) {
  const json::Value config = json::parse(write_tokenizer_config(small_vocabulary()));
  EXPECT_EQ(config.at("bos_token").as_string(), "<|begin|>");
  EXPECT_EQ(config.at("eos_token").as_string(), "<|end|>");
  EXPECT_EQ(config.find("unk_token"), nullptr);
  EXPECT_TRUE(config.at("add_bos_token").as_bool());
}

TEST(TokenizerJsonWriter, RefusesSentencePiece) {
  Vocabulary vocabulary;
  vocabulary.kind = TokenizerKind::kSpmBpe;
  EXPECT_THROW(write_tokenizer_json(vocabulary), Error);
}

}  // namespace
}  // namespace nibble::token
