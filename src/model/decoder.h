// The decoder: bound weights and the forward pass over them.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/kv_state.h"
#include "model/matrix.h"
#include "model/model.h"
#include "model/rope.h"
#include "ops/ops.h"

namespace nibble::model {

struct Linear {
  std::shared_ptr<const Matrix> matrix;
  std::vector<float> bias;  // empty: none
};

struct DecoderBlock {
  BlockSpec spec;
  std::vector<float> attn_norm, ffn_norm;
  std::vector<float> q_norm, k_norm;  // (head_dim), empty: none
  Linear q, k, v, output, gate, up, down;
};

struct Decoder {
  ModelSpec spec;
  std::shared_ptr<const ModelSource> source;
  MathPath path{};
  const ops::OpTable* ops = nullptr;
  std::shared_ptr<const Matrix> embedding;
  Linear head;  // a tied one is the embedding
  std::vector<DecoderBlock> blocks;
  std::vector<float> output_norm;
  RopeFrequencies rope;  // of rope scalings that do not look at the length
};

// Consecutive tokens of one segment inside a part of the batch.
struct Piece {
  std::size_t segment = 0;
  int sequence = 0;
  std::span<const token::TokenId> tokens;
  std::int64_t first_in_segment = 0;
  std::int64_t position = 0;      // of the first token in its sequence
  std::int64_t end_position = 0;  // one past the segment's last token
  std::int64_t row = 0;           // of the first token in the part
};

// Runs one part: at most kPartTokens tokens in all.
inline constexpr std::int64_t kPartTokens = 512;

class ForwardPart {
 public:
  ForwardPart(ExecContext& context, const Decoder& decoder, KvCache::State& cache, std::span<const Piece> pieces,
              std::span<const Segment> segments, const LogitsSink& sink, ForwardObserver* observer);
  void run();

 private:
  struct LinearUse {
    const Linear* linear;
    float* out;
  };
  void embed();
  void prepare_rope();
  void run_block(int layer);
  void attention(int layer, const DecoderBlock& block);
  void rotate_and_store(const Piece& piece, int layer, const DecoderBlock& block, int kv_head);
  void attend(const Piece& piece, int layer, const DecoderBlock& block, int kv_head, std::int64_t first,
              std::int64_t count, int thread);
  void keep_wanted_rows(const DecoderBlock& block);
  void emit_logits();

  // normed = norm(x) for n rows of the hidden size, rounded to every format that `linears` ask for.
  void norm_and_round(const float* x, const std::vector<float>& weight, std::span<const Linear* const> linears);
  // Rounds x, (n, cols), to those formats.
  void round_activations(const float* x, std::int64_t cols, std::span<const Linear* const> linears);
  void choose_formats(std::int64_t cols, std::span<const Linear* const> linears);
  void round_row(const float* x, std::int64_t cols, std::int64_t row);
  const std::byte* activations_of(const Matrix& matrix, const float* x);
  // Products of the rounded activations with every linear. kKeep: each into its own out. kAddTo: out is then added to
  // the residual stream. kGate: the first out becomes silu(first) * second.
  enum class After : std::uint8_t { kKeep, kAddTo, kGate };
  void run_linears(std::span<const LinearUse> uses, const float* x, After after);
  void finish_tile(std::span<const LinearUse> uses, After after, std::int64_t row_begin, std::int64_t row_end);
  void observe_input(int layer, std::span<const Role> roles, const float* x, std::int64_t cols);
  float* thread_scratch(int thread) { return scratch_ + thread * scratch_floats_; }

  ExecContext& context_;
  const Decoder& decoder_;
  const ops::OpTable& ops_;
  KvCache::State& cache_;
  std::span<const Piece> pieces_;
  std::span<const Segment> segments_;
  const LogitsSink& sink_;
  ForwardObserver* observer_;
  std::int64_t n_ = 0;                // rows in flight
  std::vector<std::int64_t> wanted_;  // rows whose logits are wanted, ascending
  bool compacted_ = false;            // residual holds the wanted rows only
  float* x_ = nullptr;                // residual stream, (n, hidden)
  float* scratch_ = nullptr;
  std::int64_t scratch_floats_ = 0;
  const kernel::ActivationFormat* formats_[Workspace::kFormats] = {};
  std::size_t n_formats_ = 0;
};

}  // namespace nibble::model
