#include "token/spm_tokenizer.h"

#include "base/error.h"
#include "token/unicode.h"
#include "token/utf8.h"

namespace nibble::token {

namespace {

// Byte of a "<0xNN>" token, -1 for anything else.
int byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

}  // namespace

SpmTokenizer::SpmTokenizer(Vocabulary source)
    : TextTokenizer(std::move(source)),
      normalizer_(vocabulary_),
      pieces_(vocabulary_.tokens),
      reserved_(vocabulary_.tokens) {
  byte_ids_.fill(-1);
  for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
    const std::string& token = vocabulary_.tokens[i];
    const TokenType type = vocabulary_.types[i];
    if (token.empty()) fail(ErrorCode::kFormat, "token {} is empty", i);
    const bool piece = type == TokenType::kNormal || type == TokenType::kUserDefined || type == TokenType::kUnused;
    if (!(piece ? pieces_ : reserved_).insert(i)) fail(ErrorCode::kFormat, "token {} '{}' is there twice", i, token);
    if (type != TokenType::kByte) continue;
    const int byte = byte_of(token);
    if (byte < 0) fail(ErrorCode::kFormat, "byte token {} is spelled '{}'", i, token);
    byte_ids_[static_cast<std::size_t>(byte)] = static_cast<TokenId>(i);
  }
  if (!vocabulary_.byte_fallback) return;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    if (byte_ids_[byte] < 0) fail(ErrorCode::kFormat, "byte fallback without a token for byte {:#04x}", byte);
  }
}

std::string SpmTokenizer::token_bytes(TokenId id, bool spell_special) const {
  if (id < 0 || id >= size())
    fail(ErrorCode::kInvalidArgument, "token id {} is outside the vocabulary of {}", id, size());
  const std::string& token = spelling(id);
  switch (vocabulary_.types[static_cast<std::size_t>(id)]) {
    case TokenType::kControl:
      return spell_special ? token : std::string();
    case TokenType::kUnknown:
      return spell_special ? token : vocabulary_.unknown_text;
    case TokenType::kByte:
      return std::string(1, static_cast<char>(byte_of(token)));
    default:
      break;
  }
  std::string bytes;
  for (std::size_t i = 0; i < token.size();) {
    if (std::string_view(token).substr(i).starts_with(kSpaceSymbol)) {
      bytes += ' ';
      i += kSpaceSymbol.size();
    } else {
      bytes += token[i++];
    }
  }
  return bytes;
}

void SpmTokenizer::encode_text(std::string_view text, bool first, std::vector<TokenId>& ids) const {
  if (!vocabulary_.huggingface) {
    const std::string normal = normalizer_.normalize(text, true);
    if (!normal.empty()) segment(normal, ids);
    return;
  }
  if (!vocabulary_.words.drop_white_space) {
    encode_word(text, first, ids);
    return;
  }
  for (bool at_start = first; !text.empty(); at_start = false) {
    const std::size_t space = leading_space(text);
    at_start = at_start && space == 0;
    text.remove_prefix(space);
    std::size_t length = 0;
    while (length < text.size() && leading_space(text.substr(length)) == 0)
      length += announced_length(text.substr(length));
    if (length > 0) encode_word(text.substr(0, length), at_start, ids);
    text.remove_prefix(length);
  }
}

// The Metaspace pre-tokenizer.
void SpmTokenizer::encode_word(std::string_view word, bool first, std::vector<TokenId>& ids) const {
  const WordRule& rule = vocabulary_.words;
  if (!rule.metaspace) {
    segment(word, ids);
    return;
  }
  std::string text;
  for (char c : word) {
    if (c == ' ') {
      text += kSpaceSymbol;
    } else {
      text += c;
    }
  }
  const bool prefix = rule.prefix == WordRule::Prefix::kAlways || (rule.prefix == WordRule::Prefix::kFirst && first);
  if (prefix && !text.starts_with(kSpaceSymbol)) text.insert(0, kSpaceSymbol);
  std::size_t begin = 0;
  while (begin < text.size()) {
    std::size_t end = rule.split ? text.find(kSpaceSymbol, begin + 1) : std::string::npos;
    end = std::min(end, text.size());
    segment(std::string_view(text).substr(begin, end - begin), ids);
    begin = end;
  }
}

TokenId SpmTokenizer::piece_id(std::string_view piece) const {
  const int reserved = reserved_.find(piece);
  if (reserved >= 0) return reserved;
  const int id = pieces_.find(piece);
  return id >= 0 ? id : vocabulary_.unk;
}

void SpmTokenizer::append(std::string_view piece, TokenId id, bool& unknown_run, std::vector<TokenId>& ids) const {
  const bool unknown = id < 0 || id == vocabulary_.unk;
  if (!unknown) {
    ids.push_back(id);
  } else if (vocabulary_.byte_fallback) {
    for (char c : piece) ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
  } else if (id >= 0 && !(unknown_run && vocabulary_.fuse_unknown)) {
    ids.push_back(id);
  }
  unknown_run = unknown;
}

}  // namespace nibble::token
