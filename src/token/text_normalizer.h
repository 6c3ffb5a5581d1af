// The normaliser steps of a tokenizer.json.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "token/charsmap.h"
#include "token/regex.h"
#include "token/vocabulary.h"

namespace nibble::token {

class TextNormalizer {
 public:
  explicit TextNormalizer(const std::vector<NormalizerStep>& steps);
  bool empty() const { return steps_.empty(); }
  // `text` must be valid UTF-8; so is the result.
  std::string apply(std::string_view text) const;

 private:
  struct Step {
    NormalizerStep rule;
    std::vector<Regex> regex;        // one for kReplaceRegex
    std::vector<Charsmap> charsmap;  // one for kCharsmap
  };
  static std::string apply_step(const Step& step, std::string text);
  std::vector<Step> steps_;
};

}  // namespace nibble::token
