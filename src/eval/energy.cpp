#include "eval/energy.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/format.h"
#include "encoding/block_grid.h"

namespace nibble::eval {

namespace {

using encoding::EncodingInfo;
using encoding::Family;
using model::Role;

constexpr double kActivationBits = 8;  // of integer products

// Bits of one code, and how many weights share a scale.
struct Codes {
  double bits = 0;
  double group = 0;  // 0: no scales
};

Codes codes_of(const EncodingInfo& encoding) {
  if (encoding.family == Family::kAffine) {
    const auto group =
        static_cast<double>(encoding.affine.granularity == encoding::Granularity::kGroup ? encoding.affine.group : 0);
    return {static_cast<double>(encoding.affine.bits), group};
  }
  if (encoding.family == Family::kScaled) {
    const bool rows = encoding.scaled.tile_cols == 0;
    return {encoding.scaled.code == encoding::FloatCode::kE2m1 ? 4.0 : 8.0,
            rows ? 0.0 : static_cast<double>(encoding.scaled.tile_cols)};
  }
  if (encoding.family == Family::kCodebook) {
    const encoding::CodebookParams& params = encoding.codebook;
    return {static_cast<double>(params.bits), static_cast<double>(params.block > 0 ? params.block : params.group)};
  }
  if (encoding.grid != nullptr) {
    const auto levels = static_cast<unsigned>(encoding.grid->code_max - encoding.grid->code_min + 1);
    return {static_cast<double>(std::bit_width(levels - 1)), static_cast<double>(encoding.grid->sub)};
  }
  // Codebook types are looked up as bytes.
  if (encoding.family == Family::kBlock) return {8, 32};
  return {static_cast<double>(dtype_bytes(encoding.dtype)) * 8, 0};
}

double stored_bytes(const EncodingInfo& encoding, const Shape& shape) {
  // Where a row does not fit the encoding its usual rate stands for it.
  if (encoding::fits(encoding, shape)) return static_cast<double>(encoding::tensor_bytes(encoding, shape));
  return static_cast<double>(shape.elements()) * encoding.bits_per_weight / 8;
}

double attention_macs(const model::ModelSpec& spec, std::int64_t context) {
  double macs = 0;
  for (const model::BlockSpec& block : spec.blocks) {
    const std::int64_t seen = block.window > 0 ? std::min(block.window, context) : context;
    macs += 2.0 * block.n_heads * block.head_dim * static_cast<double>(seen);
  }
  return macs;
}

bool is_linear(const model::WeightSlot& slot) {
  return !slot.bias && model::is_matrix(slot.role) && slot.role != Role::kTokenEmbedding &&
         slot.role != Role::kPositionEmbedding;
}

}  // namespace

MacCost mac_cost(const EncodingInfo& encoding, const EnergyConstants& constants) {
  MacCost cost;
  if (encoding.family == Family::kPlain && dtype_is_float(encoding.dtype)) {
    const std::size_t n_bytes = dtype_bytes(encoding.dtype);
    const bool half = n_bytes <= 2;
    cost.arithmetic = half ? constants.fp16_mul + constants.fp16_add : constants.fp32_mul + constants.fp32_add;
    cost.activation_bits = half ? 16 : 32;
    return cost;
  }
  const Codes codes = codes_of(encoding);
  cost.activation_bits = kActivationBits;
  cost.arithmetic = constants.int8_mul * codes.bits * kActivationBits / 64 + constants.int32_add;
  if (codes.group > 0) cost.arithmetic += (constants.fp32_mul + constants.fp32_add) / codes.group;
  return cost;
}

TokenEnergy token_energy(const model::ModelSource& source, const EncodingInfo* as, model::KvType kv,
                         std::int64_t context, const EnergyConstants& constants) {
  const model::ModelSpec& spec = source.spec();
  const double dram_per_byte = constants.dram_read / 4;
  TokenEnergy energy;
  for (std::size_t slot = 0; slot < spec.weights.size(); ++slot) {
    const model::WeightSlot& weight = spec.weights[slot];
    const container::TensorEntry* entry = source.weight(slot).entry;
    if (entry == nullptr) continue;
    const bool head = weight.role == Role::kTokenEmbedding && spec.tied;
    if (!is_linear(weight) && !head) {
      const auto n_bytes = static_cast<double>(source.weight(slot).n_bytes());
      energy.weights_dram +=
          dram_per_byte * (weight.role == Role::kTokenEmbedding ? n_bytes / static_cast<double>(spec.vocab) : n_bytes);
      continue;
    }
    const EncodingInfo& encoding = as != nullptr ? *as : *entry->view.encoding;
    const MacCost cost = mac_cost(encoding, constants);
    const double share = spec.used_share(weight);
    const double macs = static_cast<double>(weight.shape.elements()) * share;
    energy.weights_dram +=
        dram_per_byte * share *
        (as != nullptr ? stored_bytes(encoding, weight.shape) : static_cast<double>(source.weight(slot).n_bytes()));
    energy.arithmetic += macs * cost.arithmetic;
    energy.activations_sram += macs * cost.activation_bits / 32 * constants.sram_8k_read;
  }
  energy.kv_dram = dram_per_byte * static_cast<double>(model::kv_cache_bytes(spec, kv, context));
  energy.arithmetic += attention_macs(spec, context) * (constants.fp32_mul + constants.fp32_add);
  return energy;
}

EnergyReport energy_report(const model::ModelSource& source, model::KvType kv, std::int64_t context) {
  EnergyReport report;
  report.context = context;
  report.rows.emplace_back("as stored", token_energy(source, nullptr, kv, context, report.constants));
  for (const char* name : {"f32", "f16", "q8_0", "q4_k", "q2_k"}) {
    report.rows.emplace_back(name, token_energy(source, &encoding::get(name), kv, context, report.constants));
  }
  return report;
}

json::Value to_json(const EnergyReport& report) {
  json::Value object;
  object.set("context", report.context);
  json::Value constants;
  const EnergyConstants& c = report.constants;
  for (const auto& [name, value] : {std::pair<const char*, double>{"int8_mul_pj", c.int8_mul},
                                    {"int32_add_pj", c.int32_add},
                                    {"fp16_mul_pj", c.fp16_mul},
                                    {"fp16_add_pj", c.fp16_add},
                                    {"fp32_mul_pj", c.fp32_mul},
                                    {"fp32_add_pj", c.fp32_add},
                                    {"sram_8k_read_32bit_pj", c.sram_8k_read},
                                    {"dram_read_32bit_pj", c.dram_read}}) {
    constants.set(name, value);
  }
  object.set("constants", std::move(constants));
  json::Array rows;
  for (const auto& [name, energy] : report.rows) {
    json::Value row;
    row.set("format", name);
    row.set("total_uj", energy.total() * 1e-6);
    row.set("weights_dram_uj", energy.weights_dram * 1e-6);
    row.set("kv_dram_uj", energy.kv_dram * 1e-6);
    row.set("activations_sram_uj", energy.activations_sram * 1e-6);
    row.set("arithmetic_uj", energy.arithmetic * 1e-6);
    rows.push_back(std::move(row));
  }
  object.set("rows", std::move(rows));
  return object;
}

std::string to_table(const EnergyReport& report) {
  std::string table = format_text(
      "energy of one token at a context of {}, microjoules (45 nm constants, Horowitz 2014)\n", report.context);
  table += format_text("{:<10} {:>10} {:>10} {:>10} {:>12} {:>11}\n", "weights", "total", "weights", "KV cache",
                       "activations", "arithmetic");
  for (const auto& [name, energy] : report.rows) {
    table += format_text("{:<10} {:>10.1f} {:>10.1f} {:>10.1f} {:>12.1f} {:>11.1f}\n", name, energy.total() * 1e-6,
                         energy.weights_dram * 1e-6, energy.kv_dram * 1e-6, energy.activations_sram * 1e-6,
                         energy.arithmetic * 1e-6);
  }
  return table;
}

}  // namespace nibble::eval
