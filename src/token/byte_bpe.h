// Byte-level BPE: pre-tokenizer regexes, then merges by rank within each word.
#pragma once

#include <memory>

#include "token/tokenizer.h"

namespace nibble::token {

std::unique_ptr<Tokenizer> make_byte_bpe_tokenizer(Vocabulary vocabulary);

}  // namespace nibble::token
