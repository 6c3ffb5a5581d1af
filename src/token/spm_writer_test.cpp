#include "token/spm_writer.h"

#include <gtest/gtest.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "token/spm_model.h"

namespace nibble::token {
namespace {

TEST(SpmWriter, ReadsBackAsTheSameVocabulary) {
  const std::string bytes = read_file(std::string(NIBBLE_SOURCE_DIR) + "/models/books-7m/tokenizer.model");
  const Vocabulary original = parse_spm_model(bytes);
  const Vocabulary copy = parse_spm_model(write_spm_model(original));
  EXPECT_EQ(copy.kind, original.kind);
  EXPECT_EQ(copy.tokens, original.tokens);
  EXPECT_EQ(copy.scores, original.scores);
  EXPECT_EQ(copy.types, original.types);
  EXPECT_EQ(copy.byte_fallback, original.byte_fallback);
  EXPECT_EQ(copy.add_space_prefix, original.add_space_prefix);
  EXPECT_EQ(copy.remove_extra_whitespaces, original.remove_extra_whitespaces);
  EXPECT_EQ(copy.precompiled_charsmap, original.precompiled_charsmap);
  EXPECT_EQ(copy.unknown_text, original.unknown_text);
  EXPECT_EQ(copy.bos, original.bos);
  EXPECT_EQ(copy.eos, original.eos);
  EXPECT_EQ(copy.unk, original.unk);
  EXPECT_EQ(copy.pad, original.pad);
}

TEST(SpmWriter, RefusesByteLevelBpe) {
  Vocabulary vocabulary;
  vocabulary.kind = TokenizerKind::kByteBpe;
  EXPECT_THROW(write_spm_model(vocabulary), Error);
}

}  // namespace
}  // namespace nibble::token
