#include <bit>
#include <map>

#include "base/error.h"
#include "token/merge.h"
#include "token/spm_tokenizer.h"
#include "token/utf8.h"

namespace nibble::token {

namespace {

// Larger scores give smaller ranks, equal scores equal ranks.
std::uint32_t rank_of_score(float score) {
  const auto bits = std::bit_cast<std::uint32_t>(score + 0.0f);
  return (bits >> 31) != 0 ? bits : ~(bits | 0x80000000u);
}

// True where U+2581 stands inside `piece` after another character: then a merge can cross the beginning of a word.
bool crosses_words(std::string_view piece) {
  std::size_t at = 0;
  while (piece.substr(at).starts_with(kSpaceSymbol)) at += kSpaceSymbol.size();
  return piece.find(kSpaceSymbol, at) != std::string_view::npos;
}

struct Scratch {
  std::vector<Symbol> symbols;
  std::vector<MergeEntry> heap;
};

class SpmBpeTokenizer final : public SpmTokenizer {
 public:
  explicit SpmBpeTokenizer(Vocabulary source)
      : SpmTokenizer(std::move(source)), merges_(vocabulary_.merges, vocabulary_.tokens, pieces_) {
    for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
      ranks_.push_back(rank_of_score(vocabulary_.scores[i]));
      has_unused_ = has_unused_ || vocabulary_.types[i] == TokenType::kUnused;
      word_by_word_ = word_by_word_ && !crosses_words(vocabulary_.tokens[i]);
    }
  }

 private:
  // The text is cut before each word where no merge can cross that place: the result is the same and the heap stays
  // small.
  void segment(std::string_view text, std::vector<TokenId>& ids) const override {
    Scratch scratch;
    bool unknown_run = false;
    std::size_t begin = 0;
    std::size_t at = 0;
    bool after_space = true;
    while (at < text.size()) {
      const bool space = text.substr(at).starts_with(kSpaceSymbol);
      if (word_by_word_ && space && !after_space) {
        segment_word(text.substr(begin, at - begin), scratch, unknown_run, ids);
        begin = at;
        scratch.symbols.clear();
      }
      std::size_t length = 0;
      const bool frozen =
          !normalizer_.user_defined().empty() && normalizer_.user_defined().longest(text.substr(at), length) >= 0;
      if (!frozen) length = announced_length(text.substr(at));
      after_space = text.substr(0, at + length).ends_with(kSpaceSymbol);
      const auto index = static_cast<std::int32_t>(scratch.symbols.size());
      if (index > 0) scratch.symbols.back().next = index;
      scratch.symbols.push_back({.begin = static_cast<std::uint32_t>(at - begin),
                                 .length = static_cast<std::uint32_t>(length),
                                 .prev = index - 1,
                                 .frozen = frozen});
      at += length;
    }
    segment_word(text.substr(begin), scratch, unknown_run, ids);
  }

  void segment_word(std::string_view word, Scratch& scratch, bool& unknown_run, std::vector<TokenId>& ids) const {
    if (!vocabulary_.merges.empty()) {
      for (Symbol& symbol : scratch.symbols) symbol.id = pieces_.find(word.substr(symbol.begin, symbol.length));
      merge_symbols<false>(scratch.symbols, scratch.heap, [&](const Symbol& a, const Symbol& b) -> Candidate {
        if (a.id < 0 || b.id < 0) return {};
        const MergeTable::Merge* merge = merges_.find(a.id, b.id);
        return merge == nullptr ? Candidate{} : Candidate{merge->rank, merge->id};
      });
      emit(word, scratch.symbols, nullptr, unknown_run, ids);
      return;
    }
    std::map<std::string_view, std::size_t>
        halves;  // unused piece -> length of its left half when it was last looked at
    merge_symbols<true>(scratch.symbols, scratch.heap, [&](const Symbol& a, const Symbol& b) -> Candidate {
      const std::string_view piece = word.substr(a.begin, a.length + b.length);
      const int id = pieces_.find(piece);
      if (id < 0) return {};
      if (has_unused_ && unused(id)) halves[piece] = a.length;
      return {ranks_[static_cast<std::size_t>(id)], id};
    });
    emit(word, scratch.symbols, &halves, unknown_run, ids);
  }

  // Tokens of the symbols that are left; unused pieces are taken apart again.
  void emit(std::string_view word, const std::vector<Symbol>& symbols,
            const std::map<std::string_view, std::size_t>* halves, bool& unknown_run, std::vector<TokenId>& ids) const {
    for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[static_cast<std::size_t>(i)].next) {
      const Symbol& symbol = symbols[static_cast<std::size_t>(i)];
      const std::string_view piece = word.substr(symbol.begin, symbol.length);
      const TokenId id = piece_id(piece);
      if (halves == nullptr || halves->empty() || id < 0 || !unused(id)) {
        append(piece, id, unknown_run, ids);
        continue;
      }
      std::vector<std::string_view> stack = {piece};
      while (!stack.empty()) {
        const std::string_view top = stack.back();
        stack.pop_back();
        const TokenId part = piece_id(top);
        const auto half = part >= 0 && unused(part) ? halves->find(top) : halves->end();
        if (half == halves->end()) {
          append(top, part, unknown_run, ids);
        } else {
          stack.push_back(top.substr(half->second));
          stack.push_back(top.substr(0, half->second));
        }
      }
    }
  }

  MergeTable merges_;
  std::vector<std::uint32_t> ranks_;
  bool has_unused_ = false;
  bool word_by_word_ = true;
};

}  // namespace

std::unique_ptr<Tokenizer> make_spm_bpe_tokenizer(Vocabulary vocabulary) {
  return std::make_unique<SpmBpeTokenizer>(std::move(vocabulary));
}

}  // namespace nibble::token
