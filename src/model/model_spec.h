// A decoder-only transformer as plain data: everything the one decoder, the converters and the planner need to know.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/op_table.h"
#include "tensor/shape.h"

namespace nibble::model {

// What a weight is for. Names as text: role_name(), the GGUF stem of the role ("attn_q", "ffn_down", "token_embd").
enum class Role : std::uint8_t {
  kTokenEmbedding,
  kPositionEmbedding,
  kEmbeddingIn,  // from the size of the embedding to the hidden size
  kOutputNorm,
  kEmbeddingOut,  // and back, before the head
  kOutput,
  kAttnNorm,
  kAttnQ,
  kAttnK,
  kAttnV,
  kAttnQkv,  // q, k and v one below the other
  // Latent attention: of the queries' latent, its norm, from there to the queries; of the keys' latent and rotated
  // part, the latent's norm; from the latent to each head's keys, transposed, and values, (heads, out, in).
  kAttnQA,
  kAttnQANorm,
  kAttnQB,
  kAttnKvA,
  kAttnKvANorm,
  kAttnKB,
  kAttnVB,
  kAttnOutput,
  kAttnQNorm,
  kAttnKNorm,
  kAttnSinks,  // of each head: a score that takes its share of the softmax without a value
  kAttnPostNorm,
  kFfnNorm,
  kFfnGate,
  kFfnUp,
  kFfnGateUp,  // gate and up one below the other
  kFfnDown,
  kFfnPostNorm,
  kRouter,      // scores of the experts
  kRouterBias,  // added to the scores where experts are chosen
  kExpertGate,  // (experts, out, in): one matrix per expert
  kExpertUp,
  kExpertDown,
  kSharedGate,  // of the expert that every token goes through
  kSharedUp,
  kSharedDown,
  kSharedScale,  // its weight is the sigmoid of the product with this vector
  kRopeFactors,
  kRopeFactorsLong,  // longrope: of sequences beyond the original context, and of those up to it
  kRopeFactorsShort,
};
std::string_view role_name(Role role);
// Is it a matrix that activations are multiplied by, or a table that rows are looked up in?
bool is_matrix(Role role);
bool is_rope_factors(Role role);
bool is_expert_stack(Role role);

// kNone with `factors` set divides each frequency by its factor: how a GGUF file holds llama3 scaling.
enum class RopeScaling : std::uint8_t { kNone, kLinear, kDynamic, kYarn, kLlama3, kLongRope };

enum class NormKind : std::uint8_t { kRms, kLayer };
enum class Positions : std::uint8_t { kRotary, kLearned, kAlibi };
using ops::Activation;
// Norms of queries and keys: over each head with one set of weights or a set for each head, or over all heads at once.
// kAfterRope: over each head after the rotation, without weights.
enum class QkNorm : std::uint8_t { kNone, kPerHead, kPerHeadOwn, kWhole, kAfterRope };
// Which rotation the queries and keys of a block get.
enum class BlockRope : std::uint8_t { kMain, kLocal, kNone };

struct RopeSpec {
  double theta = 10000;
  int dims = 0;  // rotated part of a head, from its start; pairs are (i, i + dims/2): Hugging Face's order
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;
  std::int64_t original_context = 0;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double attention_factor = 0;                       // yarn, longrope: of cos and sin; 0: from the factor
  double beta_fast = 32, beta_slow = 1;              // yarn
  bool truncate = true;                              // yarn: the ramp's ends are rounded outwards to whole dimensions
  std::vector<float> factors;  // divisors of each frequency, (dims/2); longrope: of sequences up to original_context
  std::vector<float> long_factors;  // longrope: of longer sequences

  bool operator==(const RopeSpec&) const = default;
};

// A feed-forward half of many, of which each token passes the few that its router scores highest. The weights of the
// chosen are their shares of a softmax over all scores, or the sigmoids of their scores.
enum class Scoring : std::uint8_t { kSoftmax, kSigmoid };
struct ExpertSpec {
  int count = 0;         // 0: a dense half
  int used = 0;          // by each token
  std::int64_t ffn = 0;  // of each expert
  Scoring scoring = Scoring::kSoftmax;
  bool score_bias = false;  // is added to the scores for the choice alone
  // Experts are chosen from the best groups only: by its best score, of sigmoids by the sum of its best two.
  int groups = 1, groups_used = 1;
  bool renormalize = true;    // the weights of the chosen are scaled to a sum of 1
  double scale = 1;           // of the weights, at last
  std::int64_t shared = 0;    // feed-forward size of the expert that every token passes; 0: none
  bool shared_gated = true;   // its output is scaled by a sigmoid
  bool bias = false;          // of the router and of each expert
  bool weigh_inputs = false;  // the weight of an expert is applied to its input, not to its output

