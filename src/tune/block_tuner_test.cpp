// Blocks that are tuned: what is returned is what was measured, is better, and is the same every time.
#include "tune/block_tuner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "encoding/activation.h"
#include "method/quantize_tensor.h"
#include "model/block_model.h"
#include "testing/program.h"
#include "testing/tiny_model.h"
#include "tune/tuning_method.h"

namespace nibble::tune {
namespace {

constexpr std::int64_t kLength = 12, kTrain = 12, kHeldOut = 4;

std::vector<std::byte> bytes_of(const TensorView& view) {
  std::vector<std::byte> out;
  for (const auto& part : view.parts) out.insert(out.end(), part.bytes.begin(), part.bytes.end());
  return out;
}

// A block of a tiny model quantized by rounding to nearest, and what flows into it and should come out.
class BlockTunerTest : public ::testing::Test {
 protected:
  void open(const std::string& type) {
    testing::write_tiny_model(folder_.path(), testing::tiny_config(type));
    original_ = model::ModelSource::open(folder_.path());
    const model::BlockModel model(*context_, original_, best_isa());
    std::vector<token::TokenId> tokens;
    for (std::uint64_t i = 0; i < (kTrain + kHeldOut) * kLength; ++i)
      tokens.push_back(static_cast<token::TokenId>(random_bits(3, 1, i) % 288));
    inputs_.resize(tokens.size() * static_cast<std::size_t>(original_->spec().hidden));
    model.embed(*context_, tokens, kLength, inputs_.data());
    targets_ = inputs_;
    model.run(*context_, 0, model::BlockModel::Half::kBoth, kTrain + kHeldOut, kLength, targets_.data());
  }

  void quantize(std::string_view encoding, const InputRounding& rounding = {}) {
    quantized_ = original_->exchangeable();
    slots_.clear();
    originals_.clear();
    for (std::size_t slot = 0; slot < original_->spec().weights.size(); ++slot) {
      const model::WeightSlot& weight = original_->spec().weights[slot];
      if (weight.layer != 0 || weight.shape.rank() < 2 || !model::is_matrix(weight.role)) continue;
      std::vector<float> values(static_cast<std::size_t>(weight.shape.elements()));
      original_->read_rows(slot, 0, weight.shape.rows(), values.data());
      method::Job job;
      job.tensor = weight.hf_name;
      job.target = &encoding::get(encoding);
      job.shape = weight.shape;
      Tensor tensor = method::quantize(*context_, method::get("rtn"), job, values);
      tensor.set_inputs(rounding);
      quantized_->exchange(slot, std::move(tensor));
      slots_.push_back(slot);
      originals_.push_back(std::move(values));
    }
  }

  static BlockTuning short_of(BlockTuning tuning) {
    tuning.iterations = tuning.absorb_iterations = 20;
    tuning.batch_sequences = 4;
    tuning.isa = best_isa();
    return tuning;
  }

  BlockStates states() const {
    const std::int64_t train = kTrain * kLength * original_->spec().hidden;
    BlockStates states;
    states.length = kLength;
    states.n_train = kTrain;
    states.n_held_out = kHeldOut;
    states.inputs = inputs_.data();
    states.targets = targets_.data();
    states.held_out_inputs = inputs_.data() + train;
    states.held_out_targets = targets_.data() + train;
    return states;
  }

  TunedBlock tune(ExecContext& context, const BlockTuning& tuning) const {
    std::vector<BlockTensor> tensors;
    for (std::size_t i = 0; i < slots_.size(); ++i)
      tensors.push_back({slots_[i], quantized_->weight(slots_[i]).view, originals_[i]});
    return tune_block(context, *quantized_, 0, states(), std::move(tensors), short_of(tuning));
  }

  // The held-out error of the block as the engine runs it.
  double engine_error() {
    const model::BlockModel model(*context_, quantized_, best_isa());
    const auto begin = static_cast<std::size_t>(kTrain * kLength * original_->spec().hidden);
    std::vector<float> x(inputs_.begin() + static_cast<std::ptrdiff_t>(begin), inputs_.end());
    model.run(*context_, 0, model::BlockModel::Half::kBoth, kHeldOut, kLength, x.data());
    double apart = 0, size = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto target = static_cast<double>(targets_[begin + i]);
      apart += std::pow(static_cast<double>(x[i]) - target, 2);
      size += target * target;
    }
    return apart / size;
  }

  void expect_honest(const BlockTuning& tuning) {
    const double before = engine_error();
    TunedBlock tuned = tune(*context_, tuning);
    EXPECT_NEAR(tuned.before, before, 1e-3 * before);
    ASSERT_EQ(tuned.tensors.size(), slots_.size());
    EXPECT_LT(tuned.after, tuned.before);
    EXPECT_GT(tuned.best_iteration, 0);
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      const TensorView& start = quantized_->weight(slots_[i]).view;
      EXPECT_EQ(tuned.tensors[i].view().encoding, start.encoding);
      EXPECT_EQ(tuned.tensors[i].view().inputs.activation, start.inputs.activation);
      quantized_->exchange(slots_[i], std::move(tuned.tensors[i]));
    }
    EXPECT_NEAR(engine_error(), tuned.after, 1e-3 * tuned.after);
  }

  static BlockTuning tuning_of(std::string_view name) { return find_tuning_method(name)->tuning; }

  testing::TemporaryFolder folder_;
  OwnedExecContext context_{RunContext{.threads = 2}};
  std::shared_ptr<const model::ModelSource> original_;
  std::shared_ptr<model::ModelSource> quantized_;
  std::vector<std::size_t> slots_;
  std::vector<std::vector<float>> originals_;
  std::vector<float> inputs_, targets_;  // kTrain sequences, then kHeldOut
};

