#include "model/loader.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"

namespace nibble::model {

namespace {

class Loader {
 public:
  Loader(ExecContext& context, const ModelSource& source, const LoadOptions& options, ProgressSink& progress)
      : context_(context),
        source_(source),
        options_(options),
        task_(progress, "loading", total_bytes(source), "bytes") {}

  void load(Decoder& decoder) {
    const ModelSpec& spec = decoder.spec;
    // A tied embedding is packed for the head and looked up in the packing; any other stays in the file.
    decoder.embedding = spec.tied ? matrix(Role::kTokenEmbedding, -1) : table(Role::kTokenEmbedding);
    if (spec.find(Role::kPositionEmbedding, -1) != nullptr) decoder.positions = table(Role::kPositionEmbedding);
    if (spec.find(Role::kEmbeddingIn, -1) != nullptr) {
      load_linear(decoder.embedding_in, Role::kEmbeddingIn, -1);
      load_linear(decoder.embedding_out, Role::kEmbeddingOut, -1);
    }
    decoder.blocks.resize(spec.blocks.size());
    for (int layer = 0; layer < spec.n_layers(); ++layer)
      load_block(layer, decoder.blocks[static_cast<std::size_t>(layer)]);
    decoder.output_norm = norm(Role::kOutputNorm, -1);
    decoder.head.matrix = spec.tied ? decoder.embedding : matrix(Role::kOutput, -1);
    decoder.head.bias = vector(Role::kOutput, -1, true);
    decoder.head.added = added(Role::kOutput, -1, 0, spec.vocab);
    decoder.embedding_added = added(Role::kTokenEmbedding, -1, 0, spec.vocab);
  }
  void load_block(int layer, DecoderBlock& block) {
    context_.check_cancelled();
    block = {};
    block.spec = source_.spec().blocks[static_cast<std::size_t>(layer)];
    block.attn_norm = norm(Role::kAttnNorm, layer);
    block.attn_post_norm = norm(Role::kAttnPostNorm, layer);
    block.q_norm = norm(Role::kAttnQNorm, layer);
    block.k_norm = norm(Role::kAttnKNorm, layer);
    if (block.spec.qk_norm == QkNorm::kAfterRope) {
      block.q_norm.weight.assign(static_cast<std::size_t>(block.spec.head_dim), 1.0f);
      block.k_norm = block.q_norm;
    }
    block.sinks = vector(Role::kAttnSinks, layer);
    block.ffn_norm = norm(Role::kFfnNorm, layer);
    block.ffn_post_norm = norm(Role::kFfnPostNorm, layer);
    block.spec.latent.kv_rank > 0 ? load_latent(layer, block) : load_queries(layer, block);
    load_linear(block.output, Role::kAttnOutput, layer);
    block.output_mixer = mixer_of(block.output);
    if (block.spec.experts.count > 0) return load_experts(layer, block);
    if (block.spec.gated) {
      const std::pair<Linear*, std::int64_t> gate_up[] = {{&block.gate, block.spec.ffn}, {&block.up, block.spec.ffn}};
      const Role gate_up_roles[] = {Role::kFfnGate, Role::kFfnUp};
      load_group(layer, Role::kFfnGateUp, gate_up, gate_up_roles);
    } else {
      load_linear(block.up, Role::kFfnUp, layer);
    }
    load_linear(block.down, Role::kFfnDown, layer);
    block.down_mixer = mixer_of(block.down);
  }

  std::uint64_t weight_bytes() const { return weight_bytes_; }

 private:
  // Of the inputs of a linear whose weights were made for it; blocks share those of a size.
  std::shared_ptr<const linalg::Mixer> mixer_of(const Linear& linear) {
    if (!source_.spec().online_rotation) return nullptr;
    std::shared_ptr<const linalg::Mixer>& mixer = mixers_[linear.matrix->cols()];
    if (mixer == nullptr) mixer = std::make_shared<linalg::Mixer>(linear.matrix->cols(), 0);
    return mixer;
  }

  static std::uint64_t total_bytes(const ModelSource& source) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < source.spec().weights.size(); ++i) {
      sum += source.weight(i).n_bytes();
    }
    return sum;
  }

