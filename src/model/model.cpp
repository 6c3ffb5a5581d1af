#include "model/model.h"

#include <algorithm>

#include "base/error.h"
#include "model/decoder.h"
#include "model/loader.h"

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
    if (decoder.positions != nullptr &&
        static_cast<std::int64_t>(segment.tokens.size()) > decoder.spec.context - length) {
      fail(ErrorCode::kInvalidArgument, "{} tokens after {}: the model has positions for {}", segment.tokens.size(),
           length, decoder.spec.context);
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
  model->impl_->weight_bytes = load_decoder(context, std::move(source), options, model->impl_->decoder);
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
