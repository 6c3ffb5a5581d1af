#include "model/block_model.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "model/loader.h"

namespace nibble::model {

namespace {

// Visits the sequences in parts that fit a forward part: visit(part, first token of it). A long sequence takes several,
// in order.
template <typename Visit>
void for_parts(ExecContext& context, const Decoder& decoder, std::span<const token::TokenId> tokens,
               std::int64_t length, ForwardObserver* observer, Visit&& visit,
               const BlockModel::TokenSink& logits = {}) {
  const auto n_tokens = static_cast<std::int64_t>(tokens.size());
  const std::int64_t sequences = std::max<std::int64_t>(1, kPartTokens / length);  // of a part
  KvCache cache(decoder.spec, KvType::kF32, static_cast<int>(sequences), length);
  std::int64_t begin = 0;
  const LogitsSink sink = [&](std::size_t sequence, std::int64_t first, std::int64_t n, const float* rows) {
    logits(begin + static_cast<std::int64_t>(sequence) * length + first, n, rows);
  };
  for (; begin < n_tokens; begin += sequences * length) {
    const std::int64_t end = std::min(n_tokens, begin + sequences * length);
    std::vector<Segment> segments;
    for (std::int64_t at = begin; at < end; at += length)
      segments.push_back({static_cast<int>(segments.size()),
                          tokens.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(length)), 0});
    for (std::int64_t first = 0; first < length; first += kPartTokens) {
      context.check_cancelled();
      const std::int64_t count = std::min(kPartTokens, length - first);
      std::vector<Piece> pieces;
      for (std::size_t s = 0; s < segments.size(); ++s)
        pieces.push_back({s, segments[s].sequence,
                          segments[s].tokens.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)),
                          first, first, length, static_cast<std::int64_t>(s) * count});
      ForwardPart part(context, decoder, cache.state(), pieces, segments, sink, observer);
      visit(part, begin + first);
      for (const Segment& segment : segments)
        cache.state().lengths[static_cast<std::size_t>(segment.sequence)] = first + count;
    }
    for (const Segment& segment : segments) cache.truncate(segment.sequence, 0);
  }
}

}  // namespace

BlockModel::BlockModel(ExecContext& context, std::shared_ptr<const ModelSource> source, Isa isa)
    : decoder_(std::make_unique<Decoder>()), options_{MathPath::kExact, isa} {
  load_decoder(context, std::move(source), options_, *decoder_);
}

BlockModel::~BlockModel() = default;
const ModelSpec& BlockModel::spec() const { return decoder_->spec; }

void BlockModel::reload(ExecContext& context, int layer) { load_block(context, options_, layer, *decoder_); }

void BlockModel::embed(ExecContext& context, std::span<const token::TokenId> tokens, std::int64_t length,
                       float* x) const {
  const auto bad = std::ranges::find_if(tokens, [&](token::TokenId id) { return id < 0 || id >= spec().vocab; });
  if (bad != tokens.end())
    fail(ErrorCode::kInvalidArgument, "token {} is outside the vocabulary of {}", *bad, spec().vocab);
  if (decoder_->positions != nullptr && length > spec().context)
    fail(ErrorCode::kInvalidArgument, "sequences of {} tokens: the model has positions for {}", length, spec().context);
  for_parts(context, *decoder_, tokens, length, nullptr,
            [&](ForwardPart& part, std::int64_t first) { part.embed_to(x + first * spec().hidden); });
}

void BlockModel::run(ExecContext& context, int layer, Half half, std::int64_t n_sequences, std::int64_t length,
                     float* x, ForwardObserver* observer) const {
  const BlockSpec& block = spec().blocks.at(static_cast<std::size_t>(layer));
  if (block.parallel && half != Half::kBoth) fail(ErrorCode::kInternal, "a parallel block has no halves");
  const std::vector<token::TokenId> any(static_cast<std::size_t>(n_sequences * length));
  for_parts(context, *decoder_, any, length, observer, [&](ForwardPart& part, std::int64_t first) {
    try {
      part.run_halves_of(layer, half != Half::kFeedForward, half != Half::kAttention, x + first * spec().hidden);
    } catch (const Enough&) {
    }
  });
}

void BlockModel::show_head_input(ExecContext& context, std::int64_t n_sequences, std::int64_t length, const float* x,
                                 ForwardObserver& observer) const {
  const std::vector<token::TokenId> any(static_cast<std::size_t>(n_sequences * length));
  for_parts(context, *decoder_, any, length, &observer,
            [&](ForwardPart& part, std::int64_t first) { part.show_head_input(x + first * spec().hidden); });
}

void BlockModel::logits(ExecContext& context, std::int64_t n_sequences, std::int64_t length, const float* x,
                        const TokenSink& sink) const {
  const std::vector<token::TokenId> any(static_cast<std::size_t>(n_sequences * length));
  for_parts(
      context, *decoder_, any, length, nullptr,
      [&](ForwardPart& part, std::int64_t first) { part.logits_of(x + first * spec().hidden); }, sink);
}

}  // namespace nibble::model
