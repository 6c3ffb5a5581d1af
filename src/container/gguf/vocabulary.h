// The tokenizer in a GGUF header: the tokenizer.ggml.* keys and token::Vocabulary, both ways.
#pragma once

#include <cstdint>

#include "container/metadata.h"
#include "token/vocabulary.h"

namespace nibble::container::gguf {

// Takes "llama" and "t5" (SentencePiece) and "gpt2" (byte-level BPE); what a file leaves out gets the defaults of that
// kind. Throws Error{kNotFound} when the file has no vocabulary, {kUnsupported} for another kind or an unknown
// pre-tokenizer, {kFormat} for arrays of unequal lengths and token types that do not exist. A special id that is no
// token counts as absent.
token::Vocabulary read_vocabulary(const Metadata& metadata);

// Sets the keys that read_vocabulary() reads, replacing those there. With `n_rows`, the rows of the embedding, there
// are exactly that many tokens, as readers of GGUF demand: unused ones called [PADi] are added, those without a row
// left out. Throws Error{kUnsupported} for a pre-tokenizer without a name.
void write_vocabulary(const token::Vocabulary& vocabulary, Metadata& metadata, std::int64_t n_rows = 0);

}  // namespace nibble::container::gguf
