// A byte-level BPE Vocabulary as Hugging Face's tokenizer.json.
#pragma once

#include <string>

#include "json/json.h"
#include "token/vocabulary.h"

namespace nibble::token {

// A file that parse_tokenizer_json() and Hugging Face's tokenizers read back as this vocabulary. Throws
// Error{kUnsupported} for SentencePiece vocabularies (write_spm_model() writes those).
std::string write_tokenizer_json(const Vocabulary& vocabulary);
// tokenizer_config.json that belongs to either form: special tokens, what is added to a text, the chat template.
std::string write_tokenizer_config(const Vocabulary& vocabulary);

}  // namespace nibble::token
