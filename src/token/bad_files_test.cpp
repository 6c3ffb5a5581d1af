// Tokenizer files that lie: each must give an Error that says what is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "token/spm_model.h"
#include "token/tokenizer.h"
#include "token/tokenizer_json.h"

namespace nibble::token {
namespace {

using ::testing::HasSubstr;

const std::string kData = NIBBLE_SOURCE_DIR "/src/token/testdata/";

template <typename Body>
std::string message_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_NE(error.code(), ErrorCode::kInternal);
    return error.what();
  }
  return "nothing was thrown";
}

std::string json_error(std::string_view text) {
  return message_of([&] { make_tokenizer(parse_tokenizer_json(text))->encode("some text"); });
}

std::string spm_error(std::string_view bytes) {
  return message_of([&] { make_tokenizer(parse_spm_model(bytes))->encode("some text"); });
}

// One piece of a SentencePiece model.
std::string piece(std::string_view text, int type) {
  std::string message = "\x0A" + std::string(1, static_cast<char>(text.size())) + std::string(text) + "\x18" +
                        std::string(1, static_cast<char>(type));
  return "\x0A" + std::string(1, static_cast<char>(message.size())) + message;
}

TEST(BadSpmModel, EveryTruncation) {
  const std::string whole = read_file(kData + "spm-bpe-rules/tokenizer.model");
  for (std::size_t n = 0; n < whole.size(); n += n < 400 ? 1 : 97) {
    try {
      const auto tokenizer = make_tokenizer(parse_spm_model(std::string_view(whole).substr(0, n)));
      EXPECT_GT(tokenizer->size(), 0) << n;  // cut between two messages: a smaller model
      tokenizer->decode(tokenizer->encode("some text"));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kFormat) << n;
    }
  }
}

TEST(BadSpmModel, SaysWhatIsWrong) {
  const std::string unknown = piece("<unk>", 2);
  EXPECT_THAT(spm_error(""), HasSubstr("no pieces"));
  EXPECT_THAT(spm_error("\x0A\xFF\xFF\xFF\xFF\x0F"), HasSubstr("wanted at offset"));
  EXPECT_THAT(spm_error(std::string("\x0A\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 13)),
              HasSubstr("more than 10 bytes"));
  EXPECT_THAT(spm_error(std::string("\x03\x00", 2)), HasSubstr("field number 0"));
  EXPECT_THAT(spm_error("\x0F"), HasSubstr("wire type"));
  EXPECT_THAT(spm_error(piece("a", 1)), HasSubstr("no unknown piece"));
  EXPECT_THAT(spm_error(unknown + unknown), HasSubstr("two unknown pieces"));
  EXPECT_THAT(spm_error(unknown + piece("a", 1) + piece("a", 1)), HasSubstr("there twice"));
  EXPECT_THAT(spm_error(unknown + piece("", 1)), HasSubstr("is empty"));
  EXPECT_THAT(spm_error(unknown + piece("\xFF", 1)), HasSubstr("not UTF-8"));
  EXPECT_THAT(spm_error(unknown + piece("a", 9)), HasSubstr("type 9"));
  EXPECT_THAT(spm_error(unknown + piece("<0xZZ>", 6)), HasSubstr("byte token"));
  EXPECT_THAT(spm_error(unknown + std::string("\x12\x02\x18\x03", 4)), HasSubstr("model type 3"));
  EXPECT_THAT(spm_error(unknown + std::string("\x12\x03\xC0\x01\x01", 5)), HasSubstr("suffix"));
  EXPECT_THAT(spm_error(unknown + std::string("\x12\x03\x98\x02\x01", 5)), HasSubstr("byte fallback without"));
  EXPECT_THAT(spm_error(unknown + std::string("\x1A\x04\x12\x02\x01\x02", 6)), HasSubstr("normalisation rules"));
  EXPECT_THAT(spm_error(unknown + std::string("\x1A\x07\x12\x05\xFF\xFF\xFF\x7F\x01", 9)), HasSubstr("trie of"));
}

TEST(BadTokenizerJson, EveryTruncation) {
  const std::string whole = read_file(kData + "qwen2/tokenizer.json");
  for (std::size_t n = 0; n < whole.size(); n += n < 300 ? 1 : 501) {
    EXPECT_THAT(json_error(std::string_view(whole).substr(0, n)), HasSubstr("JSON")) << n;
  }
}

TEST(BadTokenizerJson, SaysWhatIsWrong) {
  EXPECT_THAT(json_error("[]"), HasSubstr("expected an object, found an array"));
  EXPECT_THAT(json_error("{}"), HasSubstr("'vocab'"));
  EXPECT_THAT(json_error(R"({"model":{"type":"WordPiece","vocab":{"a":0}}})"), HasSubstr("'WordPiece'"));
  EXPECT_THAT(json_error(R"({"model":{"type":"BPE","vocab":{"a":0}}})"), HasSubstr("without 'merges'"));
  EXPECT_THAT(json_error(R"({"model":{"type":"BPE","vocab":{},"merges":[]}})"), HasSubstr("empty"));
  EXPECT_THAT(json_error(R"({"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}})"), HasSubstr("id -1"));
  EXPECT_THAT(json_error(R"({"model":{"type":"BPE","vocab":{"a":4000000000},"merges":[]}})"), HasSubstr("outside"));
  EXPECT_THAT(json_error(R"({"model":{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}})"), HasSubstr("share the id 0"));
  EXPECT_THAT(json_error(R"({"model":{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}})"), HasSubstr("there twice"));
  EXPECT_THAT(json_error(R"({"model":{"type":"BPE","vocab":{"a":"x"},"merges":[]}})"),
              HasSubstr("expected an integer"));
  EXPECT_THAT(json_error(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a"]}})"), HasSubstr("not two parts"));
  EXPECT_THAT(json_error(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[["a","a","a"]]}})"), HasSubstr("3 parts"));
  EXPECT_THAT(json_error(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a a"]}})"), HasSubstr("not there"));
  EXPECT_THAT(json_error(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[],"end_of_word_suffix":"</w>"}})"),
              HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(json_error(R"({"model":{"type":"Unigram","unk_id":7,"vocab":[["a",0.0]]}})"), HasSubstr("unk_id 7"));
  EXPECT_THAT(json_error(R"({"model":{"type":"Unigram","vocab":[["a"]]}})"), HasSubstr("1 parts"));
  EXPECT_THAT(json_error(R"({"model":{"type":"Unigram","vocab":[["a",1e300]]}})"), HasSubstr("score"));
  EXPECT_THAT(
      json_error(
          R"({"added_tokens":[{"id":99999999,"content":"x"}],"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})"),
      HasSubstr("outside"));
  EXPECT_THAT(
      json_error(R"({"added_tokens":[{"id":0,"content":"x"}],"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})"),
      HasSubstr("share"));
}

