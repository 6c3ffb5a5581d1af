#include "train/text_data.h"

#include "base/atomic_file.h"
#include "base/progress.h"
#include "calib/token_chunks.h"
#include "train/rounds.h"

namespace nibble::train {

ExampleSet read_texts(ExecContext& context, const token::Tokenizer& tokenizer,
                      std::span<const std::filesystem::path> files, std::int64_t sequence_tokens) {
  if (files.empty()) fail(ErrorCode::kInvalidArgument, "no text to train on");
  std::vector<std::vector<token::TokenId>> documents(files.size());
  const auto encode = [&](std::size_t i) {
    with_context(format_text("text '{}'", files[i].string()), [&] {
      const std::string text = read_file(files[i]);
      if (text.empty()) fail(ErrorCode::kInvalidArgument, "the text is empty");
      documents[i] = tokenizer.encode(text, {.add_special = true, .parse_special = false});
    });
  };
  ProgressTask progress(context.progress, "reading texts", files.size(), "files");
  in_rounds(context, files.size(), 1, encode, [&](std::size_t, std::size_t n) { progress.add(n); });
  std::vector<token::TokenId> stream;
  for (const auto& document : documents) stream.insert(stream.end(), document.begin(), document.end());
  const calib::TokenChunks chunks =
      calib::cut_chunks(stream, -1, {.protocol = calib::Protocol::kWindow, .context = sequence_tokens});
  ExampleSet set;
  for (std::int64_t i = 0; i < chunks.n_chunks; ++i) {
    const auto chunk = chunks.chunk(i);
    Example example{{chunk.begin(), chunk.end()}, std::vector<std::uint8_t>(chunk.size(), 1)};
    example.learned[0] = 0;
    set.add(std::move(example));
  }
  set.dropped_tokens = static_cast<std::int64_t>(stream.size()) - set.tokens;
  return set;
}

}  // namespace nibble::train
