// Everything a tokenizer is made of, as plain data: what a tokenizer file or a GGUF header says, and what a GGUF header
// needs.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace nibble::token {

enum class TokenType : std::uint8_t {
  kUndefined = 0,
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

enum class TokenizerKind : std::uint8_t {
  kSpmBpe,      // SentencePiece BPE: merges ordered by piece score ("llama" in GGUF)
  kSpmUnigram,  // SentencePiece unigram: best path by piece score ("t5" in GGUF)
  kByteBpe,     // byte-level BPE with merge ranks and pre-tokenizer regexes ("gpt2" in GGUF)
};

// A token that is looked for in the raw text before anything else.
struct AddedToken {
  int id = -1;
  bool special = true;       // a control token: only looked for when EncodeOptions::parse_special
  bool lstrip = false;       // takes the whitespace before it along
  bool rstrip = false;       // takes the whitespace after it along
  bool single_word = false;  // only where no word character stands beside it
  bool normalized = false;   // looked for in the normalised text
};

// One step of a tokenizer.json normaliser.
struct NormalizerStep {
  enum class Kind : std::uint8_t {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kReplace,
    kReplaceRegex,
    kPrepend,
    kStripLeft,
    kStripRight,
    kCharsmap
  };
  Kind kind{};
  std::string pattern;  // kReplace: a string, kReplaceRegex: a pattern, kCharsmap: the precompiled blob
  std::string content;  // kReplace*, kPrepend
};

// The pre-tokenizer of a tokenizer.json with SentencePiece tokens.
struct WordRule {
  enum class Prefix : std::uint8_t { kNever, kFirst, kAlways };
  bool drop_white_space = false;   // WhitespaceSplit: words are what stands between white space
  bool metaspace = false;          // spaces become U+2581,
  Prefix prefix = Prefix::kNever;  // one is put before texts (words) that do not begin with it,
  bool split = false;              // and each begins a piece of its own
};

struct Vocabulary {
  TokenizerKind kind{};
  std::vector<std::string>
      tokens;  // as the file spells them: U+2581 for space (SPM), GPT-2's byte alphabet (byte-level BPE);
               // control and user-defined tokens of byte-level BPE are plain text
  std::vector<float> scores;     // SPM only; same length as tokens
  std::vector<TokenType> types;  // same length as tokens
  // Best first. Byte-level BPE always; SPM BPE when it comes from a tokenizer.json, whose merges then count instead of
  // the scores.
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<std::string>
      split_patterns;  // regexes of the pre-tokenizer as tokenizer.json writes them, applied in turn (byte-level BPE)
  std::string
      pre;  // tokenizer.ggml.pre of those patterns ("llama-bpe", "qwen2", ...), "default" for SPM; empty: none known
  bool ignore_merges = false;  // a whole word found in the vocabulary is one token, whatever the merges say
  bool byte_fallback = false;  // unknown characters become <0xNN> tokens (SPM)
  bool add_space_prefix =
      false;  // SPM's dummy prefix; byte-level BPE: a space before a text that does not begin with one
  bool remove_extra_whitespaces = false;
  std::string precompiled_charsmap;             // SPM's normaliser, empty for identity
  std::string unknown_text = " \xE2\x81\x87 ";  // what the unknown token decodes to (SPM)

  // What only a tokenizer.json says. With `huggingface` these fields and not the SPM ones above decide how text becomes
  // tokens; those then say the same as nearly as a GGUF header can.
  bool huggingface = false;
  std::vector<NormalizerStep> normalizer;
  WordRule words;                 // SPM only
  bool fuse_unknown = true;       // neighbouring unknown characters are one unknown token (SPM)
  std::vector<AddedToken> added;  // empty: all control tokens (and, byte-level BPE, user-defined tokens), no stripping
  int bos = -1, eos = -1, unk = -1, pad = -1, eot = -1;
  bool add_bos = false;
  bool add_eos = false;
  // What stands before and after a text where the files ask for more than bos and eos ("[gMASK] <sop>"); otherwise
  // empty.
  std::vector<int> prefix_ids, suffix_ids;
  std::vector<int> ends;                                                  // further tokens that end a text
  std::string chat_template;                                              // Jinja
  std::vector<std::pair<std::string, std::string>> named_chat_templates;  // further ones: "tool_use", "rag"
};

}  // namespace nibble::token
