#include "token/spm_writer.h"

#include <bit>

#include "base/error.h"

// Field numbers: sentencepiece_model.proto of google/sentencepiece.
namespace nibble::token {

namespace {

// Writer of the protobuf wire format.
class Message {
 public:
  Message& integer(int field, std::uint64_t value) {
    key(field, 0);
    varint(value);
    return *this;
  }
  // int32 in protobuf: negative numbers take ten bytes.
  Message& int32(int field, int value) { return integer(field, static_cast<std::uint64_t>(std::int64_t{value})); }
  Message& bytes(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& float32(int field, float value) {
    key(field, 5);
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (int i = 0; i < 4; ++i) bytes_ += static_cast<char>(bits >> (8 * i) & 0xFF);
    return *this;
  }
  const std::string& text() const { return bytes_; }

 private:
  void key(int field, unsigned wire_type) { varint(static_cast<std::uint64_t>(field) << 3 | wire_type); }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

}  // namespace

std::string write_spm_model(const Vocabulary& vocabulary) {
  if (vocabulary.kind == TokenizerKind::kByteBpe) {
    fail(ErrorCode::kUnsupported, "a byte-level BPE vocabulary has no SentencePiece form");
  }
  Message model;
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    Message piece;
    piece.bytes(1, vocabulary.tokens[i]).float32(2, vocabulary.scores[i]);
    piece.integer(3, static_cast<std::uint64_t>(vocabulary.types[i]));
    model.bytes(1, piece.text());
  }
  Message trainer;
  trainer.int32(3, vocabulary.kind == TokenizerKind::kSpmBpe ? 2 : 1);
  trainer.int32(4, static_cast<int>(vocabulary.tokens.size()));
  trainer.integer(35, vocabulary.byte_fallback ? 1 : 0);
  trainer.int32(40, vocabulary.unk).int32(41, vocabulary.bos).int32(42, vocabulary.eos).int32(43, vocabulary.pad);
  trainer.bytes(44, vocabulary.unknown_text);
  model.bytes(2, trainer.text());
  Message normalizer;
  normalizer.bytes(1, vocabulary.precompiled_charsmap.empty() ? "identity" : "nibble");
  normalizer.bytes(2, vocabulary.precompiled_charsmap);
  normalizer.integer(3, vocabulary.add_space_prefix ? 1 : 0);
  normalizer.integer(4, vocabulary.remove_extra_whitespaces ? 1 : 0);
  normalizer.integer(5, 1);
  model.bytes(3, normalizer.text());
  return model.text();
}

}  // namespace nibble::token
