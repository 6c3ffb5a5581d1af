// rotate: the residual stream and the values of each head in another basis, in which no channel stands out (Ashkboos et
// al., arXiv 2404.00456, 3; SpinQuant's R1 and R2, arXiv 2405.16406). All of it is multiplied into the weights.
//
// With R orthogonal, x = R x' throughout: what writes into the stream is multiplied by R from the left, what reads from
// it by Rᵀ from the right. An RMSNorm without weights gives R times what it gave; its weights are folded into the
// readers first. So does a LayerNorm where R leaves the vector of ones as it is: then the mean of R x is that of x.
//
// With the setting "online" the inputs of output and down projections are mixed as the model runs (QuaRot, 3.2), which
// takes the place of R2: their weights are multiplied by the mixer from the right, and the model says so.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "model/links.h"
#include "transform/fold.h"
#include "transform/rotate/rotated_rows.h"
#include "transform/transform.h"

namespace nibble::transform::rotate {

namespace {

using model::Link;
using model::ModelSource;
using model::ModelSpec;
using model::Role;

constexpr std::string_view kOnline = "online";
constexpr std::uint64_t kCacheBytes = std::uint64_t{1} << 30;
constexpr float kMostPerWeight = 1e4f;  // of a norm's bias over its weight, where it is carried as that

// Weights whose rows are of the size of the stream, and those whose columns are.
constexpr Role kInRows[] = {Role::kAttnQ, Role::kAttnK, Role::kAttnV, Role::kAttnQkv, Role::kAttnQA, Role::kAttnKvA,
                            Role::kFfnGate, Role::kFfnUp, Role::kFfnGateUp, Role::kRouter, Role::kExpertGate,
                            Role::kExpertUp, Role::kSharedGate, Role::kSharedUp, Role::kSharedScale, Role::kOutput,
                            Role::kEmbeddingOut,
                            // Tables, whose rows are written into it:
                            Role::kTokenEmbedding, Role::kPositionEmbedding};
constexpr Role kInColumns[] = {Role::kAttnOutput, Role::kFfnDown, Role::kExpertDown, Role::kSharedDown,
                               Role::kEmbeddingIn};

bool is_in(std::span<const Role> roles, Role role) { return std::ranges::find(roles, role) != roles.end(); }

void refuse_what_is_not_exact(const ModelSpec& spec) {
  for (const model::BlockSpec& block : spec.blocks) {
    if (!block.attn_post_norm && !block.ffn_post_norm) continue;
    fail(ErrorCode::kUnsupported,
         "transform 'rotate' does not suit '{}': {} scales the residual stream channel by channel, and no weight "
         "follows "
         "that could take the scales",
         spec.arch, block.norm_sums ? "a norm of the sums" : "a norm behind a half of the block");
  }
}

class Rotator {
 public:
  Rotator(Transform::SharedSource source, std::uint64_t seed, bool online)
      : source_(std::move(source)),
        spec_(source_->spec()),
        seed_(seed),
        online_(online),
        rewritings_(spec_.weights.size()),
        made_(spec_.weights.size()) {
    const bool means = spec_.norm == model::NormKind::kLayer;
    stream_ = rotation(spec_.hidden, means ? Rotation::Kind::kKeepsMean : Rotation::Kind::kAny, 0);
    for (std::size_t slot = 0; slot < rewritings_.size(); ++slot) rewritings_[slot].from = slot;
  }

  Transform::SharedSource run() {
    if (online_) mix_inputs();
    for (int layer = 0; layer < spec_.n_layers(); ++layer) {
      for (const Link& link : model::block_links(spec_, layer)) {
        if (link.form == Link::Form::kNorm) fold_norm(link.producer, layer, link.consumers);
        if (!online_ && link.form == Link::Form::kRows && link.consumers[0] == Role::kAttnOutput)
          rotate_values(layer, link.producer, link.width, link.first_row, link.rows());
      }
      const model::LatentSpec& latent = spec_.blocks[static_cast<std::size_t>(layer)].latent;
      if (!online_ && latent.kv_rank > 0) rotate_values(layer, Role::kAttnVB, latent.value, 0, latent.value);
    }
    rotate_stream();
    ModelSpec spec = finish_head();
    spec.online_rotation = online_;
    const auto cache = std::make_shared<MatrixCache>(kCacheBytes);
    for (std::size_t slot = 0; slot < made_.size(); ++slot) {
      Rewriting& rewriting = rewritings_[slot];
      if (made_[slot] == nullptr && rewriting.changes())
        made_[slot] = std::make_shared<RotatedRows>(source_, std::move(rewriting), cache);
    }
    return source_->rewritten(std::move(spec), std::move(made_));
  }

 private:
  std::shared_ptr<const Rotation> rotation(std::int64_t n, Rotation::Kind kind, std::uint64_t stream) const {
    return std::make_shared<Rotation>(n, kind, random_bits(seed_, stream, 0));
  }
  std::size_t slot_of(Role role, int layer, bool bias = false) const { return slot_index(spec_, role, layer, bias); }