TEST_F(BlockTunerTest, GivesTheErrorThatItSays) {
  open("llama");
  for (const char* method : {"autoround", "block-ap"}) {
    for (const char* encoding : {"int2-g32-asym", "int3-g32", "int4-channel", "q4_0", "q5_1", "iq4_nl"}) {
      SCOPED_TRACE(std::string(method) + " " + encoding);
      quantize(encoding);
      BlockTuning tuning = tuning_of(method);
      tuning.lr_scales = 0.001;  // of few iterations
      expect_honest(tuning);
    }
  }
}

TEST_F(BlockTunerTest, GivesTheErrorOfRoundedInputs) {
  open("qwen2");
  InputRounding rounding;
  rounding.activation = &encoding::get_activation("int8-token");
  quantize("int3-channel", rounding);
  expect_honest(tuning_of("autoround"));
}

TEST_F(BlockTunerTest, TunesStacksOfExperts) {
  open("qwen3_moe");
  quantize("int2-g32-asym");
  expect_honest(tuning_of("block-ap"));
}

TEST_F(BlockTunerTest, IsTheSameEveryTime) {
  open("llama");
  quantize("int2-g32-asym");
  OwnedExecContext alone(RunContext{.threads = 1});
  for (const char* method : {"autoround", "block-ap"}) {
    SCOPED_TRACE(method);
    const TunedBlock first = tune(*context_, tuning_of(method));
    ASSERT_FALSE(first.tensors.empty());
    for (ExecContext* context : {&*context_, &*alone}) {
      const TunedBlock again = tune(*context, tuning_of(method));
      EXPECT_EQ(again.after, first.after);
      ASSERT_EQ(again.tensors.size(), first.tensors.size());
      for (std::size_t i = 0; i < first.tensors.size(); ++i)
        EXPECT_EQ(bytes_of(again.tensors[i].view()), bytes_of(first.tensors[i].view()));
    }
  }
}

TEST_F(BlockTunerTest, ReturnsNothingWhereNothingIsBetter) {
  open("llama");
  quantize("int4-g32");
  BlockTuning still = tuning_of("block-ap");
  still.lr_weights = still.lr_scales = still.lr_zeros = 0;
  BlockTuning wild = tuning_of("block-ap");
  wild.lr_scales = 1e4;
  for (const BlockTuning& tuning : {still, wild}) {
    const TunedBlock tuned = tune(*context_, tuning);
    EXPECT_TRUE(tuned.tensors.empty());
    EXPECT_EQ(tuned.after, tuned.before);
    EXPECT_EQ(tuned.best_iteration, 0);
  }
}

TEST_F(BlockTunerTest, LaterLinearsMakeUpForEarlierOnes) {
  open("llama");
  quantize("int2-g32-asym");
  std::vector<std::size_t> later;
  for (const std::size_t slot : slots_) {
    const model::Role role = original_->spec().weights[slot].role;
    if (role == model::Role::kAttnQ || role == model::Role::kAttnK || role == model::Role::kAttnV) continue;
    quantized_->restore(slot);
    later.push_back(slot);
  }
  BlockTuning tuning = short_of(tuning_of("block-ap"));
  tuning.lr_plain = 0.02;
  const double before = engine_error();
  EXPECT_NEAR(block_error(*context_, *quantized_, 0, states(), tuning), before, 1e-3 * before);
  TunedBlock tuned = absorb_error(*context_, *quantized_, 0, states(), later, tuning);
  EXPECT_NEAR(tuned.before, before, 1e-3 * before);
  EXPECT_LT(tuned.after, 0.98 * tuned.before);
  ASSERT_EQ(tuned.tensors.size(), later.size());
  for (std::size_t i = 0; i < later.size(); ++i) quantized_->exchange(later[i], std::move(tuned.tensors[i]));
  EXPECT_NEAR(engine_error(), tuned.after, 1e-3 * tuned.after);
}

TEST_F(BlockTunerTest, NumbersBeforeRoundingRoundToTheTunedCodes) {
  open("llama");
  quantize("q4_0");
  BlockTuning tuning = tuning_of("autoround");
  tuning.trained.scales = false;  // else nearest rounding has other ones
  tuning.search_again = true;
  const TunedBlock tuned = tune(*context_, tuning);
  ASSERT_EQ(tuned.unrounded.size(), slots_.size());
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Shape& shape = original_->spec().weights[slots_[i]].shape;
    const auto* numbers = reinterpret_cast<const float*>(tuned.unrounded[i].view().data().data());
    const RoundedTensor rounded("w", tuned.tensors[i].view(), std::vector<float>(numbers, numbers + shape.elements()),
                                {});
    const std::vector<std::byte> expected = bytes_of(tuned.tensors[i].view()), got = bytes_of(rounded.pack().view());
    ASSERT_EQ(got.size(), expected.size());
    std::size_t apart = 0;
    for (std::size_t k = 0; k < got.size(); ++k) apart += got[k] != expected[k] ? 1 : 0;
    EXPECT_LT(apart, got.size() / 100) << "beyond ties";
  }
}

TEST_F(BlockTunerTest, StopsOnRequest) {
  open("llama");
  quantize("int4-g32");
  CancelToken cancel;
  cancel.cancel();
  OwnedExecContext context(RunContext{.threads = 1, .cancel = &cancel});
  EXPECT_THROW(tune(*context, tuning_of("autoround")), Error);
}

TEST(TuningMethodTest, IsFoundByName) {
  for (const TuningMethod& method : tuning_methods()) EXPECT_EQ(find_tuning_method(method.name), &method);
  EXPECT_EQ(find_tuning_method("autoround2"), nullptr);
}

}  // namespace
}  // namespace nibble::tune
