#include "container/gguf/vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

#include "container/test_files.h"
#include "token/tokenizer.h"

namespace nibble::container::gguf {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using token::TokenizerKind;
using token::TokenType;
using token::Vocabulary;

// The fields that GGUF carries.
void expect_same(const Vocabulary& a, const Vocabulary& b) {
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.scores, b.scores);
  EXPECT_EQ(a.types, b.types);
  EXPECT_EQ(a.merges, b.merges);
  EXPECT_EQ(a.pre, b.pre);
  EXPECT_EQ(a.byte_fallback, b.byte_fallback);
  EXPECT_EQ(a.add_space_prefix, b.add_space_prefix);
  EXPECT_EQ(a.remove_extra_whitespaces, b.remove_extra_whitespaces);
  EXPECT_EQ(a.precompiled_charsmap, b.precompiled_charsmap);
  EXPECT_EQ(a.bos, b.bos);
  EXPECT_EQ(a.eos, b.eos);
  EXPECT_EQ(a.unk, b.unk);
  EXPECT_EQ(a.pad, b.pad);
  EXPECT_EQ(a.eot, b.eot);
  EXPECT_EQ(a.add_bos, b.add_bos);
  EXPECT_EQ(a.add_eos, b.add_eos);
  EXPECT_EQ(a.chat_template, b.chat_template);
  EXPECT_EQ(a.named_chat_templates, b.named_chat_templates);
}

Vocabulary byte_bpe() {
  Vocabulary v;
  v.kind = TokenizerKind::kByteBpe;
  v.tokens = {"a",
              "b",
              "\xC4\xA0",
              "ab",
              "\xC4\xA0"
              "ab",
              "<|end|>",
              "<|pad|>"};
  v.types = {TokenType::kNormal, TokenType::kNormal,  TokenType::kNormal,     TokenType::kNormal,
             TokenType::kNormal, TokenType::kControl, TokenType::kUserDefined};
  v.merges = {{"a", "b"}, {"\xC4\xA0", "ab"}};
  v.pre = "qwen2";
  v.bos = v.eos = 5;
  v.eot = 5;
  v.pad = 6;
  v.chat_template = "{{ messages }}";
  v.named_chat_templates = {{"rag", "{{ documents }}"}, {"tool_use", "{{ tools }}"}};
  return v;
}

Metadata minimal(std::string model) {
  Metadata m;
  m.set("tokenizer.ggml.model", std::move(model));
  m.set("tokenizer.ggml.tokens", MetaArray{std::vector<std::string>{"a", "b", "c"}});
  m.set("tokenizer.ggml.merges", MetaArray{std::vector<std::string>{"a b"}});
  return m;
}

TEST(GgufVocabulary, SentencePieceBpeRoundTrip) {
  const Vocabulary v = token::load_vocabulary(std::filesystem::path(NIBBLE_SOURCE_DIR) / "models/books-7m");
  ASSERT_EQ(v.tokens.size(), 4096u);
  Metadata m;
  write_vocabulary(v, m);
  EXPECT_EQ(m.get_string("tokenizer.ggml.model"), "llama");
  EXPECT_EQ(m.get_string("tokenizer.ggml.pre"), "default");
  EXPECT_EQ(std::get<std::uint32_t>(*m.find("tokenizer.ggml.bos_token_id")), 1u);
  EXPECT_EQ(std::get<MetaArray>(*m.find("tokenizer.ggml.token_type")).items.index(), 5u);  // i32
  EXPECT_EQ(m.get_strings("tokenizer.ggml.tokens")[3], "<0x00>");
  expect_same(read_vocabulary(m), v);
}

TEST(GgufVocabulary, SentencePieceUnigramRoundTrip) {
  Vocabulary v;
  v.kind = TokenizerKind::kSpmUnigram;
  v.tokens = {"<pad>", "</s>", "<unk>", "\xE2\x96\x81the", "\xE2\x96\x81\xE2\x96\x81"};
  v.scores = {0, 0, 0, -1.5f, -2};
  v.types = {TokenType::kControl, TokenType::kControl, TokenType::kUnknown, TokenType::kNormal,
             TokenType::kUserDefined};
  v.pre = "default";
  v.eos = 1;
  v.unk = 2;
  v.pad = 0;
  v.add_eos = true;
  v.add_space_prefix = true;
  v.remove_extra_whitespaces = true;
  v.precompiled_charsmap = std::string("\x04\0\0\0\xFF\x80zz", 8);
  Metadata m;
  write_vocabulary(v, m);
  // User-defined tokens have their spaces as spaces, the others as U+2581.
  EXPECT_EQ(m.get_strings("tokenizer.ggml.tokens")[3], "\xE2\x96\x81the");
  EXPECT_EQ(m.get_strings("tokenizer.ggml.tokens")[4], "  ");
  expect_same(read_vocabulary(m), v);
}

