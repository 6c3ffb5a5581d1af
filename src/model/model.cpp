#include "model/model.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/decoder.h"

namespace nibble::model {

struct Model::Impl {
  Decoder decoder;
  std::uint64_t weight_bytes = 0;
};

Model::Model() : impl_(std::make_unique<Impl>()) {}
Model::~Model() = default;
const ModelSpec& Model::spec() const { return impl_->decoder.spec; }
std::uint64_t Model::weight_bytes() const { return impl_->weight_bytes; }
MathPath Model::path() const { return impl_->decoder.path; }

namespace {

class Loader {
 public:
  Loader(ExecContext& context, const ModelSource& source, const LoadOptions& options)
      : context_(context),
        source_(source),
        options_(options),
        task_(context.progress, "loading", total_bytes(source), "bytes") {}

  void load(Decoder& decoder) {
    const ModelSpec& spec = decoder.spec;
    // A tied embedding is packed for the head and looked up in the packing; any other stays in the file.
    decoder.embedding =
        spec.tied ? matrix(Role::kTokenEmbedding, -1) : decoded_matrix(index(Role::kTokenEmbedding, -1));
    decoder.blocks.resize(spec.blocks.size());
    for (int layer = 0; layer < spec.n_layers(); ++layer)
      load_block(spec, layer, decoder.blocks[static_cast<std::size_t>(layer)]);
    decoder.output_norm = vector(Role::kOutputNorm, -1);
    decoder.head.matrix = spec.tied ? decoder.embedding : matrix(Role::kOutput, -1);
  }
  std::uint64_t weight_bytes() const { return weight_bytes_; }

 private:
  static std::uint64_t total_bytes(const ModelSource& source) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < source.spec().weights.size(); ++i) {
      if (source.weight(i).entry != nullptr) sum += source.weight(i).entry->view.n_bytes();
    }
    return sum;
  }

  void load_block(const ModelSpec& spec, int layer, DecoderBlock& block) {
    context_.check_cancelled();
    block.spec = spec.blocks[static_cast<std::size_t>(layer)];
    block.attn_norm = vector(Role::kAttnNorm, layer);
    block.q_norm = vector(Role::kAttnQNorm, layer);
    block.k_norm = vector(Role::kAttnKNorm, layer);
    block.ffn_norm = vector(Role::kFfnNorm, layer);
    const std::pair<Linear*, Role> linears[] = {{&block.q, Role::kAttnQ},      {&block.k, Role::kAttnK},
                                                {&block.v, Role::kAttnV},      {&block.output, Role::kAttnOutput},
                                                {&block.gate, Role::kFfnGate}, {&block.up, Role::kFfnUp},
                                                {&block.down, Role::kFfnDown}};
    for (const auto& [linear, role] : linears) {
      linear->matrix = matrix(role, layer);
      linear->bias = vector(role, layer, true);
    }
  }

  std::size_t index(Role role, int layer, bool bias = false) const {
    const WeightSlot* slot = source_.spec().find(role, layer, bias);
    return slot == nullptr ? kNone : static_cast<std::size_t>(slot - source_.spec().weights.data());
  }

  std::shared_ptr<const Matrix> matrix(Role role, int layer) {
    const std::size_t slot = index(role, layer);
    if (options_.path == MathPath::kExact) return decoded_matrix(slot);
    std::uint64_t packed_bytes = 0;
    std::shared_ptr<const Matrix> out = make_packed_matrix(context_, source_, slot, options_.isa, packed_bytes);
    weight_bytes_ += packed_bytes;
    task_.add(source_.weight(slot).entry->view.n_bytes());
    return out;
  }

  std::shared_ptr<const Matrix> decoded_matrix(std::size_t slot) {
    const std::uint64_t bytes = source_.weight(slot).entry->view.n_bytes();
    std::shared_ptr<const Matrix> out = make_decoded_matrix(context_, source_, slot);
    weight_bytes_ += bytes;  // of the file, but read again and again
    task_.add(bytes);
    return out;
  }

  std::vector<float> vector(Role role, int layer, bool bias = false) {
    const std::size_t slot = index(role, layer, bias);
    if (slot == kNone) return {};
    std::vector<float> out(static_cast<std::size_t>(source_.spec().weights[slot].shape.elements()));
    source_.read_rows(slot, 0, 1, out.data());
    if (!std::ranges::all_of(out, [](float value) { return std::isfinite(value); })) {
      fail(ErrorCode::kFormat, "tensor '{}' holds a value that is NaN or infinite", source_.weight(slot).entry->name);
    }
    weight_bytes_ += out.size() * sizeof(float);
    task_.add(source_.weight(slot).entry->view.n_bytes());
    return out;
  }