  bool operator==(const ExpertSpec&) const = default;
};

// Latent attention (arXiv 2405.04434, 2.1): the cache holds one latent per token, of which every head's keys and values
// are products, and a rotated part that all keys share. It is computed as one key/value head whose head_dim is rotated
// part and latent together.
struct LatentSpec {
  int kv_rank = 0;  // of the latent; 0: plain attention
  int q_rank = 0;   // of a latent of the queries; 0: none
  int plain = 0;    // of a head: the part of query and key that is not rotated
  int value = 0;    // of a head: its value

  bool operator==(const LatentSpec&) const = default;
};

struct BlockSpec {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  std::int64_t ffn = 0;  // of a dense half
  ExpertSpec experts;
  LatentSpec latent;
  std::int64_t window = 0;  // a token sees itself and the window - 1 tokens before it; 0: all
  bool chunked = false;     // the window is a fixed stretch: a token sees those since the last multiple of it
  bool qkv_bias = false;
  bool output_bias = false;  // of the attention's output projection
  bool ffn_bias = false;
  bool qkv_fused = false;      // one tensor holds q, k and v
  bool gate_up_fused = false;  // one tensor holds gate and up
  bool gated = true;           // activation(gate) * up; else activation(up)
  Activation activation = Activation::kSilu;
  QkNorm qk_norm = QkNorm::kNone;  // of the model's kind of norm
  bool qk_norm_bias = false;
  bool sinks = false;
  BlockRope rope = BlockRope::kMain;
  // Norms before and after each half. Without a norm before the feed-forward a parallel block shares the first one.
  bool attn_norm = true, attn_post_norm = false, ffn_norm = true, ffn_post_norm = false;
  bool norm_sums = false;          // the norms after a half are of the residual stream with its output
  bool parallel = false;           // both halves read the block's input
  float k_scale = 0, v_scale = 0;  // of keys and values in a cache with fixed scales; 0: none

  bool operator==(const BlockSpec&) const = default;
};

// How a file orders the rows of a weight or the entries of its bias. Canonical: rotary pairs are (i, i + half of the
// head), and a fused matrix is all of q, then k, then v.
struct RowOrder {
  enum class Kind : std::uint8_t {
    kCanonical,
    kPairs,  // rotary pairs of each of `heads` lie side by side (formats.md 1.5); `tail`: those of its last rows
    kGroups  // for each of `heads` key/value heads: its `group` query heads, its key, its value
  };
  Kind kind = Kind::kCanonical;
  int heads = 0;
  int group = 0;
  int tail = 0;  // 0: whole heads

  bool operator==(const RowOrder&) const = default;
};
// Where canonical row r of `rows` is stored; empty for the canonical order.
std::vector<std::int32_t> stored_rows(const RowOrder& order, std::int64_t rows);
// Its inverse: the canonical row that stored row r is.
std::vector<std::int32_t> canonical_rows(const RowOrder& order, std::int64_t rows);

// Where a tensor holds the numbers of a stack of matrices that is not alone in it, or lies otherwise than row below
// row: number (m, r, c) at element offset + m * matrix + r * row + c * col. Either `col` is less than a row of the
// tensor and the numbers of a row lie in one row of it, or `col` is a multiple of that and `row` is less.
struct Strides {
  Shape shape;  // of the tensor; rank 0: no strides
  std::int64_t offset = 0, matrix = 0, row = 0, col = 1;

  bool empty() const { return shape.rank() == 0; }
  // Of the same numbers where each matrix of the tensor, (a, b), lies as (b, a).
  Strides turned() const;
  // Of a weight of that shape: of three dimensions the first counts the matrices, else there is one.
  static std::int64_t rows_of_matrix(const Shape& weight) { return weight.rank() == 3 ? weight[1] : weight.rows(); }

