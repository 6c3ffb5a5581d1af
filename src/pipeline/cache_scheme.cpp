#include "pipeline/cache_scheme.h"

#include <algorithm>

#include "base/error.h"
#include "model/kv_cache.h"
#include "pipeline/choices.h"

namespace nibble::pipeline {

namespace {

constexpr char kSides[] = {'k', 'v'};

}  // namespace

const encoding::ActivationInfo* chosen_cache(const QuantizeRequest& request) {
  if (request.kv_cache.empty()) return nullptr;
  const encoding::ActivationInfo* cache = model::cache_rounding(parse_kv_type(request.kv_cache));
  if (cache == nullptr) {
    fail(ErrorCode::kInvalidArgument,
         "a folder asks for a KV cache whose scales it brings, int8-static or fp8-static; '{}' is chosen where the "
         "model is run",
         request.kv_cache);
  }
  if (request.calib.empty())
    fail(ErrorCode::kInvalidArgument,
         "the scales of a KV cache of type {} are learned from a text: give one with "
         "--calib TEXT",
         request.kv_cache);
  return cache;
}

OutputForm choose_cached_form(const QuantizeRequest& request) {
  std::string known;
  for (const container::hf::Format* format : container::hf::all_formats()) {
    if (!format->caches) continue;
    known += (known.empty() ? "" : ", ") + std::string(format->name);
    if (!request.format.empty() && request.format != format->name) continue;
    const encoding::EncodingInfo* type = encoding::find(request.type);
    if (type == nullptr || type->family != encoding::Family::kPlain)
      return choose_form(request.type, std::string(format->name), request.output, true);
    const std::filesystem::path output = request.output;
    if (output.extension() == ".gguf")
      fail(ErrorCode::kInvalidArgument, "'{}' has no place for the scales of a KV cache: name a folder",
           request.output);
    OutputForm form;
    form.format = format;
    form.type = type;
    return form;
  }
  fail(ErrorCode::kInvalidArgument, "format '{}' has no place for the scales of a KV cache; one of: {}", request.format,
       known);
}

std::vector<container::PlannedTensor> plan_cache_scales(const model::ModelSpec& spec,
                                                        const encoding::EncodingInfo& type) {
  std::vector<container::PlannedTensor> tensors;
  for (int layer = 0; layer < spec.n_layers(); ++layer) {
    for (const char side : kSides) {
      const std::string name = model::cache_scale_name(spec, layer, side);
      if (name.empty())
        fail(ErrorCode::kUnsupported, "the cache of '{}' holds latents, for which no scheme is made", spec.arch);
      tensors.push_back({name, &type, {1}});
    }
  }
  return tensors;
}

void write_cache_scales(const model::ModelSpec& spec, const encoding::EncodingInfo& type, std::size_t first,
                        container::CheckpointWriter& writer) {
  for (const model::BlockSpec& block : spec.blocks) {
    for (const float scale : {block.k_scale, block.v_scale}) {
      std::byte bytes[sizeof(float)];
      type.encode(&scale, bytes, 1);
      writer.write(first++, 0, std::span(bytes).first(encoding::row_bytes(type, 1)));
    }
  }
}

}  // namespace nibble::pipeline
