// A walk through a model block by block while its weights are being exchanged: what flows into each linear comes from
// the part before it as it is by then. Holds the hidden states of all tokens, and of the model one block's work memory.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/exec_context.h"
#include "base/spill_buffer.h"
#include "calib/input_moments.h"
#include "calib/token_chunks.h"
#include "model/block_model.h"

namespace nibble::calib {

// The linears of a block (layer -1: the head) that multiply one input, in order of evaluation.
struct Stage {
  int layer = -1;
  model::BlockModel::Half half{};
  std::vector<model::Role> roles;
  std::int64_t n_matrices = 1;  // of a stack of experts or heads
  std::int64_t cols = 0;
};

// Which of the text's sequences: those that statistics are made of, and some kept apart to judge what came of them.
enum class Share : std::uint8_t { kTrain, kHeldOut };

struct WalkOptions {
  Isa isa = Isa::kScalar;
  int held_out_every = 8;                               // every so many-th sequence is held out; 0: none
  std::uint64_t memory_limit = std::uint64_t{2} << 30;  // bytes of hidden states in RAM
};

class BlockWalk {
 public:
  // `source` is the model whose weights are exchanged; `original` the same untouched, or null: walked along beside it
  // for statistics that compare the two. Both start at the embedding.
  BlockWalk(ExecContext& context, std::shared_ptr<const model::ModelSource> source,
            std::shared_ptr<const model::ModelSource> original, const TokenChunks& chunks, const WalkOptions& options);

  const model::ModelSpec& spec() const { return model_.spec(); }
  std::int64_t n_tokens(Share share) const { return sequences(share) * length_; }
  // Of a block, in order of evaluation.
  std::vector<Stage> stages(ExecContext& context, int layer);
  Stage head_stage() const;
  // Statistics of the stage's inputs at its place in the block the walk stands before or, of the feed-forward half, in.
  // Means. `cross` is left out for
  // stacks, as the same token may go to other experts in the original. Throws Error{kFormat} naming the block when an
  // input is not finite.
  InputMoments collect(ExecContext& context, const Stage& stage, const Wanted& wanted, Share share);
  // Statistics of all stages of a half, which the walk goes behind: one pass gives both. Of no stage `cross`.
  std::vector<InputMoments> collect_and_pass(ExecContext& context, std::span<const Stage> stages, const Wanted& train,
                                             const Wanted& held_out, std::vector<InputMoments>& held_out_moments);
  // The inputs themselves of the first `n_tokens` or so tokens of the share, (n, cols); not of a stack.
  std::vector<float> sample(ExecContext& context, const Stage& stage, std::int64_t n_tokens);
  void reload(ExecContext& context, int layer) { model_.reload(context, layer); }  // after weights were exchanged
  // What flows into a linear of a block has become that of the original divided by `factors`, (cols), as a fold leaves
  // it: statistics that compare the two divide the original's likewise.
  void divide_original_input(int layer, model::Role role, std::span<const float> factors);
  // On to behind the half; `observer` sees what flows through that of the model whose weights are exchanged.
  void pass(ExecContext& context, int layer, model::BlockModel::Half half, model::ForwardObserver* observer = nullptr);
  // Shows it what flows into the head, once the walk stands behind the last block.
  void show_head_input(ExecContext& context, model::ForwardObserver& observer);
  // The hidden states before the block the walk stands before, (tokens of kTrain, hidden), and how they are cut.
  std::int64_t sequence_length() const { return length_; }
  const float* states() const { return states_.floats(); }
  // Those of the original beside them, in the same order; null without one.
  const float* original_states() const { return original_ ? original_states_.floats() : nullptr; }
  std::int64_t n_sequences(Share share) const { return sequences(share); }
  // `behind`: the original's states behind a block that it stands before, where it stays.
  void run_original(ExecContext& context, int layer, float* behind);
  // Back to `before`, states as states() gave them before that block, and through the block as it is by now. The
  // original's stay behind it.
  void run_again(ExecContext& context, int layer, const float* before);
  const model::BlockModel& model() const { return model_; }
  // Spent so far, in seconds: running blocks, summing statistics.
  double forward_seconds() const { return forward_s_; }
  double statistics_seconds() const { return statistics_s_; }

 private:
  std::int64_t sequences(Share share) const { return share == Share::kTrain ? n_train_ : n_sequences_ - n_train_; }
  // Sequences [first, first + n) of `states`, which stay as they are.
  void run_stage(ExecContext& context, const model::BlockModel& model, const Stage& stage, std::int64_t first,
                 std::int64_t n, float* states, model::ForwardObserver& observer);

  model::BlockModel model_;
  std::optional<model::BlockModel> original_;
  std::map<std::pair<int, model::Role>, std::vector<float>> divisors_;  // of the original's inputs
  std::int64_t length_ = 0, n_sequences_ = 0, n_train_ = 0;
  bool behind_attention_ = false;  // of a block
  double forward_s_ = 0, statistics_s_ = 0;
  SpillBuffer states_, original_states_;  // (sequences, length, hidden), those held out last
};

}  // namespace nibble::calib
