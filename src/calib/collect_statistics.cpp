#include "calib/collect_statistics.h"

#include <algorithm>
#include <set>

#include "base/error.h"

namespace nibble::calib {

namespace {

constexpr std::int64_t kPlanTokens = 8;
constexpr int kHeldOutEvery = 8;

const model::WeightSlot* find_slot(const model::ModelSpec& spec, model::Role role, int layer) {
  const model::WeightSlot* slot = spec.find(role, layer);
  return slot == nullptr && role == model::Role::kOutput ? spec.find(model::Role::kTokenEmbedding, -1) : slot;
}

// Named for its first linear; where that name is taken (parts of one tensor), for its role as well.
StatisticsInput describe(const model::ModelSpec& spec, const Stage& stage, std::set<std::string>& names) {
  StatisticsInput input;
  input.layer = stage.layer;
  input.matrices = stage.n_matrices;
  input.cols = stage.cols;
  for (const model::Role role : stage.roles) {
    const model::WeightSlot* slot = find_slot(spec, role, stage.layer);
    if (slot == nullptr) continue;
    input.weights.push_back(slot->hf_name);
    input.slots.push_back(slot->gguf_name);
  }
  if (input.slots.empty())
    fail(ErrorCode::kInternal, "layer {} has no {}", stage.layer, model::role_name(stage.roles[0]));
  constexpr std::string_view kEnding = ".weight";
  input.name = input.weights[0];
  if (input.name.ends_with(kEnding)) input.name.resize(input.name.size() - kEnding.size());
  if (!names.insert(input.name).second) {
    input.name += "." + std::string(model::role_name(stage.roles[0]));
    names.insert(input.name);
  }
  return input;
}

InputCoverage coverage_of(const InputMoments& train, const InputMoments& held_out) {
  InputCoverage coverage;
  for (std::int64_t m = 0; m < train.n_matrices(); ++m) coverage.tokens.push_back(train.count(m));
  for (std::int64_t m = 0; m < held_out.n_matrices(); ++m) coverage.held_out.push_back(held_out.count(m));
  return coverage;
}

void merge_input(ExecContext& context, std::span<const StatisticsFile> files, std::size_t input, InputMoments& train,
                 InputMoments& held_out) {
  for (const StatisticsFile& file : files) {
    train.merge(context, file.train(input));
    if (held_out.n_matrices() > 0) held_out.merge(context, file.held_out(input));
  }
}

}  // namespace

StatisticsPlan plan_statistics(ExecContext& context, const std::shared_ptr<const model::ModelSource>& source,
                               const StatisticsKinds& kinds) {
  TokenChunks few;
  few.context = kPlanTokens;
  few.n_chunks = 1;
  few.tokens.resize(static_cast<std::size_t>(kPlanTokens));
  BlockWalk walk(context, source, nullptr, few, {best_isa(), 0});
  StatisticsPlan plan;
  plan.header.architecture = source->spec().arch;
  plan.header.model = source->spec().name;
  plan.header.kinds = kinds;
  std::set<std::string> names;
  const auto add = [&](const Stage& stage) {
    plan.header.inputs.push_back(describe(source->spec(), stage, names));
    plan.stages.push_back(stage);
  };
  for (int layer = 0; layer < source->spec().n_layers(); ++layer) {
    context.check_cancelled();
    for (const Stage& stage : walk.stages(context, layer)) add(stage);
  }
  add(walk.head_stage());
  plan.header.probe = probe_of(*source, plan.header.inputs);
  return plan;
}

std::vector<InputCoverage> collect_statistics(ExecContext& context,
                                              const std::shared_ptr<const model::ModelSource>& source,
                                              const StatisticsPlan& plan, const TokenChunks& chunks,
                                              std::span<const StatisticsFile> merge, StatisticsWriter& writer) {
  const StatisticsKinds& kinds = plan.header.kinds;
  BlockWalk walk(context, source, nullptr, chunks, {best_isa(), kinds.held_out ? kHeldOutEvery : 0});
  std::vector<InputCoverage> coverage;
  ProgressTask progress(context.progress, "calibrate", plan.stages.size(), "inputs");
  const Wanted wanted{kinds.gram, false, kinds.ranges}, judging{true, false, false};
  const auto take = [&](std::size_t input, InputMoments& train, InputMoments& held_out) {
    merge_input(context, merge, input, train, held_out);
    writer.write(input, train, held_out);
    coverage.push_back(coverage_of(train, held_out));
    progress.add(1);
  };
  for (std::size_t begin = 0, end = 0; begin < plan.stages.size(); begin = end) {
    context.check_cancelled();
    const Stage& first = plan.stages[begin];
    const auto same_half = [&](const Stage& stage) { return stage.layer == first.layer && stage.half == first.half; };
    while (end < plan.stages.size() && same_half(plan.stages[end])) ++end;
    if (first.layer < 0) {
      InputMoments train = walk.collect(context, first, wanted, Share::kTrain), held_out;
      if (kinds.held_out) held_out = walk.collect(context, first, judging, Share::kHeldOut);
      take(begin, train, held_out);
      continue;
    }
    std::vector<InputMoments> held_out;
    std::vector<InputMoments> train = walk.collect_and_pass(context, std::span(plan.stages).subspan(begin, end - begin),
                                                            wanted, kinds.held_out ? judging : Wanted{}, held_out);
    for (std::size_t i = 0; i < train.size(); ++i) {
      InputMoments none;
      take(begin + i, train[i], kinds.held_out ? held_out[i] : none);
    }
  }
  return coverage;
}

std::vector<InputCoverage> merge_statistics(ExecContext& context, std::span<const StatisticsFile> files,
                                            StatisticsWriter* writer) {
  std::vector<InputCoverage> coverage;
  for (std::size_t i = 0; i < files[0].header().inputs.size(); ++i) {
    context.check_cancelled();
    InputMoments train = files[0].train(i), held_out = files[0].held_out(i);
    merge_input(context, files.subspan(1), i, train, held_out);
    if (writer != nullptr) writer->write(i, train, held_out);
    coverage.push_back(coverage_of(train, held_out));
  }
  return coverage;
}

}  // namespace nibble::calib
