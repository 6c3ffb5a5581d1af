#include "pipeline/from_statistics.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace nibble::pipeline {

namespace {

using calib::StatisticsFile;

// The slots to quantize, by layer and by the input that they share.
using Work = std::map<int, std::map<std::size_t, std::vector<std::size_t>>>;

Work work_of(const model::ModelSpec& spec, const StatisticsFile& statistics, const std::vector<SlotTarget>& targets,
             const method::Options& options) {
  const std::string file = statistics.path().string();
  Work work;
  for (std::size_t slot = 0; slot < targets.size(); ++slot) {
    if (targets[slot].target == nullptr) continue;
    const model::WeightSlot& weight = spec.weights[slot];
    const auto input = statistics.find(weight.gguf_name);
    if (!input) fail(ErrorCode::kInvalidArgument, "statistics '{}' hold nothing of '{}'", file, weight.hf_name);
    if (method::asks_for_gram(*targets[slot].method, options) && !statistics.header().kinds.gram) {
      fail(ErrorCode::kInvalidArgument,
           "tensor '{}': {} needs the gram of its inputs, which statistics '{}' do not hold", weight.hf_name,
           targets[slot].method->name, file);
    }
    work[weight.layer][*input].push_back(slot);
  }
  return work;
}

}  // namespace

std::vector<SlotOutcome> quantize_from_statistics(ExecContext& context,
                                                  const std::shared_ptr<model::ModelSource>& source,
                                                  const StatisticsFile& statistics,
                                                  const std::vector<SlotTarget>& targets,
                                                  const method::Options& options,
                                                  const std::function<void(int)>& block_done) {
  Work work = work_of(source->spec(), statistics, targets, options);
  std::vector<SlotOutcome> outcomes(targets.size());
  const SlotSolver solver{context, *source, options};
  const int n_layers = source->spec().n_layers();
  ProgressTask progress(context.progress, "blocks", static_cast<std::uint64_t>(n_layers), "blocks");
  for (int i = 0; i <= n_layers; ++i) {
    const int layer = i < n_layers ? i : -1;  // the head at last
    context.check_cancelled();
    for (const auto& [input, slots] : work[layer]) {
      const bool gram = std::ranges::any_of(
          slots, [&](std::size_t slot) { return method::asks_for_gram(*targets[slot].method, options); });
      const StageMoments moments{statistics.train(input), gram ? statistics.held_out(input) : calib::InputMoments()};
      const calib::StatisticsInput& of = statistics.header().inputs[input];
      const calib::Stage stage{layer, {}, {}, of.matrices, of.cols};
      for (const std::size_t slot : slots)
        source->exchange(slot, solver.solve(slot, stage, moments, targets[slot], outcomes[slot]));
    }
    block_done(layer);
    if (layer >= 0) progress.add(1);
  }
  return outcomes;
}

}  // namespace nibble::pipeline
