#include "token/added_tokens.h"

#include "token/unicode.h"
#include "token/utf8.h"

namespace nibble::token {

namespace {

const std::string& text_of(const Vocabulary& vocabulary, const AddedToken& token) {
  return vocabulary.tokens[static_cast<std::size_t>(token.id)];
}

}  // namespace

AddedTokens::AddedTokens(const Vocabulary& vocabulary) {
  for (const AddedToken& token : vocabulary.added) {
    if (!token.normalized) add(text_of(vocabulary, token), token);
  }
  if (!vocabulary.added.empty()) return;
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const TokenType type = vocabulary.types[i];
    const bool special = type == TokenType::kControl || type == TokenType::kUnknown;
    const bool user =
        type == TokenType::kUserDefined && (vocabulary.kind == TokenizerKind::kByteBpe || vocabulary.huggingface);
    if (special || user) add(vocabulary.tokens[i], {.id = static_cast<int>(i), .special = special});
  }
}

AddedTokens::AddedTokens(const Vocabulary& vocabulary, const TextNormalizer& normalizer) {
  for (const AddedToken& token : vocabulary.added) {
    if (token.normalized) add(normalizer.apply(text_of(vocabulary, token)), token);
  }
}

void AddedTokens::add(std::string_view text, const AddedToken& token) {
  if (text.empty()) return;
  trie_.insert(text, static_cast<int>(tokens_.size()));
  tokens_.push_back(token);
  first_byte_[static_cast<unsigned char>(text[0])] = true;
}

// The longest token that begins at `at`.
const AddedToken* AddedTokens::match(std::string_view text, std::size_t at, bool parse_special,
                                     std::size_t& length) const {
  const AddedToken* best = nullptr;
  ByteTrie::Node node = ByteTrie::kRoot;
  for (std::size_t i = at; i < text.size(); ++i) {
    node = trie_.step(node, text[i]);
    if (node == ByteTrie::kNone) break;
    const int value = trie_.value(node);
    if (value < 0) continue;
    const AddedToken& token = tokens_[static_cast<std::size_t>(value)];
    if (token.special && !parse_special) continue;
    best = &token;
    length = i + 1 - at;
  }
  return best;
}

std::vector<Segment> AddedTokens::split(std::string_view text, bool parse_special) const {
  std::vector<Segment> segments;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size() && !tokens_.empty();) {
    std::size_t length = 0;
    const AddedToken* token = nullptr;
    if (first_byte_[static_cast<unsigned char>(text[at])]) token = match(text, at, parse_special, length);
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    std::size_t end = at + length;
    at = end;
    if (token->single_word && (ends_with_word(text.substr(0, begin)) || begins_with_word(text.substr(end)))) continue;
    if (token->lstrip) begin = std::max(done, begin - trailing_space(text.substr(0, begin)));
    if (token->rstrip) end += leading_space(text.substr(end));
    if (begin > done) segments.push_back({text.substr(done, begin - done), -1});
    segments.push_back({text.substr(begin, end - begin), token->id});
    done = end;
    at = std::max(at, done);
  }
  if (done < text.size()) segments.push_back({text.substr(done), -1});
  return segments;
}

}  // namespace nibble::token
