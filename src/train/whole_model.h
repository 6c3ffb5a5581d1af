// A whole model that is trained for language: its graph and weights, and, where it learns from one, a teacher.
#pragma once

#include <memory>

#include "train/model_parameters.h"
#include "train/trainer.h"

namespace nibble::train {

struct WholeModelOptions {
  bool checkpoint = false;   // blocks are computed again on the way back
  double teacher_share = 1;  // of the loss, where there is a teacher
  Isa isa = Isa::kScalar;
  linalg::Precision precision = linalg::Precision::kF32;  // of the products of linears
};

class WholeModel : public TrainedModel {
 public:
  // `weights` is what the graph multiplies with, `parameters` what of it is trained. All must outlive this.
  WholeModel(ExecContext& context, const model::ModelSpec& spec, GraphWeights<float>& weights,
             std::vector<Parameter*> parameters, GraphWeights<float>* teacher, const WholeModelOptions& options)
      : graph_(spec),
        weights_(weights),
        parameters_(std::move(parameters)),
        tape_(context, options.isa, options.precision) {
    loss_.checkpoint = options.checkpoint;
    loss_.teacher = teacher;
    loss_.teacher_share = options.teacher_share;
  }

  std::vector<Parameter*> parameters() override { return parameters_; }
  LossSums add_gradients(const TokenBatch& batch, double divisor, std::uint64_t) override {
    return train::add_gradients(tape_, graph_, weights_, batch, divisor, loss_);
  }
  LossSums loss(const TokenBatch& batch) override { return loss_of(tape_, graph_, weights_, batch, loss_); }
  std::size_t memory_bytes() const override { return tape_.memory_bytes(); }

 private:
  DecoderGraph<float> graph_;
  GraphWeights<float>& weights_;
  std::vector<Parameter*> parameters_;
  Tape<float> tape_;
  LossOptions<float> loss_;
};

}  // namespace nibble::train
