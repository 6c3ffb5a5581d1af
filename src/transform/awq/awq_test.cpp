// The searches of awq against AutoAWQ's own on two blocks of the bundled model (dev/golden/awq.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>

#include "encoding/affine.h"
#include "method/affine_range.h"
#include "method/layer.h"
#include "method/output_range.h"
#include "model/links.h"
#include "testing/golden.h"
#include "transform/awq/link_search.h"
#include "transform/fold.h"

namespace nibble::transform::awq {
namespace {

using calib::Stage;
using model::Role;

const std::filesystem::path kRoot = NIBBLE_SOURCE_DIR;

class AwqGolden : public ::testing::TestWithParam<int> {
 protected:
  AwqGolden() : pool_(2), context_{pool_, cancel_, progress_} {
    source_ = model::ModelSource::open(kRoot / "models/books-7m")->exchangeable();
    chunks_.context = 256;
    chunks_.n_chunks = 4;
    chunks_.tokens = golden_.values<token::TokenId>("tokens");
    walk_ = std::make_unique<calib::BlockWalk>(context_, source_, nullptr, chunks_,
                                               calib::WalkOptions{best_isa(), 0, std::uint64_t{2} << 30});
    for (int layer = 0; layer < GetParam(); ++layer) walk_->pass(context_, layer, model::BlockModel::Half::kBoth);
    targets_.resize(source_->spec().weights.size());
    for (std::size_t i = 0; i < targets_.size(); ++i) {
      if (source_->spec().weights[i].layer == GetParam() && source_->spec().weights[i].shape.rank() == 2)
        targets_[i].target = &encoding::get("int4-g128-asym");
    }
  }
  std::vector<float> theirs(const std::string& name) {
    return golden_.values<float>(std::to_string(GetParam()) + "." + name);
  }
  Stage stage_of(Role role) {
    const std::vector<Stage> stages = walk_->stages(context_, GetParam());
    return *std::ranges::find_if(
        stages, [&](const Stage& each) { return std::ranges::find(each.roles, role) != each.roles.end(); });
  }

  ThreadPool pool_;
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_;
  const testing::GoldenFile golden_{kRoot / "src/transform/testdata/awq.safetensors"};
  std::shared_ptr<model::ModelSource> source_;
  calib::TokenChunks chunks_;
  std::unique_ptr<calib::BlockWalk> walk_;
  std::vector<SlotTarget> targets_;
  const method::Options options_{.isa = best_isa()};
};

TEST_P(AwqGolden, ChoosesTheFactorsOfThePublishedSearch) {
  BlockScope scope{context_, *walk_, *source_, targets_, options_, GetParam()};
  int compared = 0;
  for (const model::Link& link : model::block_links(source_->spec(), GetParam())) {
    const std::string consumer = link.consumers[0] == Role::kAttnQ     ? "q_proj"
                                 : link.consumers[0] == Role::kFfnGate ? "gate_proj"
                                 : link.consumers[0] == Role::kFfnDown ? "down_proj"
                                                                       : "";
    if (consumer.empty()) continue;
    std::vector<std::size_t> slots;
    for (const Role role : link.consumers) slots.push_back(slot_index(source_->spec(), role, GetParam()));
    const Stage stage = stage_of(link.consumers[0]);
    for (const Form form : {Form::kInputs, Form::kInputsAndWeights}) {
      SCOPED_TRACE(consumer + (form == Form::kInputs ? ".inputs" : ".both"));
      const std::vector<float> expected = theirs(consumer + (form == Form::kInputs ? ".inputs" : ".both"));
      std::vector<float> scale = LinkSearch(scope, link, stage, slots).best({form});
      if (scale.empty()) scale.assign(expected.size(), 1.0f);
      ASSERT_EQ(scale.size(), expected.size());
      for (std::size_t i = 0; i < scale.size(); ++i) ASSERT_NEAR(scale[i], expected[i], 1e-3f * expected[i]) << i;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 6);
}

TEST_P(AwqGolden, ChoosesTheRangesOfThePublishedSearch) {
  const Stage stage = stage_of(Role::kFfnDown);
  calib::InputMoments moments =
      walk_->collect(context_, stage, {.gram = true, .cross = false, .ranges = false}, calib::Share::kTrain);
  const std::vector<float> weights = read_weight(*source_, slot_index(source_->spec(), Role::kFfnDown, GetParam()));
  const std::vector<float> largest = theirs("down_proj.largest");
  const std::int64_t cols = stage.cols, rows = static_cast<std::int64_t>(weights.size()) / cols, groups = cols / 128;
  ASSERT_EQ(largest.size(), static_cast<std::size_t>(rows * groups));
  const encoding::AffineParams params = encoding::get("int4-g128-asym").affine;
  const auto scales = method::choose_scales_by_output(params, weights.data(), rows, cols, moments.gram(0));
  // What the layer's output loses to a group at a scale.
  const auto error_of = [&](std::int64_t row, std::int64_t group, const encoding::ScaleZero& at) {
    std::vector<float> zeros(128), errors;
    for (std::int64_t c = group * 128; c < (group + 1) * 128; ++c) {
      const float value = weights[static_cast<std::size_t>(row * cols + c)];
      errors.push_back(encoding::decode_code(encoding::nearest_code(params, value, at), at) - value);
    }
    std::vector<float> gram;
    for (std::int64_t c = group * 128; c < (group + 1) * 128; ++c) {
      const float* line = moments.gram(0).data() + c * cols + group * 128;
      gram.insert(gram.end(), line, line + 128);
    }
    return method::row_errors(1, 128, errors, zeros, gram)[0];
  };
  std::int64_t same = 0, clipped = 0;
  for (std::int64_t i = 0; i < rows * groups; ++i) {
    const auto range = method::range_of(weights.data() + i * 128, 128);
    const float end = largest[static_cast<std::size_t>(i)];
    const encoding::ScaleZero expected =
        encoding::scale_of_range(params, std::max(range.low, -end), std::min(range.high, end));
    const encoding::ScaleZero& ours = scales[static_cast<std::size_t>(i)];
    clipped += end < std::max(-range.low, range.high) * 0.99f ? 1 : 0;
    if (std::fabs(ours.scale - expected.scale) <= 1e-5f * expected.scale) {
      ++same;
    } else {
      EXPECT_LE(error_of(i / groups, i % groups, ours), 1.0001 * error_of(i / groups, i % groups, expected)) << i;
    }
  }
  EXPECT_GT(clipped, rows * groups / 4);
  // The reference judges weights that it has clipped: where both ends are, a half step may go the other way.
  EXPECT_GT(same, rows * groups * 9 / 10);
}

INSTANTIATE_TEST_SUITE_P(Blocks, AwqGolden, ::testing::Values(0, 5));

}  // namespace
}  // namespace nibble::transform::awq