  void load_queries(int layer, DecoderBlock& block) {
    const std::int64_t q_rows = std::int64_t{block.spec.n_heads} * block.spec.head_dim;
    const std::int64_t kv_rows = std::int64_t{block.spec.n_kv_heads} * block.spec.head_dim;
    const std::pair<Linear*, std::int64_t> qkv[] = {{&block.q, q_rows}, {&block.k, kv_rows}, {&block.v, kv_rows}};
    const Role qkv_roles[] = {Role::kAttnQ, Role::kAttnK, Role::kAttnV};
    load_group(layer, Role::kAttnQkv, qkv, qkv_roles);
  }

  void load_latent(int layer, DecoderBlock& block) {
    LatentWeights& latent = block.latent;
    if (block.spec.latent.q_rank > 0) {
      load_linear(latent.q_a, Role::kAttnQA, layer);
      latent.q_a_norm = norm(Role::kAttnQANorm, layer);
      load_linear(block.q, Role::kAttnQB, layer);
    } else {
      load_linear(block.q, Role::kAttnQ, layer);
    }
    load_linear(latent.kv_a, Role::kAttnKvA, layer);
    latent.kv_a_norm = norm(Role::kAttnKvANorm, layer);
    for (const auto& [role, linears] : {std::pair(Role::kAttnKB, &latent.k_b), {Role::kAttnVB, &latent.v_b}}) {
      for (auto& matrix : matrices(whole(role, layer), block.spec.n_heads, options_.path == MathPath::kExact))
        linears->push_back({std::move(matrix), {}});
    }
  }

  void load_experts(int layer, DecoderBlock& block) {
    const ExpertSpec& experts = block.spec.experts;
    load_linear(block.router, Role::kRouter, layer);
    block.router_bias = vector(Role::kRouterBias, layer, true);
    block.experts.resize(static_cast<std::size_t>(experts.count));
    const auto load_stack = [&](Role role, Linear FeedForward::*linear, std::int64_t rows) {
      const SlotRows all = {index(role, layer), 0, experts.count * rows};
      const auto stack = matrices(all, experts.count, options_.path == MathPath::kExact);
      const std::vector<float> bias = vector(role, layer, true);
      for (std::size_t i = 0; i < stack.size(); ++i) {
        Linear& expert = block.experts[i].*linear;
        expert.matrix = stack[i];
        const auto first = bias.begin() + static_cast<std::ptrdiff_t>(i) * rows;
        if (!bias.empty()) expert.bias.assign(first, first + rows);
      }
    };
    load_stack(Role::kExpertGate, &FeedForward::gate, experts.ffn);
    load_stack(Role::kExpertUp, &FeedForward::up, experts.ffn);
    load_stack(Role::kExpertDown, &FeedForward::down, source_.spec().hidden);
    if (experts.shared == 0) return;
    load_linear(block.shared.gate, Role::kSharedGate, layer);
    load_linear(block.shared.up, Role::kSharedUp, layer);
    load_linear(block.shared.down, Role::kSharedDown, layer);
    block.shared_scale = vector(Role::kSharedScale, layer);
  }

  void load_linear(Linear& linear, Role role, int layer) {
    linear.matrix = matrix(role, layer);
    linear.bias = vector(role, layer, true);
    linear.added = added(role, layer, 0, linear.matrix->rows());
  }

  LowRank added(Role role, int layer, std::int64_t row_begin, std::int64_t row_end) {
    LowRank sum = low_rank_of(options_.adapters, role, layer, row_begin, row_end);
    weight_bytes_ += (sum.a.size() + sum.b.size()) * sizeof(float);
    return sum;
  }

  // Linears of one input: each from its own tensor, or all from the fused one where the model has it.
  void load_group(int layer, Role fused, std::span<const std::pair<Linear*, std::int64_t>> parts,
                  std::span<const Role> roles) {
    if (index(fused, layer) == kNone) {
      for (std::size_t i = 0; i < parts.size(); ++i) load_linear(*parts[i].first, roles[i], layer);
      return;
    }
    const std::vector<float> bias = vector(fused, layer, true);
    std::int64_t row = 0;
    for (const auto& [linear, rows] : parts) {
      linear->matrix = matrix({index(fused, layer), row, row + rows}, options_.path == MathPath::kExact);
      if (!bias.empty()) linear->bias.assign(bias.begin() + row, bias.begin() + row + rows);
      linear->added = added(fused, layer, row, row + rows);
      row += rows;
    }
  }

  std::size_t index(Role role, int layer, bool bias = false) const {
    const WeightSlot* slot = source_.spec().find(role, layer, bias);
    return slot == nullptr ? kNone : static_cast<std::size_t>(slot - source_.spec().weights.data());
  }