  bool operator==(const Strides&) const = default;
};

// One tensor of the model: its canonical (Hugging Face) name, its GGUF name, and what the two dialects of this
// architecture do to it.
struct WeightSlot {
  Role role{};
  bool bias = false;
  int layer = -1;  // -1: not in a block
  std::string hf_name;
  std::string gguf_name;
  Shape shape;       // canonical: (out, in), or (n)
  Shape file_shape;  // of a vector that the files hold as several rows; rank 0: as `shape`
  RowOrder hf_rows, gguf_rows;
  bool hf_transposed = false;  // Hugging Face's file holds (in, out)
  float gguf_add = 0;          // added to each value in GGUF (norms that scale by 1 + weight)
  // Hugging Face's files hold so many tensors, one of each expert or head ('*' in the name); 0: one tensor.
  int hf_parts = 0;
  Strides hf_strides;     // slots of one name in Hugging Face's files, one after the other, share a tensor
  bool hf_row = false;    // a vector that Hugging Face's file holds as a matrix of one row
  bool optional = false;  // may be absent (a tied head, rope factors); never set in the spec of an opened source

  bool operator==(const WeightSlot&) const = default;
};

// The shape of a slot's tensor in a file of a dialect; of one part, where there are parts.
Shape file_shape(const WeightSlot& slot, bool gguf);
// The name of part `index` in Hugging Face's files.
std::string hf_part_name(const WeightSlot& slot, int index);

struct ModelSpec {
  std::string arch;  // GGUF's name of the architecture
  std::string name;  // general.name or folder name
  std::int64_t hidden = 0;
  std::int64_t embedding = 0;  // size of a token's row in the embedding and of the head's input; 0: as hidden
  std::int64_t vocab = 0;
  std::int64_t context = 0;  // trained context length
  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-5;
  bool norm_bias = false;
  bool output_norm = true;
  bool norm_add_one = false;  // norms scale by 1 + weight
  bool tied = false;          // the head is the token embedding
  bool head_bias = false;
  Positions positions = Positions::kRotary;
  std::int64_t position_offset = 0;  // learned: the row of position 0
  double alibi_scale = 1;            // of the slopes
  RopeSpec rope;
  RopeSpec local_rope;  // of blocks with BlockRope::kLocal
  double embedding_scale = 1;
  // Inputs of the output projections, and of the down projections of dense halves, go through linalg::Mixer(n, 0)
  // first: their weights were made for that (transform/rotate).
  bool online_rotation = false;
  double residual_scale = 1;   // of what each half adds to the residual stream
  double attention_scale = 0;  // of the scores; 0: 1 / sqrt(head_dim)
  // Queries at position p are scaled by 1 + temperature_scale * ln(1 + floor(p / temperature_span)).
  double temperature_scale = 0;
  std::int64_t temperature_span = 0;
  bool temperature_unrotated = false;  // at p + 1, and in blocks without a rotation alone
  double attention_softcap = 0;        // scores are softcap * tanh(score / softcap); 0: as they are
  double logit_scale = 1;
  double logit_softcap = 0;
  // The type of cache that the folder was made for, whose fixed scales its blocks have.
  std::optional<ops::KvType> kv_type;
  std::vector<BlockSpec> blocks;
  std::vector<WeightSlot> weights;  // every tensor the model needs, block by block in evaluation order

  int n_layers() const { return static_cast<int>(blocks.size()); }
  std::int64_t embedding_size() const { return embedding > 0 ? embedding : hidden; }
  const WeightSlot* find(Role role, int layer, bool bias = false) const;  // null when absent
  // The part of a weight that one token makes the decoder read: of a stack of experts those it is routed to.
  double used_share(const WeightSlot& slot) const;
  std::uint64_t parameters() const;  // elements of all weights, a tied head once

  bool operator==(const ModelSpec&) const = default;
};

// In Hugging Face's files, the fixed scale of the keys (side 'k') or values ('v') of a block's cache, beside the
// projections: "model.layers.0.self_attn.k_scale". Empty where latents are cached.
std::string cache_scale_name(const ModelSpec& spec, int layer, char side);

// Throws Error{kFormat} when sizes contradict each other or are beyond reason. Every spec made from a file passes
// through it.
void validate(const ModelSpec& spec);

}  // namespace nibble::model