// A byte-level file with one part replaced.
std::string with_part(std::string_view part) {
  return R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},"decoder":{"type":"ByteLevel"},)" +
         std::string(part) + "}";
}

TEST(BadTokenizerJson, PartsAroundTheModel) {
  const auto split = [](std::string_view regex) {
    return with_part(R"("pre_tokenizer":{"type":"Split","behavior":"Isolated","pattern":{"Regex":")" +
                     std::string(regex) + R"("}})");
  };
  EXPECT_THAT(json_error(split("(")), HasSubstr("does not compile"));
  EXPECT_THAT(json_error(split("(s*o*m*e*)*x")), ::testing::AnyOf(HasSubstr("match limit"), HasSubstr("nothing")));
  EXPECT_THAT(
      json_error(with_part(R"("pre_tokenizer":{"type":"Split","behavior":"MergedWithNext","pattern":{"Regex":"a"}})")),
      HasSubstr("MergedWithNext"));
  EXPECT_THAT(json_error(with_part(R"("pre_tokenizer":{"type":"Whitespace"})")), HasSubstr("'Whitespace'"));
  EXPECT_THAT(json_error(with_part(R"("normalizer":{"type":"BertNormalizer"})")), HasSubstr("'BertNormalizer'"));
  EXPECT_THAT(json_error(with_part(R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"!"})")),
              HasSubstr("base64"));
  EXPECT_THAT(json_error(with_part(R"("normalizer":{"type":"Replace","pattern":{"Regex":"["},"content":""})")),
              HasSubstr("unfinished class"));
  EXPECT_THAT(
      json_error(with_part(
          R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}],"special_tokens":{}})")),
      HasSubstr("'x'"));
  EXPECT_THAT(
      json_error(with_part(R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}],)"
                           R"("special_tokens":{"x":{"ids":[9]}}})")),
      HasSubstr("id 9"));
}

TEST(BadTokenizerJson, NonsenseMergesEnd) {
  // Each token made of the other's text: no merge can run forever, since each joins two symbols.
  const std::string file =
      R"({"model":{"type":"BPE","vocab":{"a":0,"aa":1,"aaa":2},"merges":["a a","aa a","a aa"]},"decoder":{"type":"ByteLevel"}})";
  EXPECT_EQ(make_tokenizer(parse_tokenizer_json(file))->encode("aaaa"), (std::vector<TokenId>{1, 1}));
}

TEST(BadVocabulary, ChecksLengthsAndIds) {
  Vocabulary v;
  EXPECT_THAT(message_of([&] { make_tokenizer(v); }), HasSubstr("empty"));
  v.tokens = {"<unk>", "a"};
  v.types = {TokenType::kUnknown};
  EXPECT_THAT(message_of([&] { make_tokenizer(v); }), HasSubstr("1 token types for 2 tokens"));
  v.types = {TokenType::kUnknown, TokenType::kNormal};
  v.scores = {0.0f};
  EXPECT_THAT(message_of([&] { make_tokenizer(v); }), HasSubstr("1 token scores"));
  v.scores = {0.0f, 0.0f};
  v.bos = 2;
  EXPECT_THAT(message_of([&] { make_tokenizer(v); }), HasSubstr("begin token id 2"));
  v.bos = -1;
  const auto tokenizer = make_tokenizer(v);
  EXPECT_THAT(message_of([&] { tokenizer->token_bytes(2); }), HasSubstr("outside the vocabulary"));
}

}  // namespace
}  // namespace nibble::token
