#include "token/byte_bpe.h"

#include "base/error.h"
#include "token/byte_alphabet.h"
#include "token/merge.h"
#include "token/pre_tokenizer.h"
#include "token/text_tokenizer.h"

namespace nibble::token {

namespace {

constexpr std::size_t kCacheSlots = 8192;
constexpr std::size_t kCachedWord = 40;  // bytes

// Tokens of the words of one text that were seen before: where in the output they stand.
struct WordCache {
  struct Slot {
    std::string_view word;
    std::uint32_t begin = 0, count = 0;
  };
  std::vector<Slot> slots;

  Slot& at(std::string_view word) {
    std::uint64_t hash = word.size();
    for (char c : word) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
    return slots[(hash ^ hash >> 29) & (kCacheSlots - 1)];
  }
};

class ByteBpeTokenizer final : public TextTokenizer {
 public:
  explicit ByteBpeTokenizer(Vocabulary source)
      : TextTokenizer(std::move(source)), splitter_(vocabulary_.split_patterns), index_(vocabulary_.tokens) {
    index_tokens();
    for (std::size_t byte = 0; byte < 256; ++byte) byte_ids_[byte] = index_.find(byte_alphabet()[byte]);
    merges_ = MergeTable(vocabulary_.merges, vocabulary_.tokens, index_);
  }

  std::string token_bytes(TokenId id, bool spell_special) const override {
    if (id < 0 || id >= size())
      fail(ErrorCode::kInvalidArgument, "token id {} is outside the vocabulary of {}", id, size());
    const std::string& token = spelling(id);
    switch (vocabulary_.types[static_cast<std::size_t>(id)]) {
      case TokenType::kControl:
      case TokenType::kUnknown:
        return spell_special ? token : std::string();
      case TokenType::kUserDefined:
        return token;
      default:
        break;
    }
    std::string bytes;
    return decode_byte_alphabet(token, bytes) ? bytes : token;
  }

 private:
  struct Scratch {
    Splitter::Scratch splitter;
    std::vector<Symbol> symbols;
    std::vector<MergeEntry> heap;
    WordCache cache;
    std::string spelled;
  };

  // Normal tokens first, so that one keeps its text where an added token is spelled alike.
  void index_tokens() {
    constexpr std::size_t kAhead = 16;
    const std::size_t size = vocabulary_.tokens.size();
    std::vector<std::uint32_t> hashes(size);
    for (std::size_t i = 0; i < size; ++i) hashes[i] = StringIndex::hash(vocabulary_.tokens[i]);
    for (const bool normal : {true, false}) {
      for (std::size_t i = 0; i < size; ++i) {
        if (i + kAhead < size) index_.prefetch_slot(hashes[i + kAhead]);
        const TokenType type = vocabulary_.types[i];
        if ((type == TokenType::kNormal || type == TokenType::kByte || type == TokenType::kUndefined) != normal) {
          continue;
        }
        if (!index_.insert(i, hashes[i]) && normal) {
          fail(ErrorCode::kFormat, "token {} '{}' is there twice", i, vocabulary_.tokens[i]);
        }
      }
    }
  }

  void encode_text(std::string_view text, bool, std::vector<TokenId>& ids) const override {
    std::string prefixed;
    if (vocabulary_.add_space_prefix && !text.starts_with(' ')) text = prefixed.append(1, ' ').append(text);
    Scratch scratch;
    if (text.size() > 256) scratch.cache.slots.resize(kCacheSlots);
    for (const Span& piece : splitter_.split(text, scratch.splitter)) {
      const std::string_view word = text.substr(piece.begin, piece.end - piece.begin);
      if (word.size() > kCachedWord || scratch.cache.slots.empty()) {
        encode_word(word, scratch, ids);
        continue;
      }
      WordCache::Slot& slot = scratch.cache.at(word);
      const std::size_t begin = ids.size();
      if (slot.word == word) {
        ids.resize(begin + slot.count);
        std::copy_n(ids.begin() + slot.begin, slot.count, ids.begin() + static_cast<std::ptrdiff_t>(begin));
      } else {
        encode_word(word, scratch, ids);
        slot = {word, static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(ids.size() - begin)};
      }
    }
  }

  void encode_word(std::string_view word, Scratch& scratch, std::vector<TokenId>& ids) const {
    if (vocabulary_.ignore_merges) {
      scratch.spelled.clear();
      for (char c : word) scratch.spelled += byte_alphabet()[static_cast<unsigned char>(c)];
      const int whole = index_.find(scratch.spelled);
      if (whole >= 0) {
        ids.push_back(whole);
        return;
      }
    }
    scratch.symbols.clear();
    const auto size = static_cast<std::int32_t>(word.size());
    for (std::int32_t i = 0; i < size; ++i) {
      const TokenId id = byte_ids_[static_cast<unsigned char>(word[static_cast<std::size_t>(i)])];
      scratch.symbols.push_back({static_cast<std::uint32_t>(i), 1, i - 1, i + 1 < size ? i + 1 : -1, id, id < 0});
    }
    merge_symbols<false>(scratch.symbols, scratch.heap, [&](const Symbol& a, const Symbol& b) -> Candidate {
      const MergeTable::Merge* merge = merges_.find(a.id, b.id);
      return merge == nullptr ? Candidate{} : Candidate{merge->rank, merge->id};
    });
    for (std::int32_t i = 0; i >= 0; i = scratch.symbols[static_cast<std::size_t>(i)].next) {
      const TokenId id = scratch.symbols[static_cast<std::size_t>(i)].id;
      if (id >= 0) {
        ids.push_back(id);
      } else if (vocabulary_.unk >= 0) {
        ids.push_back(vocabulary_.unk);
      }
    }
  }

  Splitter splitter_;
  StringIndex index_;
  MergeTable merges_;
  std::array<TokenId, 256> byte_ids_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_bpe_tokenizer(Vocabulary vocabulary) {
  return std::make_unique<ByteBpeTokenizer>(std::move(vocabulary));
}

}  // namespace nibble::token
