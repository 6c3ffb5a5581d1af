// A conversation as a training example: the tokens that a chat template makes of it, of which the answers are learned.
#pragma once

#include <ctime>

#include "jinja/template.h"
#include "json/json.h"
#include "train/example.h"

namespace nibble::train {

// `messages` [{role, content, ...}] through the template as transformers renders it, control tokens as such. What the
// messages of role "assistant" say is learned, with the token that ends the turn. Where that stands is found by
// rendering the conversation up to the message and with the message changed; Error{kInvalidArgument} where that gives
// no answer, where there is no message of the assistant, and for messages without a role and a content that are
// strings. `others`: further variables of the template.
Example chat_example(const token::Tokenizer& tokenizer, const jinja::Template& chat_template,
                     const json::Array& messages, const json::Object& others, const std::tm& now);

}  // namespace nibble::train
