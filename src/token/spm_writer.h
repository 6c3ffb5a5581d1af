// A Vocabulary as a SentencePiece model file (.model).
#pragma once

#include <string>

#include "token/vocabulary.h"

namespace nibble::token {

// The bytes of a file that parse_spm_model() and the SentencePiece library read back as this vocabulary (add_bos,
// add_eos and the chat template belong to tokenizer_config.json). Throws Error{kUnsupported} for a vocabulary that is
// not SentencePiece's.
std::string write_spm_model(const Vocabulary& vocabulary);

}  // namespace nibble::token
