// Folders of GPTQ whose linears list the groups of their inputs (act-order): on the fast path columns are sorted by
// group, and every input is brought into the order of each matrix that takes it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/atomic_file.h"
#include "base/rng.h"
#include "container/hf/format.h"
#include "encoding/affine.h"
#include "kernel/linear.h"
#include "model/model.h"
#include "testing/program.h"
#include "testing/tiny_model.h"

namespace nibble::model {
namespace {

constexpr std::int64_t kGroup = 32;

// The groups of the columns in no order; q and k, which take the same input, list the same. `uneven`: one group is too
// large.
void list_groups(const std::string& name, bool uneven, std::span<std::byte> list) {
  const std::size_t key = name.find("k_proj");
  std::uint64_t seed = 0;
  for (std::size_t i = 0; i < name.size(); ++i) seed = seed * 31 + static_cast<std::uint64_t>(i == key ? 'q' : name[i]);
  std::vector<std::int32_t> groups(list.size() / 4);
  for (std::size_t c = 0; c < groups.size(); ++c) {
    groups[c] = static_cast<std::int32_t>(c / kGroup);
    std::swap(groups[c], groups[random_bits(seed, 6, c) % (c + 1)]);
  }
  if (uneven) std::ranges::replace(groups.begin(), groups.begin() + kGroup, 0, 1);
  std::memcpy(list.data(), groups.data(), list.size());
}

// The weight in int4-g32-gidx-asym-f16.
Tensor quantized(const container::TensorEntry& entry, const encoding::EncodingInfo& info, bool uneven) {
  const Shape& shape = entry.view.shape;
  const encoding::AffineParams& params = info.affine;
  const std::int64_t cols = shape.cols(), groups = encoding::groups_per_row(params, cols);
  Tensor tensor = encoding::allocate(info, shape);
  const auto list = tensor.mutable_part(PartRole::kGroupIndex);
  list_groups(entry.name, uneven, list);
  std::vector<float> row(static_cast<std::size_t>(cols));
  std::vector<std::uint8_t> codes(row.size());
  std::vector<std::size_t> group_of(row.size());
  for (std::int64_t c = 0; c < cols; ++c)
    group_of[static_cast<std::size_t>(c)] =
        static_cast<std::size_t>(encoding::group_of_column(params, cols, list.data(), c));
  for (std::int64_t r = 0; r < shape.rows(); ++r) {
    encoding::decode_rows(entry.view, r, r + 1, row.data());
    std::vector<float> low(static_cast<std::size_t>(groups)), high(low.size());
    for (std::size_t c = 0; c < row.size(); ++c) {
      low[group_of[c]] = std::min(low[group_of[c]], row[c]);
      high[group_of[c]] = std::max(high[group_of[c]], row[c]);
    }
    std::vector<encoding::ScaleZero> at;
    for (std::size_t g = 0; g < low.size(); ++g) {
      at.push_back(encoding::scale_of_range(params, low[g], high[g]));
      at[g].zero = std::max(at[g].zero, 1);  // a file of GPTQ cannot say 0
      encoding::store_scale_zero(params, at[g], tensor.mutable_part(PartRole::kScales).data(),
                                 tensor.mutable_part(PartRole::kZeros).data(),
                                 r * groups + static_cast<std::int64_t>(g));
    }
    for (std::size_t c = 0; c < row.size(); ++c)
      codes[c] = static_cast<std::uint8_t>(encoding::nearest_code(params, row[c], at[group_of[c]]));
    encoding::pack_codes(params.bits, codes.data(), cols,
                         tensor.mutable_part(PartRole::kCodes).data() +
                             static_cast<std::uint64_t>(r) * encoding::row_code_bytes(params, cols));
  }
  return tensor;
}

bool is_quantized(const std::string& name) {
  return name.find("proj") != std::string::npos || name.find(".w1.") != std::string::npos ||
         name.find(".w2.") != std::string::npos || name.find(".w3.") != std::string::npos;
}

class ActOrder : public ::testing::TestWithParam<std::string> {
 protected:
  // `uneven`: what the names of linears that list uneven groups end with.
  void write(const std::string& uneven) {
    const encoding::EncodingInfo& info = encoding::get("int4-g32-gidx-asym-f16");
    json::Value config = testing::tiny_config(GetParam());
    testing::write_tiny_model(plain_.path(), config, {.encoding = "f16"});
    const auto reader = container::open(plain_.path());
    const container::hf::Format& format = *container::hf::find_format("gptq");
    std::vector<container::PlannedTensor> plan;
    container::hf::QuantizedWeights weights;
    for (const container::TensorEntry& entry : reader->tensors()) {
      plan.push_back({entry.name, is_quantized(entry.name) ? &info : entry.view.encoding, entry.view.shape});
      if (is_quantized(entry.name)) weights.tensors.push_back(plan.back());
    }
    ASSERT_GE(weights.tensors.size(), 14u);
    const auto writer = container::hf::create_quantized(folder_.path(), {}, plan, format);
    for (std::size_t i = 0; i < plan.size(); ++i) {
      const container::TensorEntry& entry = reader->at(plan[i].name);
      const bool is_uneven = !uneven.empty() && entry.name.ends_with(uneven);
      if (plan[i].encoding != &info) {
        writer->write_tensor(i, entry.view);
      } else {
        writer->write_tensor(i, quantized(entry, info, is_uneven).view());
      }
    }
    writer->commit();
    config.set("quantization_config", format.config(weights));
    write_file_atomically(folder_.path() / "config.json", json::dump(config));
    source_ = ModelSource::open(folder_.path());
  }

