#include "model/kv_cache.h"

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/error.h"
#include "model/kv_state.h"
#include "ops/kv_layout.h"

namespace nibble::model {

namespace {

std::uint64_t product(std::int64_t a, std::int64_t b) {
  return checked_mul(checked_cast<std::uint64_t>(a), checked_cast<std::uint64_t>(b));
}

// Scales are those of one type: for another one's codes they would be too small or too large.
void check_scales(const ModelSpec& spec, const BlockSpec& block, KvType type) {
  if (spec.kv_type != type) {
    fail(ErrorCode::kInvalidArgument, "KV cache type {} takes its scales from the model, and {} has {}",
         kv_type_name(type), spec.name,
         spec.kv_type ? format_text("those of {}", kv_type_name(*spec.kv_type)) : "none");
  }
  for (const float scale : {block.k_scale, block.v_scale}) {
    if (!ops::kv_takes_scale(type, scale))
      fail(ErrorCode::kUnsupported, "a KV cache of type {} with a scale of {}", kv_type_name(type), scale);
  }
}

void check_head(KvType type, int head_dim) {
  const ops::KvFormat& format = ops::kv_format(type);
  if (ops::kv_can_keep(format, head_dim)) return;
  if (head_dim > ops::kMostHead) fail(ErrorCode::kInvalidArgument, "a KV cache of heads of {} numbers", head_dim);
  fail(ErrorCode::kInvalidArgument,
       "KV cache type {} rotates 16, 32, 64, ... numbers of a head at once; heads of {} are no multiple of 16",
       format.name, head_dim);
}

}  // namespace

std::span<const std::string_view> kv_type_names() {
  static const auto names = [] {
    std::array<std::string_view, ops::kKvTypes> all;
    std::ranges::transform(ops::kKvFormats, all.begin(), &ops::KvFormat::name);
    return all;
  }();
  return names;
}

const encoding::ActivationInfo* cache_rounding(KvType type) {
  if (!ops::kv_format(type).fixed) return nullptr;
  return &encoding::get_activation(type == KvType::kInt8Static ? "int8-tensor" : "fp8-tensor");
}

KvType fixed_kv_type(const encoding::ActivationInfo& rounding) {
  return rounding.code == encoding::InputCode::kInteger ? KvType::kInt8Static : KvType::kFp8Static;
}

KvCache::KvCache(const ModelSpec& spec, KvType type, int n_sequences, std::int64_t context)
    : state_(std::make_unique<State>()) {
  if (n_sequences < 1 || context < 1 || context > (std::int64_t{1} << 40)) {
    fail(ErrorCode::kInvalidArgument, "a cache of {} sequences of {} tokens", n_sequences, context);
  }
  state_->type = type;
  state_->context = context;
  state_->lengths.resize(static_cast<std::size_t>(n_sequences));
  for (const BlockSpec& block : spec.blocks) {
    check_head(type, block.head_dim);
    if (ops::kv_format(type).fixed) check_scales(spec, block, type);
    State::Layer layer;
    layer.n_kv_heads = block.n_kv_heads;
    layer.head_dim = block.head_dim;
    layer.k_scale = block.k_scale;
    layer.v_scale = block.v_scale;
    layer.k_block_bytes = ops::key_block_bytes(type, block.head_dim);
    layer.v_block_bytes = ops::value_block_bytes(type, block.head_dim);
    layer.n_blocks = ops::kv_blocks(context);
    const auto blocks =
        static_cast<std::int64_t>(product(std::int64_t{n_sequences} * block.n_kv_heads, layer.n_blocks));
    layer.k = AlignedBuffer(product(blocks, layer.k_block_bytes));
    layer.v = AlignedBuffer(product(blocks, layer.v_block_bytes));
    state_->layers.push_back(std::move(layer));
  }
}

KvCache::~KvCache() = default;

KvType KvCache::type() const { return state_->type; }
int KvCache::n_sequences() const { return static_cast<int>(state_->lengths.size()); }
std::int64_t KvCache::context() const { return state_->context; }

std::int64_t KvCache::length(int sequence) const {
  if (sequence < 0 || sequence >= n_sequences())
    fail(ErrorCode::kInvalidArgument, "no sequence {} in the cache", sequence);
  return state_->lengths[static_cast<std::size_t>(sequence)];
}

void KvCache::truncate(int sequence, std::int64_t length) {
  if (length < 0 || length > this->length(sequence)) {
    fail(ErrorCode::kInvalidArgument, "sequence {} holds {} tokens, not {}", sequence, this->length(sequence), length);
  }
  state_->lengths[static_cast<std::size_t>(sequence)] = length;
}

std::uint64_t KvCache::bytes() const {
  std::uint64_t sum = 0;
  for (const State::Layer& layer : state_->layers) sum += layer.k.size() + layer.v.size();
  return sum;
}

std::uint64_t kv_cache_bytes(const ModelSpec& spec, KvType type, std::int64_t context) {
  std::uint64_t sum = 0;
  for (const BlockSpec& block : spec.blocks) {
    check_head(type, block.head_dim);
    const std::int64_t head = ops::key_block_bytes(type, block.head_dim) + ops::value_block_bytes(type, block.head_dim);
    const std::uint64_t blocks = product(block.n_kv_heads, ops::kv_blocks(context));
    sum = checked_add(sum, checked_mul(blocks, static_cast<std::uint64_t>(head)));
  }
  return sum;
}

}  // namespace nibble::model
