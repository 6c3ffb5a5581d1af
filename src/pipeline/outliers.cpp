#include "nibble/outliers.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "base/atomic_file.h"
#include "base/error.h"
#include "calib/block_walk.h"
#include "pipeline/calibrated.h"
#include "pipeline/joint_types.h"
#include "pipeline/loading.h"
#include "pipeline/outlier_report.h"
#include "pipeline/transforms.h"

namespace nibble {

namespace {

using calib::BlockWalk;
using calib::TokenChunks;
using model::BlockModel;
using model::ModelSource;
using model::Role;
using pipeline::LinearInput;
using transform::SlotTarget;

// Takes what flows into each linear of a block, or into the head.
class Watch final : public model::ForwardObserver {
 public:
  explicit Watch(float threshold) : threshold_(threshold) {}
  void linear_input(ExecContext& context, int layer, std::span<const Role> roles, const float* x, std::int64_t n,
                    std::int64_t cols) override {
    const std::int64_t begins[] = {0, n};
    stack_inputs(context, layer, roles, x, begins, cols);
  }
  void stack_inputs(ExecContext& context, int layer, std::span<const Role> roles, const float* x,
                    std::span<const std::int64_t> begins, std::int64_t cols) override {
    auto input = std::ranges::find_if(inputs_, [&](const Input& each) { return each.roles[0] == roles[0]; });
    if (input == inputs_.end()) {
      const auto n_matrices = static_cast<std::int64_t>(begins.size()) - 1;
      input = inputs_.insert(input, {layer, {roles.begin(), roles.end()}, {n_matrices, cols, threshold_}});
    }
    input->outliers.add(context, x, begins);
  }

  // In order of evaluation, each with one side; what was seen is forgotten.
  std::vector<LinearInput> take() {
    std::vector<LinearInput> out;
    for (const Input& input : inputs_) {
      LinearInput& linear = out.emplace_back();
      linear.layer = input.layer;
      for (const Role role : input.roles) linear.linears.emplace_back(model::role_name(role));
      linear.matrices = input.outliers.n_matrices();
      linear.cols = input.outliers.cols();
      const std::string place =
          input.layer < 0 ? linear.name() : format_text("block {}, {}", input.layer, linear.name());
      with_context(place, [&] { linear.sides.push_back({input.outliers.figures(), input.outliers.features()}); });
    }
    inputs_.clear();
    return out;
  }

 private:
  struct Input {
    int layer;
    std::vector<Role> roles;
    eval::InputOutliers outliers;
  };
  float threshold_;
  std::vector<Input> inputs_;
};

// What the linears of the blocks are to become.
std::vector<SlotTarget> targets_of(const model::ModelSpec& spec, const std::string& type) {
  const auto joint = pipeline::find_joint_type(type);
  SlotTarget linear{joint ? joint->weights : &encoding::get(type), &method::get("rtn")};
  if (joint) linear.inputs = joint->inputs;
  if (!linear.method->supports(*linear.target))
    fail(ErrorCode::kInvalidArgument, "transforms cannot be made for type '{}'", type);
  std::vector<SlotTarget> targets(spec.weights.size());
  for (std::size_t slot = 0; slot < targets.size(); ++slot) {
    const model::WeightSlot& weight = spec.weights[slot];
    const bool matrix = weight.layer >= 0 && !weight.bias && weight.shape.rank() > 1 && model::is_matrix(weight.role);
    if (matrix && weight.role != Role::kRouter) targets[slot] = linear;
  }
  return targets;
}

class OutlierSearch {
 public:
  OutlierSearch(ExecContext& context, const OutlierRequest& request) : context_(context), request_(request) {
    if (request.text.empty()) fail(ErrorCode::kInvalidArgument, "outliers are those of a text: give one");
    if (!(request.threshold > 0) || !std::isfinite(request.threshold))
      fail(ErrorCode::kInvalidArgument, "a threshold of {}: it must be a positive number", request.threshold);
    transforms_ = pipeline::choose_transforms(request.transforms, !request.calib.empty());
  }

  Report run() {
    const auto start = std::chrono::steady_clock::now();
    source_ = ModelSource::open(request_.model);
    const std::int64_t trained = source_->spec().context;
    const std::int64_t usual = calib::default_context(calib::Protocol::kLlamaCpp);
    context_length_ = request_.context != 0 ? request_.context : trained > 0 ? std::min(usual, trained) : usual;
    chunks_ = calib::chunk_file(*pipeline::load_tokenizer(*source_), request_.text,
                                {calib::Protocol::kLlamaCpp, context_length_, request_.chunks});
    if (!transforms_.of_blocks.empty()) {
      const std::int64_t length = request_.calib_context != 0 ? request_.calib_context : context_length_;
      learned_from_ = pipeline::calibration_chunks(*source_, {request_.calib, request_.calib_tokens, length});
      targets_of(source_->spec(), request_.transform_type);  // throws before the work
    }
    measure_as_it_is();
    if (!request_.transforms.empty()) measure_transformed();
    if (!request_.plot.empty()) write_plot();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    return report(seconds.count());
  }

