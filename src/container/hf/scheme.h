// Already quantized Hugging Face folders: `quantization_config` of config.json names a scheme, and the scheme makes
// logical tensors of the tensors that the files hold.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "container/hf/format.h"
#include "container/mapped_checkpoint.h"
#include "json/json.h"

namespace nibble::container {

namespace hf {

struct Scheme {
  std::string_view quant_method;
  // What of this quantization_config is not read, in the words of the config; empty when all of it is.
  std::string (*unread)(const json::Value& quantization);
  // Puts one logical tensor in the place of the tensors that make it up; others stay. What lies in another order than
  // the encoding asks for is laid out anew into contents.laid_out, tensor by tensor, while the pages it came from go.
  // Throws Error{kFormat} naming the tensors that contradict each other.
  void (*join)(const json::Value& quantization, CheckpointContents& contents);
  std::span<const Format> formats = {};  // in which it is written, too
  // How keys and values are rounded in the cache that the folder was made for: a static type. Null, or gives null: not
  // at all, or in a way that is not read.
  const encoding::ActivationInfo* (*cache)(const json::Value& quantization) = nullptr;
};

// Throws Error{kUnsupported} when the config has a quantization that no scheme reads: the weights then lie in tensors
// of its own, and read as plain ones they would be noise.
void refuse_unread(const json::Value& config);
// As Scheme::cache of the folder's scheme; null where it has none.
const encoding::ActivationInfo* cache_rounding(const json::Value& config);
// A fixed scale of the cache. Throws Error{kFormat} naming a tensor that is missing (null) or holds no positive number.
float cache_scale(const TensorEntry* entry, const std::string& name);
// Joins the tensors of a folder by its scheme; leaves them as they are where refuse_unread() throws.
void join_quantized(CheckpointContents& contents);

}  // namespace hf

// Generated from the words in CMakeLists.txt.
std::span<const hf::Scheme* const> all_entries();

}  // namespace nibble::container
