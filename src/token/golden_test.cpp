// Every kind of tokenizer against what sentencepiece and tokenizers make of the same files
// (dev/golden/tokenizer_kinds.py).
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/format.h"
#include "json/json.h"
#include "token/pre_tokenizer.h"
#include "token/tokenizer.h"

namespace nibble::token {
namespace {

const std::filesystem::path kData = NIBBLE_SOURCE_DIR "/src/token/testdata";

std::uint64_t fnv(std::string_view bytes) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

std::string hex(std::uint64_t value) { return format_text("{:016x}", value); }

std::uint64_t fnv(const std::vector<TokenId>& ids) {
  return fnv(std::string_view(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(ids[0])));
}

const json::Value& golden() {
  static const json::Value file = json::parse_file(kData / "golden.json");
  return file;
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& [name, value] : golden().as_object()) all.push_back(name);
  return all;
}

class GoldenTokenizer : public ::testing::TestWithParam<std::string> {
 protected:
  // SentencePiece's library adds and parses nothing; the other one does what the file says.
  void SetUp() override {
    const std::filesystem::path folder = kData / GetParam();
    const bool spm = std::filesystem::exists(folder / "tokenizer.model");
    options = {.add_special = !spm, .parse_special = !spm};
    tokenizer = make_tokenizer(load_vocabulary(folder));
    for (const json::Value& id : golden().at(GetParam()).at("torture").as_array())
      torture_ids.push_back(static_cast<TokenId>(id.as_int()));
  }
  EncodeOptions options;
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<TokenId> torture_ids;
};

TEST_P(GoldenTokenizer, EncodesTheTortureText) {
  EXPECT_EQ(tokenizer->encode(read_file(kData / "torture.txt"), options), torture_ids);
}

TEST_P(GoldenTokenizer, EncodesWikiText) {
  const auto ids = tokenizer->encode(read_file(kData / "wikitext2-part.txt"), options);
  EXPECT_EQ(static_cast<std::int64_t>(ids.size()), golden().at(GetParam()).at("wikitext2_count").as_int());
  EXPECT_EQ(hex(fnv(ids)), golden().at(GetParam()).at("wikitext2_fnv").as_string());
}

TEST_P(GoldenTokenizer, DecodesTheTortureText) {
  const std::string text = tokenizer->decode(torture_ids);
  EXPECT_EQ(hex(fnv(text)), golden().at(GetParam()).at("decoded_fnv").as_string()) << text;
}

TEST_P(GoldenTokenizer, StreamsWhatItDecodes) {
  StreamDecoder decoder(*tokenizer);
  std::string text;
  for (TokenId id : torture_ids) {
    const std::string part = decoder.push(id);
    text += part;
    // Never part of a character: what came so far decodes to itself.
    ASSERT_EQ(json::dump(json::parse(json::dump(json::Value(part)))), json::dump(json::Value(part)));
  }
  EXPECT_EQ(text + decoder.finish(), tokenizer->decode(torture_ids));
}

// A GGUF header has no room for a tokenizer.json's own rules; ordinary text must come out the same without them.
TEST_P(GoldenTokenizer, EncodesAlikeFromWhatAGgufHeaderKeeps) {
  const Vocabulary& whole = tokenizer->vocabulary();
  Vocabulary kept = whole;
  kept.huggingface = false;
  kept.normalizer.clear();
  kept.words = {};
  kept.added.clear();
  kept.unknown_text = Vocabulary().unknown_text;
  if (kept.kind != TokenizerKind::kByteBpe) kept.merges.clear();
  if (kept.kind == TokenizerKind::kByteBpe) {
    kept.split_patterns = find_pre_tokenizer(whole.pre)->patterns;
    kept.ignore_merges = find_pre_tokenizer(whole.pre)->ignore_merges;
  }
  const std::string text = read_file(kData / "wikitext2-part.txt");
  EXPECT_EQ(make_tokenizer(kept)->encode(text, options), tokenizer->encode(text, options));
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoldenTokenizer, ::testing::ValuesIn(names()), [](const auto& kind) {
  std::string name = kind.param;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
});

}  // namespace
}  // namespace nibble::token
