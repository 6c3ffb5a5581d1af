// The decoder: bound weights and the forward pass over them.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "linalg/hadamard.h"
#include "model/kv_state.h"
#include "model/lora.h"
#include "model/matrix.h"
#include "model/model.h"
#include "model/rope.h"
#include "ops/ops.h"

namespace nibble::model {

struct Linear {
  std::shared_ptr<const Matrix> matrix;
  std::vector<float> bias;  // empty: none
  LowRank added{};          // by adapters, before the bias
};

struct Norm {
  std::vector<float> weight, bias;  // empty: none
  bool empty() const { return weight.empty(); }
};

struct FeedForward {
  Linear gate, up, down;
};

// Of latent attention, beside q, which is the second of the queries' matrices where they have a latent.
struct LatentWeights {
  Linear q_a, kv_a;
  Norm q_a_norm, kv_a_norm;
  std::vector<Linear> k_b, v_b;  // of each head: (latent, plain part), (value, latent)
};

struct DecoderBlock {
  BlockSpec spec;
  Norm attn_norm, attn_post_norm, ffn_norm, ffn_post_norm;
  Norm q_norm, k_norm;
  LatentWeights latent;
  std::vector<float> sinks;                                       // of each head; empty: none
  Linear q, k, v, output, gate, up, down;                         // parts of a fused weight are matrices of their own
  std::shared_ptr<const linalg::Mixer> output_mixer, down_mixer;  // of their inputs; null: none
  // Instead of gate, up and down of a dense half:
  Linear router;
  std::vector<float> router_bias;  // empty: none
  std::vector<FeedForward> experts;
  FeedForward shared;
  std::vector<float> shared_scale;  // empty: none
};

// The rotations that blocks choose from (BlockRope::kMain and kLocal).
inline constexpr int kRopes = 2;

struct Decoder {
  ModelSpec spec;
  std::shared_ptr<const ModelSource> source;
  MathPath path{};
  const ops::OpTable* ops = nullptr;
  std::shared_ptr<const Matrix> embedding;
  LowRank embedding_added;                  // to its rows, by adapters
  std::shared_ptr<const Matrix> positions;  // learned ones; null: none
  Linear embedding_in, embedding_out;       // of an embedding of another size; no matrix: none
  Linear head;                              // a tied one is the embedding
  std::vector<DecoderBlock> blocks;
  Norm output_norm;
  std::vector<float> alibi;      // slope of each head; empty: none
  RopeFrequencies rope[kRopes];  // of rope scalings that do not look at the length
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

  // The pass in steps, for a caller that holds the residual stream: x (n, hidden), read and written by each.
  void embed_to(float* x);
  void run_halves_of(int layer, bool attention, bool feed_forward, float* x);
  void show_head_input(const float* x);  // to the observer
  void logits_of(const float* x);        // to the sink

 private:
  static constexpr std::int64_t kAllRows = -1, kSameRow = -1;
  struct LinearUse {
    const Linear* linear;
    float* out;
    // Rows of the activations that it takes, and of `out` that it fills; kAllRows: all.
    std::int64_t first_row = 0, n_rows = kAllRows;
    std::int64_t input_row = kSameRow;  // where its activations begin, when that is not first_row
  };
  void embed();
  void look_up_tokens(float* rows);
  void add_positions();
  void prepare_rope();
  void fill_rope(const RopeSpec& spec, const RopeFrequencies& fixed, float* cos, float* sin);
  void run_block(int layer);
  void run_feed_forward_half(int layer, const DecoderBlock& block);
  void run_attention(int layer, const DecoderBlock& block);
  void project_queries(int layer, const DecoderBlock& block);
  void latent_queries(int layer, const DecoderBlock& block);
  float* latent_projections(int layer, const DecoderBlock& block);
  float* latent_values(int layer, const DecoderBlock& block);
  const float* run_heads(int layer, Role role, std::span<const Linear> linears, std::int64_t cols);
  void run_feed_forward(int layer, const DecoderBlock& block);
  void run_experts(int layer, const DecoderBlock& block);
  void route(const DecoderBlock& block, const float* scores);
  void run_shared_expert(int layer, const DecoderBlock& block, const float* x, float* out);
  bool takes_input_as_it_is(const DecoderBlock& block) const;
  void run_routed_experts(int layer, const DecoderBlock& block, const float* x, float* out);
  // Norms and scales the output of one half as the block asks, and adds it to the residual stream.
  void finish_half(const Norm& post_norm, float* out, bool add, bool norm_sum = false);
  void attention(int layer, const DecoderBlock& block);
  void norm_queries_and_keys(const DecoderBlock& block);
  void finish_head(float* head, const Norm& norm, int index, std::int64_t row, const BlockSpec& spec);
  void rotate_and_store(const Piece& piece, int layer, const DecoderBlock& block, int kv_head);
  // Query heads that share a key/value head, as many as a task takes.
  struct Heads {
    int kv_head, first, count;
  };
  void attend(const Piece& piece, int layer, const DecoderBlock& block, const Heads& heads, std::int64_t first,
              std::int64_t count, int thread);
  void keep_wanted_rows(const DecoderBlock& block);
  void emit_logits();
  const float* norm_for_head(const float* x);
  void finish_logits(float* logits);

