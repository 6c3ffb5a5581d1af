// Everything a tokenizer is made of, as plain data: what a tokenizer file or a GGUF header says, and what a GGUF header needs.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace nibble::token {

enum class TokenType : std::uint8_t { kUndefined = 0, kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

enum class TokenizerKind : std::uint8_t {
  kSpmBpe,      // SentencePiece BPE: merges ordered by piece score ("llama" in GGUF)
  kSpmUnigram,  // SentencePiece unigram: best path by piece score ("t5" in GGUF)
  kByteBpe,     // byte-level BPE with merge ranks and pre-tokenizer regexes ("gpt2" in GGUF)
};

struct Vocabulary {
  TokenizerKind kind{};
  std::vector<std::string> tokens;  // as the file spells them: U+2581 for space (SPM), GPT-2's byte alphabet (byte-level BPE)
  std::vector<float> scores;        // SPM only; same length as tokens
  std::vector<TokenType> types;     // same length as tokens
  std::vector<std::pair<std::string, std::string>> merges;  // byte-level BPE only, best first
  std::vector<std::string> split_patterns;  // PCRE2 regexes of the pre-tokenizer, applied in turn (byte-level BPE)
  std::string pre;                  // tokenizer.ggml.pre of those patterns ("llama-bpe", "qwen2", "default", ...)
  bool ignore_merges = false;       // a whole word found in the vocabulary is one token, whatever the merges say
  bool byte_fallback = false;       // unknown characters become <0xNN> tokens (SPM)
  bool add_space_prefix = false;    // SPM's dummy prefix
  bool remove_extra_whitespaces = false;
  std::string precompiled_charsmap; // SPM's normaliser, empty for identity
  bool nfc = false;                 // byte-level BPE: normalise to NFC first
  int bos = -1, eos = -1, unk = -1, pad = -1, eot = -1;
  bool add_bos = false;
  bool add_eos = false;
  std::string chat_template;
};

}  // namespace nibble::token
