#include "token/byte_bpe.h"

#include "base/error.h"

namespace nibble::token {

std::unique_ptr<Tokenizer> make_byte_bpe_tokenizer(Vocabulary) { fail(ErrorCode::kUnsupported, "byte-level BPE"); }

}  // namespace nibble::token
