// SentencePiece tokenizers: what BPE and unigram share.
#pragma once

#include <array>
#include <memory>

#include "token/spm_normalizer.h"
#include "token/tables.h"
#include "token/text_tokenizer.h"

namespace nibble::token {

class SpmTokenizer : public TextTokenizer {
 public:
  std::string token_bytes(TokenId id, bool spell_special) const final;

 protected:
  // Throws Error{kFormat} on empty or repeated pieces and on missing byte tokens.
  explicit SpmTokenizer(Vocabulary vocabulary);
  void encode_text(std::string_view text, bool first, std::vector<TokenId>& ids) const final;
  // Ids of a normalised text, not empty.
  virtual void segment(std::string_view text, std::vector<TokenId>& ids) const = 0;

  TokenId piece_id(std::string_view piece) const;  // unk where there is none
  // Appends one piece: an unknown one as its bytes, or joined to the unknown one before it (`unknown_run`: there is
  // one).
  void append(std::string_view piece, TokenId id, bool& unknown_run, std::vector<TokenId>& ids) const;
  bool unused(TokenId id) const { return vocabulary_.types[static_cast<std::size_t>(id)] == TokenType::kUnused; }

  SpmNormalizer normalizer_;
  StringIndex pieces_;    // normal, user-defined and unused pieces
  StringIndex reserved_;  // the others

 private:
  void encode_word(std::string_view word, bool first, std::vector<TokenId>& ids) const;
  std::array<TokenId, 256> byte_ids_;
};

std::unique_ptr<Tokenizer> make_spm_bpe_tokenizer(Vocabulary vocabulary);
std::unique_ptr<Tokenizer> make_spm_unigram_tokenizer(Vocabulary vocabulary);

}  // namespace nibble::token
