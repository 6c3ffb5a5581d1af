// Rotary position embedding: from a RopeSpec to angular frequencies.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_spec.h"

namespace nibble::model {

struct RopeFrequencies {
  std::vector<float> inv_freq;  // radians per position of each pair, (dims/2)
  float attention_factor = 1;   // multiplies cos and sin
};

// The frequencies for a sequence that ends at `length` tokens; only dynamic and longrope scaling look at the length.
RopeFrequencies rope_frequencies(const RopeSpec& rope, std::int64_t length);
// Does every length give the same frequencies?
bool rope_is_fixed(const RopeSpec& rope);

// The divisors that GGUF's rope_freqs tensor holds, (dims/2): `factors` if given, else those of llama3 scaling.
std::vector<float> rope_factors(const RopeSpec& rope);

}  // namespace nibble::model
