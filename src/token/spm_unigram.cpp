#include <algorithm>
#include <cfloat>
#include <type_traits>

#include "token/spm_tokenizer.h"
#include "token/utf8.h"

namespace nibble::token {

namespace {

constexpr float kUnknownPenalty = 10.0f;

// Below this the scores of a long text are counted anew from 0, as sentencepiece 0.2.3 does: a float has few digits.
constexpr float kLowestScore = -100000.0f;

// Best segmentation under independent pieces: for each end, the best piece ending there. Sums are made in the
// reference's order and type (float in sentencepiece, double in tokenizers), since their rounding decides between
// equals.
template <typename Sum>
class SpmUnigramTokenizer final : public SpmTokenizer {
 public:
  explicit SpmUnigramTokenizer(Vocabulary source) : SpmTokenizer(std::move(source)) {
    float smallest = FLT_MAX;
    for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
      const TokenType type = vocabulary_.types[i];
      if (type == TokenType::kNormal) {
        smallest = std::min(smallest, vocabulary_.scores[i]);
        largest_ = std::max(largest_, vocabulary_.scores[i]);
      }
      longest_ = std::max(longest_, vocabulary_.tokens[i].size());
      if (type == TokenType::kNormal || type == TokenType::kUserDefined)
        trie_.insert(vocabulary_.tokens[i], static_cast<int>(i));
    }
    unknown_score_ = static_cast<Sum>(smallest) - static_cast<Sum>(kUnknownPenalty);
  }

 private:
  struct Best {
    TokenId id = -1;
    Sum score = 0;
    std::int32_t begin = -1;  // -1: nothing ends here
  };

  static void offer(Best& best, Sum score, TokenId id, std::size_t begin) {
    if (best.begin < 0 || score > best.score) best = {id, score, static_cast<std::int32_t>(begin)};
  }

  // All pieces that begin at `begin`.
  void offer_pieces(std::string_view text, std::size_t begin, std::vector<Best>& best) const {
    const Sum until_here = best[begin].score;
    const std::size_t one = announced_length(text.substr(begin));
    bool whole_character = false;
    ByteTrie::Node node = ByteTrie::kRoot;
    for (std::size_t end = begin; end < text.size();) {
      node = trie_.step(node, text[end++]);
      if (node == ByteTrie::kNone) break;
      const int id = trie_.value(node);
      if (id < 0) continue;
      const std::size_t length = end - begin;
      const bool user_defined =
          !vocabulary_.huggingface && vocabulary_.types[static_cast<std::size_t>(id)] == TokenType::kUserDefined;
      const float score = user_defined
                              ? static_cast<float>(static_cast<double>(static_cast<float>(length) * largest_) - 0.1)
                              : vocabulary_.scores[static_cast<std::size_t>(id)];
      offer(best[end], static_cast<Sum>(score) + until_here, id, begin);
      whole_character = whole_character || length == one;
    }
    if (!whole_character) offer(best[begin + one], unknown_score_ + until_here, vocabulary_.unk, begin);
  }

  void segment(std::string_view text, std::vector<TokenId>& ids) const override {
    std::vector<Best> best(text.size() + 1);
    for (std::size_t begin = 0; begin < text.size(); begin += announced_length(text.substr(begin))) {
      if (std::is_same_v<Sum, float> && best[begin].score < kLowestScore) {
        const Sum offset = best[begin].score;
        const std::size_t end = std::min(text.size(), begin + longest_);
        for (std::size_t i = begin; i <= end; ++i) best[i].score -= best[i].begin >= 0 ? offset : Sum{0};
      }
      offer_pieces(text, begin, best);
    }
    std::vector<std::size_t> ends;
    for (std::size_t end = text.size(); end > 0; end = static_cast<std::size_t>(best[end].begin)) ends.push_back(end);
    bool unknown_run = false;
    for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
      const Best& piece = best[*end];
      const auto begin = static_cast<std::size_t>(piece.begin);
      append(text.substr(begin, *end - begin), piece.id, unknown_run, ids);
    }
  }

  ByteTrie trie_;
  std::size_t longest_ = 4;
  float largest_ = FLT_MIN;
  Sum unknown_score_ = 0;
};

}  // namespace

std::unique_ptr<Tokenizer> make_spm_unigram_tokenizer(Vocabulary vocabulary) {
  if (vocabulary.huggingface) return std::make_unique<SpmUnigramTokenizer<double>>(std::move(vocabulary));
  return std::make_unique<SpmUnigramTokenizer<float>>(std::move(vocabulary));
}

}  // namespace nibble::token
