// How quantized weights are written into a Hugging Face folder: what `--format` names. Which types a format holds is
// data; each scheme adds the file tensors that a logical one becomes, their bytes and its quantization_config.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "container/checkpoint.h"
#include "encoding/encoding.h"
#include "json/json.h"

namespace nibble::container::hf {

// What a quantization_config tells of a folder.
struct QuantizedWeights {
  std::vector<PlannedTensor> tensors;  // those that lie in several parts
  std::vector<std::string> kept;       // modules of the same kind that stay plain: "lm_head", "model.layers.0.mlp.gate"
  std::string method;                  // that chose the values
  double damping = 0;                  // of second-order methods; 0: of another
  const encoding::ActivationInfo* cache = nullptr;  // how a KV cache with fixed scales rounds; null: nothing is said
  bool online_rotation = false;  // inputs of output and down projections are rotated as the model runs
};

inline constexpr std::string_view kHeadModule = "lm_head";
// The name of a module is that of its weight without its last part.
std::string module_of(std::string_view tensor);
// What most of the tensors are in.
const encoding::EncodingInfo& usual_type(const QuantizedWeights& weights);

// Small floats that a format holds: those of `params`, where a tile of kAnyTile has any number of rows or columns, and
// scales in f32 are of any of the format's types.
inline constexpr std::int64_t kAnyTile = -1;
struct FloatType {
  std::string_view text;
  encoding::ScaledParams params;
};

struct Format {
  std::string_view name;
  // Integers: bit b is set for those of b bits; what may share a scale; of what type the scales are, the usual one
  // first; the least zero point that the file can say.
  std::uint32_t bits = 0;
  bool per_tensor = false, per_channel = false, per_group = false;
  bool indexed = false;       // groups whose columns do not lie together
  bool rounded_only = false;  // and only with inputs that are rounded, too
  std::span<const Dtype> scales = {};
  int least_zero = 0;
  // The bits of a code times the number of rows, or of columns, is a multiple of these.
  int row_bits = 1, col_bits = 1;
  bool whole_groups = false;
  std::span<const FloatType> floats = {};
  bool blocks = false;     // nf4 and fp4
  bool any_parts = false;  // whatever lies in several parts
  bool caches = false;     // the fixed scales of a KV cache
  // Can it say that a linear of such weights rounds its inputs so? Null: never.
  bool (*takes_inputs)(const encoding::EncodingInfo& weights, const encoding::ActivationInfo& inputs) = nullptr;
  // What its folders say of the inputs of such weights even where nothing is asked for them. Null: nothing.
  const encoding::ActivationInfo* (*inputs_of_all)(const encoding::EncodingInfo& weights) = nullptr;

  // What `tensor` becomes in the file; the first stands in its place.
  std::vector<PlannedTensor> (*lay_out)(const PlannedTensor& tensor) = nullptr;
  // The bytes of those, in the same order.
  void (*pack)(const TensorView& tensor, std::span<const std::span<std::byte>> files) = nullptr;
  // Moves numbers that the file cannot say to the nearest that it can. Null: it can say all.
  void (*settle)(Tensor& tensor) = nullptr;
  json::Value (*config)(const QuantizedWeights& weights) = nullptr;
  std::string_view copy_of_config = "";  // a file that holds the config, too
};

std::vector<const Format*> all_formats();
const Format* find_format(std::string_view name);  // null: none of that name
// Does the format hold the encoding (as long as the shape allows), with inputs that are rounded so (null: are not)?
bool holds(const Format& format, const encoding::EncodingInfo& type, const encoding::ActivationInfo* inputs = nullptr);
// The types it holds, in words: "int{2,3,4,8}-{channel,gN}[-asym]".
std::string types_text(const Format& format);
// Why a tensor of that shape does not go in, in words; empty when it does.
std::string misfit(const Format& format, const encoding::EncodingInfo& type, const Shape& shape);

// As create_hf_weights(), where tensors that lie in several parts take the form `format` gives them.
std::unique_ptr<CheckpointWriter> create_quantized(const std::filesystem::path& folder, const Metadata& metadata,
                                                   const std::vector<PlannedTensor>& tensors, const Format& format,
                                                   std::uint64_t shard_bytes = kShardBytes);

}  // namespace nibble::container::hf
