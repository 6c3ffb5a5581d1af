#include "calib/block_walk.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/error.h"

namespace nibble::calib {

namespace {

using model::BlockModel;
using model::Role;

// Notes the inputs that go by.
class Stages final : public model::ForwardObserver {
 public:
  explicit Stages(BlockModel::Half half) : half_(half) {}
  void linear_input(ExecContext& context, int layer, std::span<const Role> roles, const float* x, std::int64_t n,
                    std::int64_t cols) override {
    const std::int64_t begins[] = {0, n};
    stack_inputs(context, layer, roles, x, begins, cols);
  }
  void stack_inputs(ExecContext& /*context*/, int layer, std::span<const Role> roles, const float* /*x*/,
                    std::span<const std::int64_t> begins, std::int64_t cols) override {
    const auto known = [&](const Stage& stage) { return stage.roles[0] == roles[0]; };
    if (std::ranges::any_of(found, known)) return;
    found.push_back({layer, half_, {roles.begin(), roles.end()}, static_cast<std::int64_t>(begins.size()) - 1, cols});
  }
  std::vector<Stage> found;

 private:
  BlockModel::Half half_;
};

// Hands the inputs of one stage on, and leaves.
template <typename Take>
class StageInputs final : public model::ForwardObserver {
 public:
  StageInputs(const Stage& stage, Take take) : stage_(stage), take_(std::move(take)) {}
  void linear_input(ExecContext& context, int layer, std::span<const Role> roles, const float* x, std::int64_t n,
                    std::int64_t cols) override {
    const std::int64_t begins[] = {0, n};
    stack_inputs(context, layer, roles, x, begins, cols);
  }
  void stack_inputs(ExecContext& context, int /*layer*/, std::span<const Role> roles, const float* x,
                    std::span<const std::int64_t> begins, std::int64_t /*cols*/) override {
    if (roles[0] != stage_.roles[0]) return;
    take_(context, x, begins);
    if (stage_.layer >= 0) throw BlockModel::Enough();
  }

 private:
  const Stage& stage_;
  Take take_;
};

// Takes the inputs of several stages into moments of each.
class MomentsOfStages final : public model::ForwardObserver {
 public:
  MomentsOfStages(std::span<const Stage> stages, const Wanted& wanted) : stages_(stages) {
    for (const Stage& stage : stages) moments.emplace_back(stage.n_matrices, stage.cols, wanted);
  }
  void linear_input(ExecContext& context, int layer, std::span<const Role> roles, const float* x, std::int64_t n,
                    std::int64_t cols) override {
    const std::int64_t begins[] = {0, n};
    stack_inputs(context, layer, roles, x, begins, cols);
  }
  void stack_inputs(ExecContext& context, int /*layer*/, std::span<const Role> roles, const float* x,
                    std::span<const std::int64_t> begins, std::int64_t /*cols*/) override {
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      if (stages_[i].roles[0] == roles[0]) return moments[i].add(context, x, begins, nullptr);
    }
  }
  std::vector<InputMoments> moments;