  SlotRows whole(Role role, int layer) const {
    const std::size_t slot = index(role, layer);
    return {slot, 0, source_.spec().weights[slot].shape.rows()};
  }

  std::shared_ptr<const Matrix> matrix(Role role, int layer) {
    return matrix(whole(role, layer), options_.path == MathPath::kExact);
  }
  // A table whose rows are looked up in the file.
  std::shared_ptr<const Matrix> table(Role role) { return matrix(whole(role, -1), true); }

  std::shared_ptr<const Matrix> matrix(const SlotRows& rows, bool decoded) { return matrices(rows, 1, decoded)[0]; }

  std::vector<std::shared_ptr<const Matrix>> matrices(const SlotRows& rows, int count, bool decoded) {
    const Shape& shape = source_.spec().weights[rows.slot].shape;
    const std::uint64_t bytes = source_.weight(rows.slot).n_bytes() *
                                static_cast<std::uint64_t>(rows.end - rows.begin) /
                                static_cast<std::uint64_t>(shape.rows());
    std::uint64_t held = bytes;  // of the file when decoded: read again and again
    std::vector<std::shared_ptr<const Matrix>> out;
    if (decoded) {
      const std::int64_t height = (rows.end - rows.begin) / count;
      for (std::int64_t begin = rows.begin; begin < rows.end; begin += height)
        out.push_back(make_decoded_matrix(context_, source_, {rows.slot, begin, begin + height}));
    } else {
      out = make_packed_matrices(context_, source_, rows, count, options_.isa, held);
    }
    weight_bytes_ += held;
    task_.add(bytes);
    return out;
  }

  Norm norm(Role role, int layer) {
    Norm out = {vector(role, layer), vector(role, layer, true)};
    if (source_.spec().norm_add_one) {
      for (float& weight : out.weight) weight += 1;
    }
    return out;
  }

  std::vector<float> vector(Role role, int layer, bool bias = false) {
    const std::size_t slot = index(role, layer, bias);
    if (slot == kNone) return {};
    std::vector<float> out(static_cast<std::size_t>(source_.spec().weights[slot].shape.elements()));
    source_.read_rows(slot, 0, source_.spec().weights[slot].shape.rows(), out.data());
    if (!std::ranges::all_of(out, [](float value) { return std::isfinite(value); })) {
      fail(ErrorCode::kFormat, "tensor '{}' holds a value that is NaN or infinite", source_.weight(slot).entry->name);
    }
    weight_bytes_ += out.size() * sizeof(float);
    task_.add(source_.weight(slot).n_bytes());
    return out;
  }

  static constexpr std::size_t kNone = ~std::size_t{0};
  ExecContext& context_;
  const ModelSource& source_;
  const LoadOptions& options_;
  ProgressTask task_;
  std::uint64_t weight_bytes_ = 0;
  std::map<std::int64_t, std::shared_ptr<const linalg::Mixer>> mixers_;  // by size
};

}  // namespace

std::uint64_t load_decoder(ExecContext& context, std::shared_ptr<const ModelSource> source, const LoadOptions& options,
                           Decoder& decoder) {
  decoder.spec = source->spec();
  decoder.path = options.path;
  decoder.ops = &ops::choose_ops(options.isa);
  if (decoder.spec.positions == Positions::kAlibi) decoder.alibi = alibi_slopes(decoder.spec);
  const RopeSpec* const ropes[kRopes] = {&decoder.spec.rope, &decoder.spec.local_rope};
  for (int i = 0; i < kRopes; ++i) {
    if (rope_is_fixed(*ropes[i])) decoder.rope[i] = rope_frequencies(*ropes[i], 0);
  }
  const std::uint64_t bytes = with_context(source->reader().path().string(), [&] {
    if (!options.adapters.empty()) refuse_rotated(source->spec());
    Loader loader(context, *source, options, context.progress);
    loader.load(decoder);
    return loader.weight_bytes();
  });
  decoder.source = std::move(source);
  return bytes;
}

void load_block(ExecContext& context, const LoadOptions& options, int layer, Decoder& decoder) {
  NullProgress silent;
  with_context(decoder.source->reader().path().string(), [&] {
    Loader(context, *decoder.source, options, silent)
        .load_block(layer, decoder.blocks[static_cast<std::size_t>(layer)]);
  });
}

}  // namespace nibble::model
