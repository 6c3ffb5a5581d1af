// Vocabularies of whole folders: the small files beside the tokenizer, added tokens, streams.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <stdexcept>
#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "token/tokenizer.h"

namespace nibble::token {
namespace {

namespace fs = std::filesystem;

const fs::path kData = NIBBLE_SOURCE_DIR "/src/token/testdata";

class FolderTest : public ::testing::Test {
 protected:
  ~FolderTest() override { fs::remove_all(folder); }
  void use(std::string_view kind) { fs::copy(kData / kind, folder, fs::copy_options::recursive); }
  void write(std::string_view name, std::string_view content) { write_file_atomically(folder / name, content); }
  static fs::path make_folder() {
    std::string name = (fs::temp_directory_path() / "nibble-token-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    return name;
  }
  const fs::path folder = make_folder();
};

TEST_F(FolderTest, ConfigurationNamesTheEnds) {
  use("gpt2");
  write("tokenizer_config.json", R"({"eos_token":{"content":"<|im_end|>"},"pad_token":"<|endoftext|>","bos_token":null,
      "chat_template":[{"name":"tool","template":"no"},{"name":"default","template":"yes"}]})");
  write("generation_config.json", R"({"eos_token_id":[0,1],"bos_token_id":0})");
  Vocabulary v = load_vocabulary(folder);
  EXPECT_EQ(v.tokens[static_cast<std::size_t>(v.eos)], "<|im_end|>");
  EXPECT_EQ(v.eot, v.eos);
  EXPECT_EQ(v.pad, 0);
  EXPECT_EQ(v.bos, 0);
  EXPECT_FALSE(v.add_bos);
  EXPECT_EQ(v.ends, (std::vector<int>{0, 1}));
  EXPECT_EQ(v.chat_template, "yes");
  using Named = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(v.named_chat_templates, (Named{{"tool", "no"}}));
  write("chat_template.jinja", "mine");
  fs::create_directory(folder / "additional_chat_templates");
  write("additional_chat_templates/tool.jinja", "another");
  write("additional_chat_templates/rag.jinja", "third");
  v = load_vocabulary(folder);
  EXPECT_EQ(v.chat_template, "mine");
  EXPECT_EQ(v.named_chat_templates, (Named{{"rag", "third"}, {"tool", "another"}}));
}

TEST_F(FolderTest, PostProcessorAndConfigurationDecideOnBos) {
  use("llama3");
  Vocabulary v = load_vocabulary(folder);
  EXPECT_TRUE(v.add_bos);
  EXPECT_EQ(v.bos, 0);
  EXPECT_EQ(v.pre, "llama-bpe");
  EXPECT_TRUE(v.ignore_merges);
  write("tokenizer_config.json", R"({"add_bos_token":false})");
  EXPECT_FALSE(load_vocabulary(folder).add_bos);
  write("tokenizer_config.json", R"({"bos_token":"<|im_start|>"})");
  // The template's token is not the named one: both are kept.
  v = load_vocabulary(folder);
  EXPECT_EQ(v.prefix_ids, std::vector<int>{0});
  EXPECT_EQ(make_tokenizer(v)->encode("")[0], 0);
}

TEST_F(FolderTest, AddedTokensBesideASentencePieceModel) {
  use("spm-bpe");
  write(
      "tokenizer_config.json",
      R"({"added_tokens_decoder":{"602":{"content":"<|chat|>","special":true},"1":{"content":"<s>","special":true}}})");
  const auto tokenizer = make_tokenizer(load_vocabulary(folder));
  EXPECT_EQ(tokenizer->size(), 603);
  const auto ids = tokenizer->encode("a<|chat|>b", {.add_special = false});
  EXPECT_NE(std::find(ids.begin(), ids.end(), 602), ids.end());
  EXPECT_EQ(tokenizer->decode(ids, true), "a<|chat|> b");
  write("tokenizer_config.json", R"({"added_tokens_decoder":{"99999999":{"content":"x"}}})");
  EXPECT_THROW(load_vocabulary(folder), Error);
}

TEST_F(FolderTest, BrokenFilesAreNamed) {
  write("tokenizer.json", "{");
  try {
    load_vocabulary(folder);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("tokenizer.json': JSON"), std::string::npos) << error.what();
  }
}

TEST(AddedTokens, StripAndWordBounds) {
  const auto tokenizer = make_tokenizer(load_vocabulary(kData / "gpt2"));
  const auto spelled = [&](std::string_view text) {
    std::string out;
    for (TokenId id : tokenizer->encode(text)) out += "|" + tokenizer->token_bytes(id, true);
    return out;
  };
  EXPECT_EQ(spelled("a  <mask>  b"), "|a|<mask>|b");  // takes the spaces on both sides
  EXPECT_EQ(spelled("[INST]  b").substr(0, 9), "|[INST]|b");
  EXPECT_EQ(spelled("a word b").find("|word|") == std::string::npos, false);
  EXPECT_EQ(spelled("swords").find("|word"), std::string::npos);
}

TEST(StreamDecoder, KeepsCharactersWhole) {
  const auto tokenizer = make_tokenizer(load_vocabulary(kData / "spm-bpe"));
  const auto ids = tokenizer->encode("é👍🏽漢", {.add_special = false});
  StreamDecoder decoder(*tokenizer);
  std::vector<std::string> parts;
  for (TokenId id : ids) {
    std::string part = decoder.push(id);
    if (!part.empty()) parts.push_back(part);
  }
  EXPECT_EQ(decoder.finish(), "");
  EXPECT_EQ(parts, (std::vector<std::string>{"é", "👍", "🏽", "漢"}));
}

TEST(StreamDecoder, ReplacesWhatStaysIncomplete) {
  const auto tokenizer = make_tokenizer(load_vocabulary(kData / "gpt2"));
  auto ids = tokenizer->encode("x👍");
  ids.pop_back();
  StreamDecoder decoder(*tokenizer);
  std::string text;
  for (TokenId id : ids) text += decoder.push(id);
  EXPECT_EQ(text, "x");
  EXPECT_EQ(decoder.finish(), "\xEF\xBF\xBD");
}

}  // namespace
}  // namespace nibble::token