TEST(GgufVocabulary, ByteLevelBpeRoundTrip) {
  const Vocabulary v = byte_bpe();
  Metadata m;
  write_vocabulary(v, m);
  EXPECT_THAT(m.get_strings("tokenizer.ggml.merges"), ElementsAre("a b", "\xC4\xA0 ab"));
  EXPECT_FALSE(m.contains("tokenizer.ggml.scores"));
  EXPECT_FALSE(m.contains("tokenizer.ggml.unknown_token_id"));
  const Vocabulary again = read_vocabulary(m);
  expect_same(again, v);
  EXPECT_FALSE(again.split_patterns.empty());
  EXPECT_FALSE(again.ignore_merges);
  m.erase("tokenizer.ggml.add_bos_token");
  EXPECT_FALSE(read_vocabulary(m).add_bos);
  m.set("tokenizer.ggml.pre", std::string("llama-bpe"));
  EXPECT_TRUE(read_vocabulary(m).ignore_merges);
  EXPECT_TRUE(read_vocabulary(m).add_bos);
  m.set("tokenizer.ggml.pre", std::string("no-such-pre"));
  EXPECT_THAT(error_of([&] { read_vocabulary(m); }), HasSubstr("the pre-tokenizer 'no-such-pre' is unknown"));
}

void expect_same_ids(std::string_view folder, std::string_view text_file) {
  const auto testdata = std::filesystem::path(NIBBLE_SOURCE_DIR) / "src/token/testdata";
  const Vocabulary source = token::load_vocabulary(testdata / folder);
  Metadata m;
  write_vocabulary(source, m);
  const std::string text = read_file(testdata / text_file);
  EXPECT_EQ(token::make_tokenizer(read_vocabulary(m))->encode(text), token::make_tokenizer(source)->encode(text))
      << folder;
}

// The tokenizer in a GGUF header gives the ids of the folder it came from, on any bytes for SentencePiece models and on
// plain text for a tokenizer.json: GGUF has no words for Unicode normalisation and for white space that added tokens
// take along.
TEST(GgufVocabulary, GivesTheIdsOfItsFolder) {
  for (const char* folder : {"spm-bpe", "spm-bpe-rules", "spm-unigram", "spm-unigram-bytes"})
    expect_same_ids(folder, "torture.txt");
  for (const char* folder : {"bloom", "deepseek", "gemma-json", "gpt2", "gpt2-prefix", "llama2-json", "llama3", "qwen2",
                             "starcoder", "tekken"}) {
    expect_same_ids(folder, "wikitext2-part.txt");
  }
}

TEST(GgufVocabulary, AsManyTokensAsRows) {
  Metadata m;
  write_vocabulary(byte_bpe(), m, 9);
  Vocabulary v = read_vocabulary(m);
  ASSERT_EQ(v.tokens.size(), 9u);
  EXPECT_EQ(v.tokens[8], "[PAD8]");
  EXPECT_EQ(v.types[8], TokenType::kUnused);
  write_vocabulary(byte_bpe(), m, 6);
  v = read_vocabulary(m);
  EXPECT_EQ(v.tokens.size(), 6u);
  EXPECT_EQ(v.eos, 5);
  EXPECT_EQ(v.pad, -1);  // was token 6
  write_vocabulary(token::load_vocabulary(std::filesystem::path(NIBBLE_SOURCE_DIR) / "models/books-7m"), m, 4100);
  EXPECT_EQ(read_vocabulary(m).scores[4099], -10000.0f);
}

TEST(GgufVocabulary, WritingReplacesWhatWasThere) {
  Vocabulary v = byte_bpe();
  Metadata m;
  write_vocabulary(v, m);
  const std::size_t n_keys = m.entries().size();
  v.pad = -1;
  v.chat_template.clear();
  v.named_chat_templates.clear();
  write_vocabulary(v, m);
  EXPECT_EQ(m.entries().size(), n_keys - 5);  // the names of the templates, too
  expect_same(read_vocabulary(m), v);
  write_vocabulary(token::load_vocabulary(std::filesystem::path(NIBBLE_SOURCE_DIR) / "models/books-7m"), m);
  EXPECT_FALSE(m.contains("tokenizer.ggml.merges"));
}

TEST(GgufVocabulary, DefaultsOfEachKind) {
  const Vocabulary spm = read_vocabulary(minimal("llama"));
  EXPECT_EQ(spm.kind, TokenizerKind::kSpmBpe);
  EXPECT_THAT(spm.scores, ElementsAre(0, 0, 0));
  EXPECT_THAT(spm.types, testing::Each(TokenType::kNormal));
  EXPECT_EQ(spm.pre, "default");
  EXPECT_EQ(spm.bos, 1);
  EXPECT_EQ(spm.eos, 2);
  EXPECT_EQ(spm.unk, 0);
  EXPECT_TRUE(spm.add_bos);
  EXPECT_TRUE(spm.add_space_prefix);
  EXPECT_FALSE(spm.byte_fallback);
  const Vocabulary t5 = read_vocabulary(minimal("t5"));
  EXPECT_EQ(t5.kind, TokenizerKind::kSpmUnigram);
  EXPECT_EQ(t5.bos, -1);
  EXPECT_TRUE(t5.add_eos);
  const Vocabulary bpe = read_vocabulary(minimal("gpt2"));
  EXPECT_EQ(bpe.bos, -1);  // 11 by default, which this vocabulary does not have
  EXPECT_FALSE(bpe.add_space_prefix);
  EXPECT_TRUE(bpe.scores.empty());
  EXPECT_EQ(bpe.merges.front(), (std::pair<std::string, std::string>("a", "b")));
}