  // Logits of 60 tokens: 40 as one batch, the others one by one.
  std::vector<float> run(const LoadOptions& options) {
    const auto model = Model::load(context_, source_, options);
    std::vector<token::TokenId> tokens(60);
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<token::TokenId>(random_bits(7, 1, i) % static_cast<std::uint64_t>(model->spec().vocab));
    KvCache cache(model->spec(), KvType::kF32, 1, 60);
    std::vector<float> out;
    const auto sink = [&](std::size_t, std::int64_t, std::int64_t n, const float* logits) {
      out.insert(out.end(), logits, logits + n * model->spec().vocab);
    };
    for (std::size_t at = 0; at < tokens.size();) {
      const std::size_t count = at == 0 ? 40 : 1;
      const Segment segment = {0, std::span(tokens).subspan(at, count), 0};
      model->forward(context_, cache, {&segment, 1}, sink);
      at += count;
    }
    return out;
  }

  // Every instruction set against the exact path.
  void expect_close() {
    const std::vector<float> exact = run({MathPath::kExact, best_isa()});
    for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
      if (isa > machine_isa()) continue;
      const std::vector<float> fast = run({MathPath::kFast, isa});
      ASSERT_EQ(fast.size(), exact.size());
      const auto vocab = static_cast<std::size_t>(source_->spec().vocab);
      std::vector<double> errors;  // of each token, beside its logits
      for (std::size_t at = 0; at < exact.size(); at += vocab) {
        double error = 0, square = 0;
        for (std::size_t i = at; i < at + vocab; ++i) {
          error += std::pow(static_cast<double>(fast[i]) - static_cast<double>(exact[i]), 2);
          square += std::pow(static_cast<double>(exact[i]), 2);
        }
        errors.push_back(std::sqrt(error / square));
      }
      std::ranges::sort(errors);
      // A few tokens may take other experts.
      EXPECT_LT(errors[errors.size() * 3 / 4], 0.1) << isa_name(isa);
    }
  }

  testing::TemporaryFolder plain_, folder_;
  ThreadPool pool_{2};
  CancelToken cancel_;
  NullProgress progress_;
  ExecContext context_{pool_, cancel_, progress_};
  std::shared_ptr<const ModelSource> source_;
};

TEST_P(ActOrder, RunsAsTheExactPathDoes) {
  write("");
  for (std::size_t i = 0; i < source_->spec().weights.size(); ++i) {
    const StoredRows& weight = source_->weight(i);
    if (weight.entry == nullptr || weight.view.encoding->family != encoding::Family::kAffine) continue;
    EXPECT_TRUE(weight.view.encoding->affine.group_index) << weight.entry->name;
    EXPECT_TRUE(weight.has_even_groups()) << weight.entry->name;
  }
  expect_close();
}

TEST_P(ActOrder, UnevenGroupsRunBesideEvenOnes) {
  write("1.self_attn.v_proj.weight");
  expect_close();
}

INSTANTIATE_TEST_SUITE_P(Architectures, ActOrder, ::testing::Values("llama", "mixtral", "qwen3_moe"));

}  // namespace
}  // namespace nibble::model
