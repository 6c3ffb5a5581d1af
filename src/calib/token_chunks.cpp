#include "calib/token_chunks.h"

#include <algorithm>

#include "base/atomic_file.h"
#include "base/error.h"

namespace nibble::calib {

namespace {
constexpr std::int64_t kMinContext = 4;
constexpr std::int64_t kMaxContext = std::int64_t{1} << 24;
}  // namespace

std::string_view protocol_name(Protocol protocol) { return protocol == Protocol::kLlamaCpp ? "llama.cpp" : "window"; }

std::optional<Protocol> parse_protocol(std::string_view name) {
  for (const Protocol protocol : {Protocol::kLlamaCpp, Protocol::kWindow}) {
    if (name == protocol_name(protocol)) return protocol;
  }
  return std::nullopt;
}

std::int64_t default_context(Protocol protocol) { return protocol == Protocol::kLlamaCpp ? 512 : 2048; }

TokenChunks cut_chunks(std::span<const token::TokenId> tokens, token::TokenId bos, const ChunkOptions& options) {
  TokenChunks chunks;
  chunks.protocol = options.protocol;
  chunks.context = options.context == 0 ? default_context(options.protocol) : options.context;
  if (chunks.context < kMinContext || chunks.context > kMaxContext) {
    fail(ErrorCode::kInvalidArgument, "a context of {} tokens; {} to {} are possible", chunks.context, kMinContext,
         kMaxContext);
  }
  if (options.max_chunks < 0) fail(ErrorCode::kInvalidArgument, "{} chunks", options.max_chunks);
  const auto n_tokens = static_cast<std::int64_t>(tokens.size());
  chunks.n_chunks = n_tokens / chunks.context;
  if (chunks.n_chunks == 0) {
    fail(ErrorCode::kInvalidArgument, "the text has {} tokens, fewer than one chunk of {}", n_tokens, chunks.context);
  }
  if (options.max_chunks > 0) chunks.n_chunks = std::min(chunks.n_chunks, options.max_chunks);
  chunks.tokens.assign(tokens.begin(), tokens.begin() + chunks.n_chunks * chunks.context);
  if (options.protocol == Protocol::kLlamaCpp) {
    chunks.first_scored = chunks.context / 2;
    for (std::int64_t i = 0; bos >= 0 && i < chunks.n_chunks; ++i) {
      chunks.tokens[static_cast<std::size_t>(i * chunks.context)] = bos;
    }
  }
  return chunks;
}

TokenChunks chunk_text(const token::Tokenizer& tokenizer, std::string_view text, const ChunkOptions& options) {
  if (text.empty()) fail(ErrorCode::kInvalidArgument, "the text is empty");
  const token::Vocabulary& vocabulary = tokenizer.vocabulary();
  const std::vector<token::TokenId> tokens = tokenizer.encode(text, {.add_special = true, .parse_special = false});
  return cut_chunks(tokens, vocabulary.add_bos ? vocabulary.bos : -1, options);
}

TokenChunks chunk_file(const token::Tokenizer& tokenizer, const std::filesystem::path& path,
                       const ChunkOptions& options) {
  return with_context(format_text("text '{}'", path.string()),
                      [&] { return chunk_text(tokenizer, read_file(path), options); });
}

}  // namespace nibble::calib
