#include "token/spm_model.h"

#include <cmath>
#include <string>

#include "token/protobuf.h"
#include "token/utf8.h"

// Field numbers: sentencepiece_model.proto of google/sentencepiece.
namespace nibble::token {

namespace {

struct Trainer {
  int model_type = 1;
  bool suffix = false;
  int unk = 0, bos = 1, eos = 2, pad = -1;
  std::string bos_piece = "<s>", eos_piece = "</s>", pad_piece = "<pad>";
};

void read_piece(std::string_view bytes, Vocabulary& vocabulary) {
  std::string piece;
  float score = 0;
  std::uint64_t type = 1;
  ProtobufReader reader(bytes);
  while (reader.next()) {
    if (reader.field() == 1) piece = reader.bytes();
    if (reader.field() == 2) score = reader.float32();
    if (reader.field() == 3) type = reader.integer();
  }
  const std::size_t id = vocabulary.tokens.size();
  if (piece.empty()) fail(ErrorCode::kFormat, "piece {} is empty", id);
  if (!is_valid_utf8(piece)) fail(ErrorCode::kFormat, "piece {} is not UTF-8", id);
  if (type < 1 || type > 6) fail(ErrorCode::kFormat, "piece {} '{}' has type {}", id, piece, type);
  if (!std::isfinite(score)) fail(ErrorCode::kFormat, "piece {} '{}' has score {}", id, piece, score);
  vocabulary.tokens.push_back(std::move(piece));
  vocabulary.scores.push_back(score);
  vocabulary.types.push_back(static_cast<TokenType>(type));
}

Trainer read_trainer(std::string_view bytes, Vocabulary& vocabulary) {
  Trainer trainer;
  ProtobufReader reader(bytes);
  while (reader.next()) {
    switch (reader.field()) {
      case 3:
        trainer.model_type = reader.int32();
        break;
      case 24:
        trainer.suffix = reader.boolean();
        break;
      case 35:
        vocabulary.byte_fallback = reader.boolean();
        break;
      case 40:
        trainer.unk = reader.int32();
        break;
      case 41:
        trainer.bos = reader.int32();
        break;
      case 42:
        trainer.eos = reader.int32();
        break;
      case 43:
        trainer.pad = reader.int32();
        break;
      case 44:
        vocabulary.unknown_text = reader.bytes();
        break;
      case 46:
        trainer.bos_piece = reader.bytes();
        break;
      case 47:
        trainer.eos_piece = reader.bytes();
        break;
      case 48:
        trainer.pad_piece = reader.bytes();
        break;
      default:
        break;
    }
  }
  return trainer;
}

void read_normalizer(std::string_view bytes, Vocabulary& vocabulary) {
  ProtobufReader reader(bytes);
  while (reader.next()) {
    switch (reader.field()) {
      case 2:
        vocabulary.precompiled_charsmap = reader.bytes();
        break;
      case 3:
        vocabulary.add_space_prefix = reader.boolean();
        break;
      case 4:
        vocabulary.remove_extra_whitespaces = reader.boolean();
        break;
      case 5:
        if (!reader.boolean()) fail(ErrorCode::kUnsupported, "SentencePiece models without escaped white space");
        break;
      default:
        break;
    }
  }
}

// The trainer's id where that piece is what the file says it is, else the control piece of that name.
int control_id(const Vocabulary& vocabulary, int id, std::string_view piece) {
  const int size = static_cast<int>(vocabulary.tokens.size());
  if (id >= 0 && id < size && vocabulary.types[static_cast<std::size_t>(id)] == TokenType::kControl) return id;
  for (int i = 0; i < size; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (vocabulary.types[at] == TokenType::kControl && vocabulary.tokens[at] == piece) return i;
  }
  return -1;
}

}  // namespace

Vocabulary parse_spm_model(std::string_view bytes) {
  Vocabulary vocabulary;
  vocabulary.add_space_prefix = true;
  vocabulary.remove_extra_whitespaces = true;
  Trainer trainer;
  ProtobufReader reader(bytes);
  while (reader.next()) {
    if (reader.field() == 1) read_piece(reader.bytes(), vocabulary);
    if (reader.field() == 2) trainer = read_trainer(reader.bytes(), vocabulary);
    if (reader.field() == 3) read_normalizer(reader.bytes(), vocabulary);
  }
  if (vocabulary.tokens.empty()) fail(ErrorCode::kFormat, "no SentencePiece model: it has no pieces");
  if (trainer.model_type != 1 && trainer.model_type != 2) {
    fail(ErrorCode::kUnsupported, "SentencePiece model type {} (1 unigram and 2 BPE are read)", trainer.model_type);
  }
  if (trainer.suffix) fail(ErrorCode::kUnsupported, "SentencePiece models with white space as a suffix");
  vocabulary.kind = trainer.model_type == 2 ? TokenizerKind::kSpmBpe : TokenizerKind::kSpmUnigram;
  for (std::size_t i = 0; i < vocabulary.types.size(); ++i) {
    if (vocabulary.types[i] != TokenType::kUnknown) continue;
    if (vocabulary.unk >= 0) fail(ErrorCode::kFormat, "two unknown pieces: {} and {}", vocabulary.unk, i);
    vocabulary.unk = static_cast<int>(i);
  }
  if (vocabulary.unk < 0) fail(ErrorCode::kFormat, "the SentencePiece model has no unknown piece");
  vocabulary.bos = control_id(vocabulary, trainer.bos, trainer.bos_piece);
  vocabulary.eos = control_id(vocabulary, trainer.eos, trainer.eos_piece);
  vocabulary.pad = control_id(vocabulary, trainer.pad, trainer.pad_piece);
  return vocabulary;
}

}  // namespace nibble::token