  // Its weights become 1, its bias 0 where all its readers have biases. Weights that are all the same stay: they go
  // with any rotation.
  void fold_norm(Role norm, int layer, std::span<const Role> readers) {
    const std::size_t slot = slot_of(norm, layer);
    const float one = spec_.norm_add_one ? 1.0f : 0.0f;
    std::vector<float> weight = read_weight(*source_, slot);
    for (float& value : weight) value += one;
    const bool even = std::ranges::all_of(weight, [&](float value) { return value == weight[0]; });
    if (!even) {
      made_[slot] = std::make_shared<ConstantRows>(source_, slot, 1 - one);
      for (const Role role : readers) rewritings_[slot_of(role, layer)].factors = weight;
    }
    const std::size_t bias = slot_of(norm, layer, true);
    if (bias == kNoSlot) return;
    const bool taken = std::ranges::all_of(readers, [&](Role role) { return bias_of(role, layer) != kNoSlot; });
    if (taken) {
      made_[bias] = std::make_shared<ConstantRows>(source_, bias, 0.0f);
      for (const Role role : readers) {
        Rewriting& rewriting = rewritings_[bias_of(role, layer)];
        rewriting.plus_weight = slot_of(role, layer);
        rewriting.plus = read_weight(*source_, bias);
      }
      return;
    }
    rewritings_[bias].inputs = stream_;
    if (!even) rewritings_[bias].factors = inverse(weight, bias);
  }

  std::size_t bias_of(Role reader, int layer) const {
    return slot_of(reader == Role::kTokenEmbedding ? Role::kOutput : reader, layer, true);
  }

  // What a norm's bias is multiplied by where its readers multiply it by the weights.
  std::vector<float> inverse(const std::vector<float>& weight, std::size_t bias) const {
    const std::vector<float> values = read_weight(*source_, bias);
    std::vector<float> factors;
    for (std::size_t i = 0; i < weight.size(); ++i) {
      if (std::fabs(values[i]) > kMostPerWeight * std::fabs(weight[i])) {
        fail(ErrorCode::kUnsupported,
             "transform 'rotate' cannot fold the norm of '{}': channel {} has weight {} beside it, and not all weights "
             "that follow have biases",
             spec_.weights[bias].hf_name, i, weight[i]);
      }
      factors.push_back(weight[i] != 0 ? 1 / weight[i] : 1.0f);
    }
    return factors;
  }

  void mix_inputs() {
    for (std::size_t slot = 0; slot < rewritings_.size(); ++slot) {
      const model::WeightSlot& weight = spec_.weights[slot];
      const bool mixed = weight.role == Role::kAttnOutput || weight.role == Role::kFfnDown;
      if (mixed && !weight.bias) rewritings_[slot].inputs = rotation(weight.shape.cols(), Rotation::Kind::kPlain, 0);
    }
  }

  // One rotation for all heads of a block: query heads share values.
  void rotate_values(int layer, Role values, std::int64_t width, std::int64_t first_row, std::int64_t rows) {
    const auto heads = rotation(width, Rotation::Kind::kAny, 1 + static_cast<std::uint64_t>(layer));
    rewritings_[slot_of(Role::kAttnOutput, layer)].inputs = heads;
    for (const bool bias : {false, true}) {
      const std::size_t slot = slot_of(values, layer, bias);
      if (slot == kNoSlot) continue;
      rewritings_[slot].outputs = heads;
      rewritings_[slot].first_output = first_row;
      rewritings_[slot].n_outputs = rows;
    }
  }

  void rotate_stream() {
    const bool narrow = spec_.embedding_size() != spec_.hidden;  // the embedding and the head are not of its size
    for (std::size_t slot = 0; slot < rewritings_.size(); ++slot) {
      const model::WeightSlot& weight = spec_.weights[slot];
      if (narrow && (weight.role == Role::kTokenEmbedding || weight.role == Role::kOutput)) continue;
      if (is_in(kInColumns, weight.role)) rewritings_[slot].outputs = stream_;
      if (is_in(kInRows, weight.role) && !weight.bias) rewritings_[slot].inputs = stream_;
    }
  }

  // The norm before the head. Returns the description of the model that results.
  ModelSpec finish_head() {
    const bool narrow = spec_.embedding_size() != spec_.hidden;
    const Role reader = narrow ? Role::kEmbeddingOut : spec_.tied ? Role::kTokenEmbedding : Role::kOutput;
    if (spec_.output_norm) fold_norm(Role::kOutputNorm, -1, {&reader, 1});
    Rewriting& rewriting = rewritings_[slot_of(reader, -1)];
    if (reader != Role::kTokenEmbedding || rewriting.factors.empty()) return spec_;
    // The embedding is no longer the head.
    Rewriting head = rewriting;
    rewriting.factors.clear();
    rewritings_.push_back(std::move(head));
    made_.emplace_back();
    return source_->with_head();
  }

  Transform::SharedSource source_;
  const ModelSpec& spec_;
  std::uint64_t seed_;
  bool online_;
  std::shared_ptr<const Rotation> stream_;
  std::vector<Rewriting> rewritings_;  // by slot
  std::vector<std::shared_ptr<const model::MadeRows>> made_;
};

void check(std::string_view settings) {
  if (settings.empty() || settings == kOnline) return;
  fail(ErrorCode::kInvalidArgument, "transform 'rotate' takes the setting '{}', '{}' was given", kOnline, settings);
}

Transform::SharedSource apply_model(const Transform::SharedSource& source, std::uint64_t seed,
                                    std::string_view settings) {
  refuse_what_is_not_exact(source->spec());
  if (source->spec().online_rotation)
    fail(ErrorCode::kUnsupported, "'{}' is rotated already", source->reader().path().string());
  return Rotator(source, seed, settings == kOnline).run();
}

}  // namespace

const Transform& entry() {
  static const Transform transform = {
      .name = "rotate",
      .summary = "the residual stream and the values of each head in a random basis, folded into all weights",
      .origin = "Ashkboos et al., arXiv 2404.00456",
      .check = check,
      .apply_model = apply_model,
  };
  return transform;
}

}  // namespace nibble::transform::rotate
