// Positions without learned vectors: from a RopeSpec to angular frequencies, slopes of distances, and how queries grow.
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

// ALiBi: what a key loses per token of distance, of each head.
std::vector<float> alibi_slopes(const ModelSpec& spec);
// What the queries of a position are multiplied by, where temperature_scale is set.
float query_temperature(const ModelSpec& spec, std::int64_t position);
// Does a block scale its queries so?
bool has_query_temperature(const ModelSpec& spec, const BlockSpec& block);

}  // namespace nibble::model
