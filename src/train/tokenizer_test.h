// A tokenizer for tests: a token for each byte, and control tokens of chats.
#pragma once

#include <memory>
#include <string>

#include "base/temporary_folder.h"
#include "testing/tiny_model.h"
#include "train/example.h"

namespace nibble::train {

// "<s>" 256 and "</s>" 257 as beginning and end, then the control tokens; texts get "<s>" if `add_bos`.
inline std::unique_ptr<token::Tokenizer> byte_tokenizer(const std::string& chat_template = {}, bool add_bos = true) {
  const TemporaryFolder folder;
  testing::write_tiny_model(folder.path(), testing::tiny_config("llama"));
  token::Vocabulary vocabulary = token::load_vocabulary(folder.path());
  for (const char* control : {"<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>"}) {
    vocabulary.tokens.emplace_back(control);
    vocabulary.types.push_back(token::TokenType::kControl);
  }
  vocabulary.added.clear();  // all control tokens are found in a text
  vocabulary.ends = {259, 260, 261, 262};
  vocabulary.bos = 256;
  vocabulary.eos = 257;
  vocabulary.add_bos = add_bos;
  vocabulary.chat_template = chat_template;
  return token::make_tokenizer(std::move(vocabulary));
}

// What is learned, each stretch in «».
inline std::string learned_text(const token::Tokenizer& tokenizer, const Example& example) {
  std::string out;
  for (std::size_t i = 0; i < example.tokens.size(); ++i) {
    if (example.learned[i] != 0) {
      if (i == 0 || example.learned[i - 1] == 0) out += "\u00AB";
      out += tokenizer.token_bytes(example.tokens[i], true);
      if (i + 1 == example.tokens.size() || example.learned[i + 1] == 0) out += "\u00BB";
    }
  }
  return out;
}

}  // namespace nibble::train
