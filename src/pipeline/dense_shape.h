// The sizes a dense model of so many parameters would usually have.
#pragma once

#include "model/model_spec.h"

namespace nibble::pipeline {

// The shape of the Llama 3 family, between whose sizes it interpolates: for L layers a width of 128 L, heads of 128 of
// which up to 8 are key/value heads, a feed-forward part 3.5 times as wide, a vocabulary of 128256 whose head is tied
// below 4e9 parameters. Of all L the one whose count of parameters is nearest; 32 layers, those of Llama-3-8B, for
// 8.03e9. Holds sizes alone: no weights, no rope.
model::ModelSpec dense_shape(double parameters);

}  // namespace nibble::pipeline
