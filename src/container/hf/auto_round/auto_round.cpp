// AutoRound's checkpoints ("auto-round") where their tensors are those of GPTQ or AWQ (qweight.h): `packing_format`
// says which, `extra_config` other sizes of some modules.
#include "base/error.h"
#include "container/hf/qweight.h"
#include "container/hf/scheme.h"

namespace nibble::container::hf::auto_round {

namespace {

struct Packing {
  std::string_view name;
  QweightPacking packing;
  int zero_offset;
};
constexpr Packing kPackings[] = {{"auto_round:auto_gptq", QweightPacking::kInputs, 1},
                                 {"auto_round:gptqmodel", QweightPacking::kInputs, 0},
                                 {"auto_round:auto_awq", QweightPacking::kOutputs, 0}};

const Packing* packing_of(const json::Value& quantization) {
  const std::string name = quantization.get("packing_format", "");
  for (const Packing& packing : kPackings) {
    if (name == packing.name) return &packing;
  }
  return nullptr;
}

std::string unread(const json::Value& quantization) {
  if (packing_of(quantization) == nullptr)
    return format_text("'packing_format' {}", quantization.get("packing_format", "unknown"));
  const std::string type = quantization.get("data_type", "int");
  return type == "int" ? "" : format_text("'data_type' {}", type);
}

std::vector<QweightForm::Sizes> all_sizes(const json::Value& quantization) {
  const QweightForm::Sizes usual = {quantization.get("bits", 4), quantization.get("group_size", 128)};
  std::vector<QweightForm::Sizes> sizes = {usual};
  const json::Value* extra = quantization.find("extra_config");
  if (extra == nullptr || !extra->is_object()) return sizes;
  for (const auto& [module, own] : extra->as_object()) {
    if (own.is_object()) sizes.push_back({own.get("bits", usual.bits), own.get("group_size", usual.group)});
  }
  return sizes;
}

void join(const json::Value& quantization, CheckpointContents& contents) {
  const Packing& packing = *packing_of(quantization);
  QweightForm form;
  form.packing = packing.packing;
  form.zero_offset = packing.zero_offset;
  form.sizes = all_sizes(quantization);
  join_qweights(contents, form);
}

}  // namespace

std::span<const Scheme> entries() {
  static constexpr Scheme kSchemes[] = {{"auto-round", unread, join}, {"intel/auto-round", unread, join}};
  return kSchemes;
}

}  // namespace nibble::container::hf::auto_round
