// SentencePiece model files (.model): protobuf bytes to a Vocabulary.
#pragma once

#include <string_view>

#include "token/vocabulary.h"

namespace nibble::token {

// BPE and unigram models. Throws Error{kFormat} on bytes that are no such file, Error{kUnsupported} on word and
// character models and on white space as a suffix. bos, eos, unk and pad are the file's own; add_bos is left false (the
// .model does not say).
Vocabulary parse_spm_model(std::string_view bytes);

}  // namespace nibble::token
