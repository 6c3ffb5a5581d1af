// LoRA (arXiv 2106.09685) on a frozen base of any encoding (QLoRA, arXiv 2305.14314): what the graph multiplies with,
// and the adapter that comes of it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/lora.h"
#include "train/model_parameters.h"

namespace nibble::train {

struct LoraSettings {
  std::int64_t rank = 16;
  double alpha = 32;  // the product is scaled by alpha / rank, with rslora by alpha / sqrt(rank) (arXiv 2312.03732)
  bool rslora = false;
  double dropout = 0;  // of the inputs of the low-rank part, while it is trained
  std::vector<std::string> targets = {
      "all"};  // last part of the modules' names ("q_proj"); all: of the blocks' linears
};
// "r=16,alpha=32,targets=q_proj+v_proj,dropout=0.05,rslora". Throws Error{kInvalidArgument} for anything else.
LoraSettings parse_lora(const std::string& text);

// The linears of a model on disk, decoded whenever they are used: memory for one of them. Nothing is trained.
class StoredWeights : public GraphWeights<float> {
 public:
  explicit StoredWeights(std::shared_ptr<const model::ModelSource> source);
  Var linear(Tape<float>& tape, model::Role role, int layer, Var x, std::int64_t index) override;
  Var tensor(Tape<float>& tape, model::Role role, int layer, bool bias) override;

 private:
  Var rows_of(Tape<float>& tape, std::size_t slot, std::int64_t begin, std::int64_t n);
  std::shared_ptr<const model::ModelSource> source_;
};

class LoraWeights : public GraphWeights<float> {
 public:
  // `base` multiplies with the frozen weights of `source`. Throws Error{kInvalidArgument} for targets that the model
  // has not, naming those it has. A is drawn as PEFT does, uniform within 1 / sqrt(in); B is 0.
  LoraWeights(GraphWeights<float>& base, std::shared_ptr<const model::ModelSource> source, const LoraSettings& settings,
              std::uint64_t seed);

  Var linear(Tape<float>& tape, model::Role role, int layer, Var x, std::int64_t index) override;
  Var tensor(Tape<float>& tape, model::Role role, int layer, bool bias) override;

  std::vector<Parameter*> parameters();
  // Inputs are dropped by (seed, pass), until end_pass().
  void begin_pass(std::uint64_t pass) { pass_ = pass + 1; }
  void end_pass() { pass_ = 0; }
  model::LoraAdapter adapter() const;

 private:
  struct Pair {
    Parameter a, b;  // (rank, in), (out, rank)
  };
  GraphWeights<float>& base_;
  std::shared_ptr<const model::ModelSource> source_;
  LoraSettings settings_;
  std::uint64_t seed_, pass_ = 0;
  std::map<std::size_t, Pair> pairs_;  // by slot
};

}  // namespace nibble::train
