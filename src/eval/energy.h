// An estimate of the energy that one generated token costs, from what must be moved and computed for it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "encoding/encoding.h"
#include "json/json.h"
#include "model/kv_cache.h"
#include "model/source.h"

namespace nibble::eval {

// Picojoules at 45 nm (Horowitz, "Computing's energy problem", ISSCC 2014). Newer processes lower all of them,
// arithmetic more than memory, so ratios between encodings are what the model is good for. A multiplier grows with the
// product of its operand widths, so an int multiplication of b_w by b_a bits is taken as int8_mul * b_w * b_a / 64.
struct EnergyConstants {
  double int8_mul = 0.2, int32_add = 0.1;
  double fp16_mul = 1.1, fp16_add = 0.4;
  double fp32_mul = 3.7, fp32_add = 0.9;
  double sram_8k_read = 5;  // per 32 bits
  double dram_read = 640;   // per 32 bits
};

struct TokenEnergy {            // picojoules
  double weights_dram = 0;      // every weight once; of the embedding one row, of experts the used
  double kv_dram = 0;           // keys and values of the whole context
  double activations_sram = 0;  // one operand of each multiplication from the first-level cache
  double arithmetic = 0;        // of the linears, with one multiply-add per scale, and of attention in f32
  double total() const { return weights_dram + kv_dram + activations_sram + arithmetic; }
};

// What one multiply-add with a weight of this encoding takes: float encodings as floats of their width, all others as
// integers against 8-bit activations.
struct MacCost {
  double arithmetic = 0;  // picojoules
  double activation_bits = 32;
};
MacCost mac_cost(const encoding::EncodingInfo& encoding, const EnergyConstants& constants);

// With `as` null the weights as they are stored; otherwise all linears and the head as if stored in that encoding.
TokenEnergy token_energy(const model::ModelSource& source, const encoding::EncodingInfo* as, model::KvType kv,
                         std::int64_t context, const EnergyConstants& constants = {});

struct EnergyReport {
  std::int64_t context = 0;
  EnergyConstants constants;
  std::vector<std::pair<std::string, TokenEnergy>> rows;  // the model as stored, then plain encodings to compare with
};
EnergyReport energy_report(const model::ModelSource& source, model::KvType kv, std::int64_t context);
json::Value to_json(const EnergyReport& report);
std::string to_table(const EnergyReport& report);

}  // namespace nibble::eval