 private:
  void measure_as_it_is() {
    BlockWalk walk(context_, source_, nullptr, chunks_, {best_isa(), 0});
    walk_through(
        walk, [](int) {}, [](int) {}, [this](LinearInput input) { inputs_.push_back(std::move(input)); });
  }

  // The walk over the calibration text goes ahead of the other by one block, which it rewrites for both.
  void measure_transformed() {
    const auto source = transforms_.rewrite(source_, request_.seed)->exchangeable();
    const method::Options options{.isa = best_isa()};
    std::vector<SlotTarget> targets;
    std::optional<BlockWalk> learning;
    if (learned_from_) {
      targets = targets_of(source->spec(), request_.transform_type);
      learning.emplace(context_, source, nullptr, *learned_from_, calib::WalkOptions{best_isa()});
    }
    BlockWalk walk(context_, source, nullptr, chunks_, {best_isa(), 0});
    const auto rewrite = [&](int layer) {
      const bool held = pipeline::hold_made_weights(context_, *source, layer);
      if (learning) {
        if (held) learning->reload(context_, layer);
        for (const transform::Chosen& chosen : transforms_.of_blocks) {
          transform::BlockScope scope{context_, *learning, *source, targets, options, layer, chosen.settings};
          chosen.transform->apply(scope);
        }
        learning->pass(context_, layer, BlockModel::Half::kBoth);
      }
      walk.reload(context_, layer);
    };
    const auto forget = [&](int layer) {
      for (std::size_t slot = 0; slot < source->spec().weights.size(); ++slot) {
        if (source->spec().weights[slot].layer == layer) source->restore(slot);
      }
    };
    std::size_t next = 0;
    walk_through(walk, rewrite, forget,
                 [&](LinearInput input) { inputs_.at(next++).sides.push_back(std::move(input.sides[0])); });
  }

  template <typename Before, typename After, typename Take>
  void walk_through(BlockWalk& walk, Before&& before, After&& after, Take&& take) {
    const int n_layers = walk.spec().n_layers();
    ProgressTask progress(context_.progress, "outliers", static_cast<std::uint64_t>(n_layers), "blocks");
    Watch watch(static_cast<float>(request_.threshold));
    for (int layer = 0; layer < n_layers; ++layer) {
      context_.check_cancelled();
      before(layer);
      walk.pass(context_, layer, BlockModel::Half::kBoth, &watch);
      for (LinearInput& input : watch.take()) take(std::move(input));
      after(layer);
      progress.add(1);
    }
    walk.show_head_input(context_, watch);
    for (LinearInput& input : watch.take()) take(std::move(input));
  }

  std::string transforms_text() const {
    std::string text;
    for (const std::string& name : request_.transforms) text += (text.empty() ? "" : " + ") + name;
    return text;
  }

  void write_plot() const {
    std::string title = std::filesystem::weakly_canonical(request_.model).filename().string();
    if (!request_.transforms.empty()) title += ", before and after " + transforms_text();
    write_file_atomically(request_.plot, pipeline::to_svg(pipeline::outlier_plots(inputs_, title)));
  }

  Report report(double seconds) const {
    json::Value object;
    object.set("model", request_.model.string());
    object.set("text", request_.text.string());
    object.set("chunks", chunks_.n_chunks);
    object.set("context", chunks_.context);
    object.set("threshold", request_.threshold);
    object.set("transforms", json::Array(request_.transforms.begin(), request_.transforms.end()));
    std::string text =
        format_text("{} on {}: {} chunks of {} tokens; outliers are |x| >= {:g}\n", request_.model.string(),
                    request_.text.filename().string(), chunks_.n_chunks, chunks_.context, request_.threshold);
    if (!request_.transforms.empty()) text += "before -> after " + transforms_text();
    if (learned_from_) {
      const std::int64_t tokens = learned_from_->n_chunks * learned_from_->context;
      object.set("transform_type", request_.transform_type);
      object.set("calib", request_.calib.string());
      object.set("calib_tokens", tokens);
      text += format_text(", learned from {} tokens of {} for {}", tokens, request_.calib.filename().string(),
                          request_.transform_type);
    }
    object.set("inputs", pipeline::inputs_json(inputs_));
    object.set("stages", pipeline::stages_json(inputs_));
    object.set("seconds", seconds);
    text += (request_.transforms.empty() ? "\n" : "\n\n") + pipeline::outlier_tables(inputs_);
    return {std::move(text), json::dump(object)};
  }

  ExecContext& context_;
  const OutlierRequest& request_;
  pipeline::Transforms transforms_;
  std::shared_ptr<const ModelSource> source_;
  std::int64_t context_length_ = 0;
  TokenChunks chunks_;
  std::optional<TokenChunks> learned_from_;
  std::vector<LinearInput> inputs_;
};

}  // namespace

Report find_outliers(const RunContext& run, const OutlierRequest& request) {
  OwnedExecContext context(run);
  return OutlierSearch(*context, request).run();
}

}  // namespace nibble
