// The parts of a tokenizer.json around its model.
#pragma once

#include "json/json.h"
#include "token/vocabulary.h"

namespace nibble::token {

void read_normalizer(const json::Value& part, Vocabulary& vocabulary);
void read_pre_tokenizer(const json::Value& part, Vocabulary& vocabulary);
void read_post_processor(const json::Value& part, Vocabulary& vocabulary);
// Says the steps of a SentencePiece-like tokenizer in SentencePiece's own words, as a GGUF header needs them.
void describe_for_gguf(Vocabulary& vocabulary);

}  // namespace nibble::token