TEST(GgufVocabulary, SpecialIdsThatAreNoTokens) {
  Metadata m = minimal("llama");
  m.set("tokenizer.ggml.padding_token_id", ~std::uint32_t{0});
  m.set("tokenizer.ggml.eos_token_id", std::uint32_t{3});
  EXPECT_EQ(read_vocabulary(m).pad, -1);
  EXPECT_EQ(read_vocabulary(m).eos, -1);
  m.set("tokenizer.ggml.tokens", MetaArray{std::vector<std::string>{"a", "<|im_end|>"}});
  EXPECT_EQ(read_vocabulary(m).eot, 1);
}

TEST(GgufVocabulary, APreTokenizerWithoutANameIsNotWritten) {
  Vocabulary v = byte_bpe();
  v.pre.clear();
  Metadata m;
  EXPECT_THAT(error_of([&] { write_vocabulary(v, m); }), HasSubstr("no name for the pre-tokenizer"));
  EXPECT_TRUE(m.entries().empty());
}

TEST(GgufVocabulary, BadInput) {
  const auto error = [](const Metadata& m) { return error_of([&] { read_vocabulary(m); }); };
  EXPECT_THAT(error({}), HasSubstr("has no vocabulary"));
  EXPECT_THAT(error(minimal("no_vocab")), HasSubstr("has no vocabulary"));
  EXPECT_THAT(error(minimal("bert")), HasSubstr("tokenizers of kind 'bert' are not supported"));
  Metadata m = minimal("gpt2");
  m.erase("tokenizer.ggml.merges");
  EXPECT_THAT(error(m), HasSubstr("tokenizer.ggml.merges"));
  for (const char* merge : {"", "ab", " ab"}) {
    m.set("tokenizer.ggml.merges", MetaArray{std::vector<std::string>{"a b", merge}});
    EXPECT_THAT(error(m), HasSubstr("merge 1 is"));
  }
  m = minimal("llama");
  m.set("tokenizer.ggml.scores", MetaArray{std::vector<float>{1, 2}});
  EXPECT_THAT(error(m), HasSubstr("'tokenizer.ggml.scores' has 2 elements, 'tokenizer.ggml.tokens' has 3"));
  m = minimal("llama");
  m.set("tokenizer.ggml.token_type", MetaArray{std::vector<std::int32_t>{1, 7, 1}});
  EXPECT_THAT(error(m), HasSubstr("token 1 has the unknown type 7"));
  m.set("tokenizer.ggml.tokens", MetaArray{std::vector<std::string>{}});
  EXPECT_THAT(error(m), HasSubstr("is empty"));
  m.set("tokenizer.ggml.tokens", std::string("a"));
  EXPECT_THAT(error(m), HasSubstr("not an array of strings"));
}

// As large as Llama 3's: 128k tokens, 280k merges. The best of some runs, since the machine may be busy.
TEST(GgufVocabularySlow, ALargeVocabularyOpensWithin100Ms) {
  Vocabulary v = byte_bpe();
  for (int i = 0; i < 128000; ++i) v.tokens.push_back("token-number-" + std::to_string(i));
  v.types.resize(v.tokens.size(), TokenType::kNormal);
  for (int i = 0; i < 280000; ++i) v.merges.emplace_back("token-" + std::to_string(i), "number-" + std::to_string(i));
  Metadata metadata;
  write_vocabulary(v, metadata);
  const TempFolder folder;
  create_gguf(folder / "m.gguf", metadata, {})->commit();
  double open_ms = 1e9;
  double read_ms = 1e9;
  for (int run = 0; run < 5; ++run) {
    const auto start = std::chrono::steady_clock::now();
    const auto reader = container::open(folder / "m.gguf");
    const auto opened = std::chrono::steady_clock::now();
    EXPECT_EQ(read_vocabulary(reader->metadata()).merges.size(), v.merges.size());
    const auto done = std::chrono::steady_clock::now();
    open_ms = std::min(open_ms, std::chrono::duration<double, std::milli>(opened - start).count());
    read_ms = std::min(read_ms, std::chrono::duration<double, std::milli>(done - opened).count());
  }
  RecordProperty("open_ms", std::to_string(open_ms));
  RecordProperty("read_vocabulary_ms", std::to_string(read_ms));
  EXPECT_LT(open_ms, 100);
  EXPECT_LT(read_ms, 100);
}

}  // namespace
}  // namespace nibble::container::gguf
