#include "pipeline/dense_shape.h"

#include <algorithm>

namespace nibble::pipeline {

namespace {

constexpr int kHeadDim = 128;
constexpr int kMostKvHeads = 8;
constexpr std::int64_t kVocab = 128256;
constexpr double kTiedBelow = 4e9;
constexpr int kMostLayers = 1 << 14;

double count(int layers, bool tied) {
  const double hidden = double{kHeadDim} * layers;
  const double kv = double{kHeadDim} * std::min(layers, kMostKvHeads);
  const double block = 2 * hidden * hidden + 2 * hidden * kv + 3 * 3.5 * hidden * hidden;  // q o, k v, gate up down
  return layers * block + (tied ? 1 : 2) * static_cast<double>(kVocab) * hidden;
}

}  // namespace

model::ModelSpec dense_shape(double parameters) {
  const bool tied = parameters < kTiedBelow;
  int layers = 1;
  while (layers < kMostLayers && count(layers + 1, tied) <= parameters) ++layers;
  if (layers < kMostLayers && count(layers + 1, tied) - parameters < parameters - count(layers, tied)) ++layers;

  model::BlockSpec block;
  block.n_heads = layers;
  block.n_kv_heads = std::min(layers, kMostKvHeads);
  block.head_dim = kHeadDim;
  block.ffn = std::int64_t{kHeadDim} * layers * 7 / 2;
  model::ModelSpec spec;
  spec.hidden = std::int64_t{kHeadDim} * layers;
  spec.vocab = kVocab;
  spec.tied = tied;
  spec.blocks.assign(static_cast<std::size_t>(layers), block);
  return spec;
}

}  // namespace nibble::pipeline
