#include "token/tokenizer.h"

#include "base/error.h"
#include "token/byte_bpe.h"
#include "token/spm_tokenizer.h"
#include "token/utf8.h"

namespace nibble::token {

std::unique_ptr<Tokenizer> make_tokenizer(Vocabulary vocabulary) {
  switch (vocabulary.kind) {
    case TokenizerKind::kSpmBpe:
      return make_spm_bpe_tokenizer(std::move(vocabulary));
    case TokenizerKind::kSpmUnigram:
      return make_spm_unigram_tokenizer(std::move(vocabulary));
    case TokenizerKind::kByteBpe:
      return make_byte_bpe_tokenizer(std::move(vocabulary));
  }
  fail(ErrorCode::kInvalidArgument, "tokenizer kind {}", static_cast<int>(vocabulary.kind));
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool spell_special) const {
  StreamDecoder decoder(*this, spell_special);
  std::string text;
  for (TokenId id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

std::string StreamDecoder::push(TokenId id) {
  std::string bytes = tokenizer_.token_bytes(id, spell_special_);
  const Vocabulary& vocabulary = tokenizer_.vocabulary();
  const TokenType type = vocabulary.types[static_cast<std::size_t>(id)];
  const bool spm = vocabulary.kind != TokenizerKind::kByteBpe;
  if (first_ && spm && (type == TokenType::kNormal || type == TokenType::kUserDefined || type == TokenType::kUnused)) {
    // The dummy prefix goes; with extra white space removed, all white space before the first word does.
    const bool prefixed =
        (vocabulary.add_space_prefix || vocabulary.remove_extra_whitespaces) && bytes.starts_with(' ');
    if (prefixed) bytes.erase(0, 1);
    if (prefixed && !vocabulary.remove_extra_whitespaces) first_ = false;
  }
  if (!bytes.empty()) first_ = false;
  pending_ += bytes;
  return take(false);
}

std::string StreamDecoder::finish() { return take(true); }

// Moves what is complete out of pending_. Malformed bytes become U+FFFD: SentencePiece replaces each byte, the others
// each maximal subpart.
std::string StreamDecoder::take(bool all) {
  const bool byte_wise = tokenizer_.vocabulary().kind != TokenizerKind::kByteBpe;
  std::string text;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    std::size_t length = static_cast<std::size_t>(decode_utf8(rest).length);
    if (length > 0) {
      text += rest.substr(0, length);
    } else {
      bool incomplete;
      length = malformed_length(rest, incomplete);
      if (incomplete && !all) break;
      if (byte_wise) length = 1;
      text += kReplacementCharacter;
    }
    rest.remove_prefix(length);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return text;
}

}  // namespace nibble::token