  static constexpr std::size_t kNone = ~std::size_t{0};
  ExecContext& context_;
  const ModelSource& source_;
  const LoadOptions& options_;
  ProgressTask task_;
  std::uint64_t weight_bytes_ = 0;
};

bool cache_fits(const ModelSpec& spec, KvCache& cache) {
  const KvCache::State& state = cache.state();
  if (state.layers.size() != spec.blocks.size()) return false;
  for (std::size_t i = 0; i < spec.blocks.size(); ++i) {
    const BlockSpec& block = spec.blocks[i];
    if (state.layers[i].n_kv_heads != block.n_kv_heads || state.layers[i].head_dim != block.head_dim) return false;
  }
  return true;
}

// Throws unless every token and position exists.
void check_segments(const Decoder& decoder, KvCache& cache, std::span<const Segment> segments) {
  if (!cache_fits(decoder.spec, cache)) fail(ErrorCode::kInvalidArgument, "the cache was made for another model");
  if (decoder.path == MathPath::kExact && cache.type() != KvType::kF32) {
    fail(ErrorCode::kInvalidArgument, "the exact path needs an f32 cache");
  }
  std::vector<bool> seen(static_cast<std::size_t>(cache.n_sequences()));
  for (const Segment& segment : segments) {
    const std::int64_t length = cache.length(segment.sequence);  // checks the sequence
    if (seen[static_cast<std::size_t>(segment.sequence)]) {
      fail(ErrorCode::kInvalidArgument, "sequence {} twice in one batch", segment.sequence);
    }
    seen[static_cast<std::size_t>(segment.sequence)] = true;
    if (static_cast<std::int64_t>(segment.tokens.size()) > cache.context() - length) {
      fail(ErrorCode::kInvalidArgument, "{} tokens after {} do not fit a context of {}", segment.tokens.size(), length,
           cache.context());
    }
    for (const token::TokenId id : segment.tokens) {
      if (id < 0 || id >= decoder.spec.vocab) {
        fail(ErrorCode::kInvalidArgument, "token {} is outside the vocabulary of {}", id, decoder.spec.vocab);
      }
    }
  }
}

// Cuts the segments into parts of at most kPartTokens tokens.
std::vector<std::vector<Piece>> cut_parts(KvCache& cache, std::span<const Segment> segments) {
  std::vector<std::vector<Piece>> parts;
  std::int64_t rows = kPartTokens;  // of the last part
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const Segment& segment = segments[s];
    const std::int64_t start = cache.length(segment.sequence);
    const auto count = static_cast<std::int64_t>(segment.tokens.size());
    for (std::int64_t done = 0; done < count;) {
      if (rows == kPartTokens) {
        parts.emplace_back();
        rows = 0;
      }
      const std::int64_t n = std::min(count - done, kPartTokens - rows);
      parts.back().push_back({s, segment.sequence,
                              segment.tokens.subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(n)), done,
                              start + done, start + count, rows});
      done += n;
      rows += n;
    }
  }
  return parts;
}

}  // namespace

std::shared_ptr<const Model> Model::load(ExecContext& context, std::shared_ptr<const ModelSource> source,
                                         const LoadOptions& options) {
  std::shared_ptr<Model> model(new Model());
  Decoder& decoder = model->impl_->decoder;
  decoder.spec = source->spec();
  decoder.path = options.path;
  decoder.ops = &ops::choose_ops(options.isa);
  if (rope_is_fixed(decoder.spec.rope)) decoder.rope = rope_frequencies(decoder.spec.rope, 0);
  with_context(source->reader().path().string(), [&] {
    Loader loader(context, *source, options);
    loader.load(decoder);
    model->impl_->weight_bytes = loader.weight_bytes();
  });
  decoder.source = std::move(source);
  return model;
}

void Model::forward(ExecContext& context, KvCache& cache, std::span<const Segment> segments, const LogitsSink& sink,
                    ForwardObserver* observer) const {
  const Decoder& decoder = impl_->decoder;
  check_segments(decoder, cache, segments);
  for (const std::vector<Piece>& pieces : cut_parts(cache, segments)) {
    ForwardPart(context, decoder, cache.state(), pieces, segments, sink, observer).run();
  }
  for (const Segment& segment : segments) {
    cache.state().lengths[static_cast<std::size_t>(segment.sequence)] +=
        static_cast<std::int64_t>(segment.tokens.size());
  }
}

}  // namespace nibble::model
