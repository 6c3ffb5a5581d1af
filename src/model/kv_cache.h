// The keys and values of several sequences, and the work memory of the decoder: all mutable state of a forward pass.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "encoding/activation.h"
#include "model/model_spec.h"
#include "ops/op_table.h"

namespace nibble::model {

using ops::KvType;

std::span<const std::string_view> kv_type_names();  // by KvType
inline std::string_view kv_type_name(KvType type) { return kv_type_names()[static_cast<std::size_t>(type)]; }

// How a type whose scales are fixed rounds keys and values; null for others. And the type that rounds them so.
const encoding::ActivationInfo* cache_rounding(KvType type);
KvType fixed_kv_type(const encoding::ActivationInfo& rounding);

// One user at a time.
class KvCache {
 public:
  // Room for `context` tokens in each of `n_sequences`. Memory is touched only as positions are used. Throws
  // Error{kInvalidArgument} when the type cannot keep heads of the model's size, or takes scales that it has not.
  KvCache(const ModelSpec& spec, KvType type, int n_sequences, std::int64_t context);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  KvType type() const;
  int n_sequences() const;
  std::int64_t context() const;
  std::int64_t length(int sequence) const;  // tokens held
  // Forgets the tokens from `length` on. Throws Error{kInvalidArgument} when fewer are held.
  void truncate(int sequence, std::int64_t length);
  std::uint64_t bytes() const;  // of keys and values at full length

  struct State;  // model/kv_state.h, for the decoder
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

// Bytes of keys and values for one sequence of `context` tokens. Throws as KvCache does, but scales need not be there.
std::uint64_t kv_cache_bytes(const ModelSpec& spec, KvType type, std::int64_t context);

}  // namespace nibble::model
