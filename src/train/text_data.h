// Plain texts as training examples.
#pragma once

#include <filesystem>
#include <span>

#include "base/exec_context.h"
#include "train/example.h"

namespace nibble::train {

// Each file is one document: encoded whole with the tokenizer's own beginning and end tokens, control tokens spelled in
// it as plain text. The documents stand one behind the other and are cut into sequences of `context` tokens, of which
// every one but the first is learned; what is left at the end is dropped. Files are encoded in parallel. Throws
// Error{kInvalidArgument} naming a file that is empty, for fewer tokens than one sequence or a context below 4.
ExampleSet read_texts(ExecContext& context, const token::Tokenizer& tokenizer,
                      std::span<const std::filesystem::path> files, std::int64_t sequence_tokens);

}  // namespace nibble::train