 private:
  std::span<const Stage> stages_;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string place_of(const Stage& stage) {
  return stage.layer >= 0 ? format_text("block {}, {}", stage.layer, model::role_name(stage.roles[0])) : "head";
}

}  // namespace

BlockWalk::BlockWalk(ExecContext& context, std::shared_ptr<const model::ModelSource> source,
                     std::shared_ptr<const model::ModelSource> original, const TokenChunks& chunks,
                     const WalkOptions& options)
    : model_(context, std::move(source), options.isa), length_(chunks.context), n_sequences_(chunks.n_chunks) {
  if (original != nullptr) original_.emplace(context, std::move(original), options.isa);
  if (n_sequences_ < 1) fail(ErrorCode::kInvalidArgument, "the calibration text is shorter than one chunk");
  const int every = options.held_out_every;
  std::vector<token::TokenId> train, held_out;
  for (std::int64_t i = 0; i < n_sequences_; ++i) {
    const bool out = every > 0 && i % every == every - 1;
    const auto chunk = chunks.chunk(i);
    (out ? held_out : train).insert((out ? held_out : train).end(), chunk.begin(), chunk.end());
  }
  n_train_ = static_cast<std::int64_t>(train.size()) / length_;
  train.insert(train.end(), held_out.begin(), held_out.end());
  const auto bytes = static_cast<std::uint64_t>(n_sequences_ * length_ * spec().hidden) * sizeof(float);
  states_ = SpillBuffer(bytes, options.memory_limit);
  model_.embed(context, train, length_, states_.floats());
  if (!original_) return;
  original_states_ = SpillBuffer(bytes, options.memory_limit);
  std::memcpy(original_states_.floats(), states_.floats(), bytes);
}

std::vector<Stage> BlockWalk::stages(ExecContext& context, int layer) {
  using enum BlockModel::Half;
  std::vector<float> states(states_.floats(), states_.floats() + length_ * spec().hidden);
  std::vector<Stage> all;
  const bool parallel = spec().blocks[static_cast<std::size_t>(layer)].parallel;
  for (const BlockModel::Half half : parallel ? std::vector{kBoth} : std::vector{kAttention, kFeedForward}) {
    Stages observer(half);
    model_.run(context, layer, half, 1, length_, states.data(), &observer);
    all.insert(all.end(), observer.found.begin(), observer.found.end());
  }
  return all;
}

Stage BlockWalk::head_stage() const {
  return {-1, BlockModel::Half::kBoth, {Role::kOutput}, 1, spec().embedding_size()};
}

void BlockWalk::run_stage(ExecContext& context, const BlockModel& model, const Stage& stage, std::int64_t first,
                          std::int64_t n, float* states, model::ForwardObserver& observer) {
  float* x = states + first * length_ * spec().hidden;
  if (stage.layer < 0) return model.show_head_input(context, n, length_, x, observer);
  if (stage.half == BlockModel::Half::kFeedForward && !behind_attention_) {
    std::vector<float> passed(x, x + n * length_ * spec().hidden);
    model.run(context, stage.layer, BlockModel::Half::kAttention, n, length_, passed.data());
    return model.run(context, stage.layer, stage.half, n, length_, passed.data(), &observer);
  }
  model.run(context, stage.layer, stage.half, n, length_, x, &observer);
}

InputMoments BlockWalk::collect(ExecContext& context, const Stage& stage, const Wanted& wanted, Share share) {
  Wanted taken = wanted;
  taken.cross = wanted.cross && original_ && stage.n_matrices == 1;
  InputMoments moments(stage.n_matrices, stage.cols, taken);
  const std::int64_t first = share == Share::kTrain ? 0 : n_train_, n = sequences(share);
  std::vector<float> there;  // what flows into the stage of the original, for the same tokens
  std::size_t taken_from_there = 0;
  const auto begun = std::chrono::steady_clock::now();
  double summing = 0;
  const auto divisors = divisors_.find({stage.layer, stage.roles[0]});
  StageInputs original(stage, [&](ExecContext&, const float* x, std::span<const std::int64_t> begins) {
    const std::size_t begin = there.size();
    there.insert(there.end(), x, x + begins.back() * stage.cols);
    if (divisors == divisors_.end()) return;
    for (std::size_t i = begin; i < there.size(); ++i)
      there[i] /= divisors->second[(i - begin) % divisors->second.size()];
  });
  StageInputs observer(stage, [&](ExecContext& pool, const float* x, std::span<const std::int64_t> begins) {
    const auto start = std::chrono::steady_clock::now();
    moments.add(pool, x, begins, taken.cross ? there.data() + taken_from_there : nullptr);
    summing += seconds_since(start);
    taken_from_there += static_cast<std::size_t>(begins.back() * stage.cols);
  });
  with_context(place_of(stage), [&] {
    const bool in_steps = taken.cross || !behind_attention_;
    const std::int64_t step = in_steps ? std::max<std::int64_t>(1, 2048 / length_) : std::max<std::int64_t>(1, n);
    for (std::int64_t begin = 0; begin < n; begin += step) {
      const std::int64_t count = std::min(step, n - begin);
      there.clear();
      taken_from_there = 0;
      if (taken.cross) run_stage(context, *original_, stage, first + begin, count, original_states_.floats(), original);
      run_stage(context, model_, stage, first + begin, count, states_.floats(), observer);
    }
    moments.finish(context);
  });
  statistics_s_ += summing;
  forward_s_ += seconds_since(begun) - summing;
  return moments;
}

void BlockWalk::divide_original_input(int layer, Role role, std::span<const float> factors) {
  if (!original_) return;
  std::erase_if(divisors_, [&](const auto& entry) { return entry.first.first < layer; });
  std::vector<float>& divisors = divisors_[{layer, role}];
  if (divisors.empty()) divisors.assign(factors.size(), 1.0f);
  for (std::size_t i = 0; i < divisors.size(); ++i) divisors[i] *= factors[i];
}

std::vector<InputMoments> BlockWalk::collect_and_pass(ExecContext& context, std::span<const Stage> stages,
                                                      const Wanted& train, const Wanted& held_out,
                                                      std::vector<InputMoments>& held_out_moments) {
  const auto run = [&](const Wanted& wanted, Share share) {
    MomentsOfStages observer(stages, wanted);
    float* x = states_.floats() + (share == Share::kTrain ? 0 : n_train_) * length_ * spec().hidden;
    if (sequences(share) > 0)
      model_.run(context, stages[0].layer, stages[0].half, sequences(share), length_, x, &observer);
    for (std::size_t i = 0; i < stages.size(); ++i)
      with_context(place_of(stages[i]), [&] { observer.moments[i].finish(context); });
    return std::move(observer.moments);
  };
  std::vector<InputMoments> moments = run(train, Share::kTrain);
  held_out_moments = run(held_out, Share::kHeldOut);
  return moments;
}

std::vector<float> BlockWalk::sample(ExecContext& context, const Stage& stage, std::int64_t n_tokens) {
  std::vector<float> out;
  StageInputs observer(stage, [&](ExecContext&, const float* x, std::span<const std::int64_t> begins) {
    out.insert(out.end(), x, x + begins.back() * stage.cols);
  });
  const std::int64_t n = std::clamp<std::int64_t>(n_tokens / length_, 1, n_train_);
  run_stage(context, model_, stage, 0, n, states_.floats(), observer);
  return out;
}

void BlockWalk::pass(ExecContext& context, int layer, BlockModel::Half half, model::ForwardObserver* observer) {
  const auto start = std::chrono::steady_clock::now();
  model_.run(context, layer, half, n_sequences_, length_, states_.floats(), observer);
  behind_attention_ = half == BlockModel::Half::kAttention;
  if (original_) original_->run(context, layer, half, n_sequences_, length_, original_states_.floats());
  forward_s_ += seconds_since(start);
}

void BlockWalk::run_original(ExecContext& context, int layer, float* behind) {
  const auto start = std::chrono::steady_clock::now();
  std::copy_n(original_states_.floats(), n_sequences_ * length_ * spec().hidden, behind);
  original_->run(context, layer, BlockModel::Half::kBoth, n_sequences_, length_, behind);
  forward_s_ += seconds_since(start);
}

void BlockWalk::run_again(ExecContext& context, int layer, const float* before) {
  const auto start = std::chrono::steady_clock::now();
  std::copy_n(before, n_sequences_ * length_ * spec().hidden, states_.floats());
  model_.run(context, layer, BlockModel::Half::kBoth, n_sequences_, length_, states_.floats());
  forward_s_ += seconds_since(start);
}

void BlockWalk::show_head_input(ExecContext& context, model::ForwardObserver& observer) {
  model_.show_head_input(context, n_sequences_, length_, states_.floats(), observer);
}

}  // namespace nibble::calib
