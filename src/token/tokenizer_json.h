// Hugging Face's tokenizer.json to a Vocabulary.
#pragma once

#include <string_view>

#include "token/vocabulary.h"

namespace nibble::token {

// BPE (byte-level or with SentencePiece's tokens) and unigram models. Throws Error{kFormat} where the file contradicts
// itself, Error{kUnsupported} naming the part that is not supported. bos, eos, pad and eot are left to
// tokenizer_config.json.
Vocabulary parse_tokenizer_json(std::string_view text);

}  // namespace nibble::token