  void norm(const Norm& norm, const float* x, std::int64_t n, float* out) const;
  // norm(x) for n rows of the hidden size (x itself where there is no norm), rounded as the linears ask.
  const float* norm_and_round(const float* x, const Norm& norm, std::span<const LinearUse> uses);
  // Rounds x, (n, cols), as they ask.
  void round_activations(const float* x, std::int64_t cols, std::span<const LinearUse> uses);
  void plan_rounding(std::int64_t cols, std::span<const LinearUse> uses);
  // `sorted`: work memory.
  void round_row(const float* x, std::int64_t cols, std::int64_t row, std::vector<float>& sorted);
  const std::byte* activations_of(const LinearUse& use, const float* x);
  // The input, rounded for those of its linears that take the same: a format and, of matrices whose columns have an
  // order of their own, that order.
  struct Rounded {
    const kernel::ActivationFormat* format = nullptr;
    InputRounding inputs;
    std::vector<const std::int32_t*> orders;  // of each row, null where none is asked for; empty: as columns come
  };
  bool serves(const Rounded& rounded, const LinearUse& use) const;
  // Products of the rounded activations with every linear. kKeep: each into its own out. kAddTo: out is then added to
  // the residual stream. kGate: the first out becomes activation(first) * second; kActivate: out becomes
  // activation(out).
  enum class After : std::uint8_t { kKeep, kAddTo, kGate, kActivate };
  void run_linears(std::span<const LinearUse> uses, const float* x, After after, Activation activation = {});
  // What adapters add: the inputs times their a, (rows of the use, rank), one use after the other; and that times rows
  // of their b.
  std::vector<const float*> reduce_inputs(std::span<const LinearUse> uses, const float* x);
  void add_low_rank(const LinearUse& use, const float* reduced, std::int64_t row_begin, std::int64_t row_end) const;
  void finish_tile(std::span<const LinearUse> uses, After after, Activation activation, std::int64_t row_begin,
                   std::int64_t row_end);
  void for_rows(std::int64_t cols, const std::function<void(std::int64_t row)>& body);
  void mix(const linalg::Mixer* mixer, float* rows);
  void observe_input(int layer, std::span<const Role> roles, const float* x, std::int64_t cols);
  void observe_stack(int layer, std::span<const Role> roles, const float* x, std::span<const std::int64_t> begins,
                     std::int64_t cols);
  // Tokens that a linear meets, about.
  std::int64_t batch_size() const { return n_ / experts_in_flight_; }
  std::int64_t rows_of(const LinearUse& use) const { return use.n_rows == kAllRows ? n_ : use.n_rows; }
  static std::int64_t first_input(const LinearUse& use) {
    return use.input_row == kSameRow ? use.first_row : use.input_row;
  }
  float* thread_scratch(int thread) { return scratch_ + thread * scratch_floats_; }

  ExecContext& context_;
  const Decoder& decoder_;
  const ops::OpTable& ops_;
  KvCache::State& cache_;
  std::span<const Piece> pieces_;
  std::span<const Segment> segments_;
  const LogitsSink& sink_;
  ForwardObserver* observer_;
  std::int64_t n_ = 0;                  // rows in flight
  std::int64_t experts_in_flight_ = 1;  // that those are shared out to
  std::vector<std::int64_t> wanted_;    // rows whose logits are wanted, ascending
  bool compacted_ = false;              // residual holds the wanted rows only
  float* x_ = nullptr;                  // residual stream, (n, hidden)
  float* scratch_ = nullptr;
  std::int64_t scratch_floats_ = 0;
  Rounded rounded_[Workspace::kRounded];
  std::size_t n_rounded_ = 0;
  // Tokens sorted by expert: of expert e those in [expert_begin_[e], expert_begin_[e + 1]), with the weight of each.
  struct Routed {
    std::int64_t row;
    float weight;
  };
  std::vector<Routed> routed_;
  std::vector<std::int64_t> expert_begin_;
  std::vector<std::int64_t> routed_of_row_;  // (n, used): where in routed_
};

}  // namespace nibble::model
