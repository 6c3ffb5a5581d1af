// Phi-3, Phi-3.5 and Phi-4: q, k and v in one tensor, gate and up in another, longrope.
#include <algorithm>

#include "base/checked.h"
#include "model/arch.h"
#include "model/decoder_weights.h"
#include "model/gguf_hparams.h"
#include "model/hf_config.h"
#include "model/hf_export.h"

namespace nibble::model::phi3 {

namespace {

constexpr std::string_view kModelTypes[] = {"phi3"};
constexpr std::int64_t kOriginalContext = 4096;  // where the configuration names none

void fuse(ModelSpec& spec) {
  for (BlockSpec& block : spec.blocks) block.qkv_fused = block.gate_up_fused = true;
}

ModelSpec from_hf(const json::Value& config) {
  json::Value whole = config;
  whole.set("original_max_position_embeddings", config.get("original_max_position_embeddings", kOriginalContext));
  ModelSpec spec = decoder_from_hf(whole, {.norm_eps = 1e-5, .context = 4096});
  spec.arch = "phi3";
  fuse(spec);
  for (BlockSpec& block : spec.blocks) block.window = config.get("sliding_window", 0);
  add_decoder_weights(spec, {}, false);
  return spec;
}

ModelSpec from_gguf(const container::Metadata& metadata) {
  ModelSpec spec = decoder_from_gguf(metadata, "phi3");
  fuse(spec);
  add_decoder_weights(spec, {}, true);
  return spec;
}

// Special tokens take the white space behind them along, but for those that SentencePiece itself has.
void complete_vocabulary(token::Vocabulary& vocabulary) {
  if (vocabulary.kind != token::TokenizerKind::kSpmBpe || !vocabulary.added.empty()) return;
  constexpr std::string_view kPlain[] = {"<unk>", "<s>", "<|endoftext|>"};
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const token::TokenType type = vocabulary.types[i];
    const bool user = type == token::TokenType::kUserDefined;
    if (!user && type != token::TokenType::kControl && type != token::TokenType::kUnknown) continue;
    const bool plain = std::ranges::find(kPlain, vocabulary.tokens[i]) != std::end(kPlain);
    vocabulary.added.push_back({.id = static_cast<int>(i), .special = !user, .rstrip = !plain});
  }
}

// A window of 0 is written, too: without the key another kind of Phi is assumed.
void to_gguf(const ModelSpec& spec, container::Metadata& metadata) {
  decoder_to_gguf(spec, metadata);
  metadata.set(arch_key(spec, "attention.sliding_window"), checked_cast<std::uint32_t>(spec.blocks.at(0).window));
  metadata.set(arch_key(spec, "rope.scaling.original_context_length"),
               checked_cast<std::uint32_t>(spec.rope.original_context));
}

json::Value to_hf(const ModelSpec& spec) {
  json::Value config = decoder_to_hf(spec, "phi3", "Phi3ForCausalLM");
  config.set("original_max_position_embeddings", spec.rope.original_context);
  const std::int64_t window = spec.blocks.at(0).window;
  config.set("sliding_window", window > 0 ? json::Value(window) : json::Value());
  return config;
}

}  // namespace

const Arch& entry() {
  static constexpr Arch arch = {"phi3", kModelTypes, from_hf, from_gguf,          to_gguf,
                                to_hf,  nullptr,     {},      complete_vocabulary};
  return arch;
}

}  // namespace nibble::model::phi3
