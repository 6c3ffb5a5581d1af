// Writes all scored log-probabilities of a model as the base file that llama-perplexity compares against
// (--kl-divergence-base), so that its tool can take our computation as the truth.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/atomic_file.h"
#include "calib/token_chunks.h"

namespace nibble::eval {

// All little-endian:
//   "_logits_", i32 context, i32 vocab, i32 n_chunks, i32 tokens[n_chunks * context]
//   per scored prediction, in order: f32 scale, f32 lowest, u16 level[vocab rounded up to even]
// with ln q(i) = lowest + scale * level[i]. The levels span the logits from the largest down to the smallest, at most
// 16 below; what lies deeper is at level 0. So a step is at most 16 / 65535 nats.
class LogitsFile {
 public:
  // Takes the disk space at once. Throws Error{kInvalidArgument} for chunks of another protocol than llama.cpp's, which
  // the format cannot tell, and Error{kIo} when the folder cannot be written.
  LogitsFile(const std::filesystem::path& path, const calib::TokenChunks& chunks, std::int64_t vocab);

  // Row `index` of chunks.scored(): `vocab` finite logits and ln sum exp of them. From any thread, each row once.
  void write_row(std::int64_t index, const float* logits, double log_sum);
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
  std::int64_t vocab_;
  std::uint64_t header_bytes_ = 0, row_bytes_ = 0;
};

}  // namespace nibble::eval
