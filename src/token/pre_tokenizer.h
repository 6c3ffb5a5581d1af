// Pre-tokenizers of byte-level BPE: the regexes behind each tokenizer.ggml.pre name, and a text cut by them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "token/regex.h"

namespace nibble::token {

// What a tokenizer.ggml.pre name stands for. Several names may share their regexes.
struct PreTokenizer {
  std::string_view name;
  std::vector<std::string> patterns;  // as in the tokenizer.json of the model that gave the name; applied in turn
  bool ignore_merges = false;         // implied where the GGUF file says nothing else
  bool add_bos = false;               // likewise
};

// nullptr where the name is unknown.
const PreTokenizer* find_pre_tokenizer(std::string_view name);
// The name under which llama.cpp splits as these patterns do: those with the same text first, then those that cut a
// probe of many scripts alike; among several, one that implies the same `ignore_merges`. Empty where there is none.
std::string_view match_pre_tokenizer(std::span<const std::string> patterns, bool ignore_merges);

// GPT-2's pattern, which ByteLevel pre-tokenizers imply.
std::string_view gpt2_pattern();

// Cuts texts by several regexes in turn: each match and each gap between two is a piece, which the next regex cuts
// further.
class Splitter {
 public:
  explicit Splitter(std::span<const std::string> patterns);

  struct Scratch {
    Regex::Scratch regex;
    std::vector<Span> matches;
    std::vector<Span> pieces;
  };
  // The pieces of `text` (valid UTF-8), none of them empty; they live in `scratch` until the next call.
  const std::vector<Span>& split(std::string_view text, Scratch& scratch) const;

 private:
  std::vector<Regex> regexes_;
};

}  // namespace nibble::token
