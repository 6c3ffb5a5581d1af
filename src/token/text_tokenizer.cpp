#include "token/text_tokenizer.h"

#include "base/error.h"
#include "token/utf8.h"

namespace nibble::token {

namespace {

Vocabulary checked(Vocabulary v) {
  const std::size_t size = v.tokens.size();
  if (size == 0) fail(ErrorCode::kFormat, "the vocabulary is empty");
  if (size > 0x1000000) fail(ErrorCode::kFormat, "a vocabulary of {} tokens", size);
  if (v.types.empty()) v.types.assign(size, TokenType::kNormal);
  if (v.types.size() != size) fail(ErrorCode::kFormat, "{} token types for {} tokens", v.types.size(), size);
  if (v.scores.empty()) v.scores.assign(size, 0.0f);
  if (v.scores.size() != size) fail(ErrorCode::kFormat, "{} token scores for {} tokens", v.scores.size(), size);
  const auto check = [&](int id, std::string_view what, int lowest) {
    if (id < lowest || id >= static_cast<int>(size))
      fail(ErrorCode::kFormat, "{} token id {} is outside the vocabulary of {}", what, id, size);
  };
  check(v.bos, "begin", -1);
  check(v.eos, "end", -1);
  check(v.unk, "unknown", -1);
  check(v.pad, "padding", -1);
  check(v.eot, "end-of-turn", -1);
  for (const AddedToken& token : v.added) check(token.id, "added", 0);
  for (int id : v.prefix_ids) check(id, "prefix", 0);
  for (int id : v.suffix_ids) check(id, "suffix", 0);
  return v;
}

}  // namespace

TextTokenizer::TextTokenizer(Vocabulary vocabulary)
    : vocabulary_(checked(std::move(vocabulary))),
      normalizer_(vocabulary_.normalizer),
      added_(vocabulary_),
      normalized_added_(vocabulary_, normalizer_) {
  for (const AddedToken& token : vocabulary_.added) {
    if (token.normalized && !normalizer_.empty())
      respelled_[token.id] = normalizer_.apply(vocabulary_.tokens[static_cast<std::size_t>(token.id)]);
  }
  before_.assign(vocabulary_.prefix_ids.begin(), vocabulary_.prefix_ids.end());
  after_.assign(vocabulary_.suffix_ids.begin(), vocabulary_.suffix_ids.end());
  if (before_.empty() && vocabulary_.add_bos && vocabulary_.bos >= 0) before_.push_back(vocabulary_.bos);
  if (after_.empty() && vocabulary_.add_eos && vocabulary_.eos >= 0) after_.push_back(vocabulary_.eos);
}

const std::string& TextTokenizer::spelling(TokenId id) const {
  const auto found = respelled_.find(id);
  return found == respelled_.end() ? vocabulary_.tokens[static_cast<std::size_t>(id)] : found->second;
}

std::vector<TokenId> TextTokenizer::encode(std::string_view text, EncodeOptions options) const {
  if (text.size() > 0x20000000)
    fail(ErrorCode::kInvalidArgument, "text of {} bytes: at most 512 MiB at once", text.size());
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3 + 8);
  if (options.add_special) ids = before_;
  // SentencePiece has its own way with malformed bytes; elsewhere only valid text reaches the tokenizer.
  std::string valid;
  if ((vocabulary_.kind == TokenizerKind::kByteBpe || vocabulary_.huggingface) && !is_valid_utf8(text))
    text = valid = replace_malformed(text);
  bool first = true;
  for (const Segment& outer : added_.split(text, options.parse_special)) {
    if (outer.id >= 0) {
      ids.push_back(outer.id);
      first = false;
      continue;
    }
    const std::string normal = normalizer_.empty() ? std::string() : normalizer_.apply(outer.text);
    for (const Segment& segment :
         normalized_added_.split(normalizer_.empty() ? outer.text : normal, options.parse_special)) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
      } else {
        encode_text(segment.text, first, ids);
      }
      first = false;
    }
  }
  if (options.add_special) ids.insert(ids.end(), after_.begin(), after_.end());
  return ids;
}

}  // namespace nibble::token
