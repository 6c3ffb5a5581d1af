// A text as the fixed-length token chunks that calibration and evaluation feed to a model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "token/tokenizer.h"

namespace nibble::calib {

// Where chunks begin and which predictions count. Perplexities of different protocols cannot be compared.
enum class Protocol : std::uint8_t {
  kLlamaCpp,  // the beginning token replaces the first token of each chunk; only second halves are scored
  kWindow,    // the beginning token once, before the text; every prediction inside a window is scored
};
std::string_view protocol_name(Protocol protocol);  // "llama.cpp", "window"
std::optional<Protocol> parse_protocol(std::string_view name);
std::int64_t default_context(Protocol protocol);  // 512 and 2048

struct TokenChunks {
  Protocol protocol{};
  std::int64_t context = 0;
  std::int64_t n_chunks = 0;
  std::int64_t first_scored = 0;       // first position of a chunk whose prediction of the next token is scored
  std::vector<token::TokenId> tokens;  // (n_chunks, context), as the model sees them

  std::span<const token::TokenId> chunk(std::int64_t index) const {
    return std::span(tokens).subspan(static_cast<std::size_t>(index * context), static_cast<std::size_t>(context));
  }
  std::int64_t scored_per_chunk() const { return context - 1 - first_scored; }
  std::int64_t scored() const { return n_chunks * scored_per_chunk(); }
};

struct ChunkOptions {
  Protocol protocol = Protocol::kLlamaCpp;
  std::int64_t context = 0;     // tokens per chunk; 0: default_context()
  std::int64_t max_chunks = 0;  // 0: all that fit
};

// Cuts `tokens` (the text with its special tokens, encoded once); a last partial chunk is left out. `bos` is -1 for a
// model that adds none. Throws Error{kInvalidArgument} for a context below 4 or fewer tokens than one chunk.
TokenChunks cut_chunks(std::span<const token::TokenId> tokens, token::TokenId bos, const ChunkOptions& options);
// Encodes a text (control tokens spelled in it are plain text) and cuts it. Throws Error{kInvalidArgument} for an empty
// text.
TokenChunks chunk_text(const token::Tokenizer& tokenizer, std::string_view text, const ChunkOptions& options);
// The same for a file; errors name it.
TokenChunks chunk_file(const token::Tokenizer& tokenizer, const std::filesystem::path& path,
                       const ChunkOptions& options);

}  // namespace nibble::calib
