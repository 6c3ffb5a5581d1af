// Codebooks: names, parts, what bitsandbytes' own tensors decode to, and what is not finite.
#include "encoding/codebook.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "encoding/affine.h"
#include "encoding/codebook_golden_test.h"
#include "tensor/half.h"

namespace nibble::encoding {
namespace {

TEST(CodebookNames, AreInterned) {
  for (const char* name : {"nf4", "nf4-dq", "nf4-b32", "nf4-dq-b4096", "fp4", "fp4-b128", "fp4-dq-b2048",
                           "kmeans2-tensor", "kmeans3-channel", "kmeans4-channel", "kmeans4-g512", "kmeans3-g40"}) {
    const EncodingInfo& info = get(name);
    EXPECT_EQ(info.name, name);
    EXPECT_EQ(info.family, Family::kCodebook);
    EXPECT_EQ(find(name), &info);
    EXPECT_EQ(&codebook_encoding(info.codebook), &info);
  }
  EXPECT_DOUBLE_EQ(get("nf4").bits_per_weight, 4.5);
  EXPECT_DOUBLE_EQ(get("nf4-dq").bits_per_weight, 4 + 8.0 / 64 + 32.0 / (64 * 256));
  EXPECT_DOUBLE_EQ(get("kmeans4-g512").bits_per_weight, 4.5);
  EXPECT_DOUBLE_EQ(get("kmeans3-channel").bits_per_weight, 3);
  CodebookParams loose = get("kmeans4-channel").codebook;
  loose.group = 77;  // counts only per group
  loose.block = 64;
  EXPECT_EQ(&codebook_encoding(loose), &get("kmeans4-channel"));
}

TEST(CodebookNames, RefuseNonsense) {
  for (const char* name : {"nf",
                           "nf4-",
                           "nf4-b",
                           "nf4-b64",
                           "nf4-b31",
                           "nf4-b48",
                           "nf4-b16",
                           "nf4-b8192",
                           "nf4-b0128",
                           "nf4-b-32",
                           "nf4-b128-dq",
                           "nf4-dq-dq",
                           "nf4 ",
                           "NF4",
                           "fp4-g64",
                           "nf4-b99999999999999999999",
                           "kmeans",
                           "kmeans4",
                           "kmeans1-tensor",
                           "kmeans5-tensor",
                           "kmeans04-tensor",
                           "kmeans4-g0",
                           "kmeans4-g",
                           "kmeans4-g032",
                           "kmeans4-tensor-dq",
                           "kmeans4-g9999999",
                           "kmeans4-row"}) {
    EXPECT_EQ(find(name), nullptr) << name;
  }
  EXPECT_THROW(codebook_encoding({.block = 48}), Error);
  EXPECT_THROW(codebook_encoding({.bits = 3}), Error);
  EXPECT_THROW(codebook_encoding({.kind = CodebookKind::kKmeans, .bits = 5}), Error);
  EXPECT_THROW(codebook_encoding({.kind = CodebookKind::kKmeans, .granularity = Granularity::kGroup}), Error);
}

TEST(Codebook, TensorsOfBitsandbytesDecodeToItsValues) {
  int compared = 0;
  for (const CodebookGolden& golden : codebook_golden()) {
    EXPECT_EQ(tensor_bytes(*golden.info, golden.shape), golden.parts.size()) << golden.name;
    const Tensor tensor = golden.tensor();
    validate(tensor.view());
    const std::int64_t rows = golden.shape.rows(), cols = golden.shape.cols();
    EXPECT_EQ(find_not_finite(tensor.view(), 0, rows), rows);
    std::vector<float> all(golden.weights.size());
    decode_rows(tensor.view(), 0, rows, all.data());
    if (!golden.decoded.empty()) {
      EXPECT_EQ(all, golden.decoded) << golden.name;
      ++compared;
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      std::vector<float> one(static_cast<std::size_t>(cols) + 1, -7);
      decode_rows(tensor.view(), row, row + 1, one.data());
      EXPECT_EQ(std::memcmp(one.data(), all.data() + row * cols, static_cast<std::size_t>(cols) * 4), 0);
      EXPECT_EQ(one.back(), -7);
    }
  }
  EXPECT_GE(compared, 10);
}

TEST(Codebook, RowsBeginWhereBlocksDo) {
  struct Case {
    const char* name;
    Shape shape;
    std::int64_t step;
  };
  for (const Case& c : {Case{"nf4", {40, 64}, 1},
                        {"nf4", {40, 96}, 2},
                        {"nf4", {40, 50}, 32},
                        {"nf4", {200, 37}, 64},
                        {"nf4-b4096", {40, 64}, 40},
                        {"nf4-dq", {4, 3, 16}, 4},
                        {"kmeans4-g16", {40, 37}, 1},
                        {"kmeans4-g111", {40, 37}, 3},
                        {"kmeans4-g110", {40, 37}, 2},
                        {"kmeans4-g4096", {40, 37}, 40},
                        {"int4-g64", {40, 37}, 1},
                        {"q4_0", {40, 64}, 1}}) {
    const EncodingInfo& info = get(c.name);
    EXPECT_EQ(row_step(info, c.shape), c.step) << c.name << c.shape.to_string();
    Tensor tensor = allocate(info, c.shape);
    const RowParts first = rows_at(tensor, 0);
    for (int i = 0; i < tensor.view().n_parts; ++i) {
      EXPECT_EQ(first.parts[static_cast<std::size_t>(i)],
                tensor.view().parts[static_cast<std::size_t>(i)].bytes.data());
    }
    if (info.family != Family::kCodebook || !has_blocks(info.codebook) || c.step >= c.shape.rows()) continue;
    const RowParts next = rows_at(tensor, c.step);
    const std::int64_t elements = c.step * c.shape.cols();
    EXPECT_EQ(elements % info.codebook.block, 0);
    EXPECT_EQ(next.parts[0] - first.parts[0], elements / 2);
    EXPECT_EQ(next.parts[1] - first.parts[1], elements / info.codebook.block * (info.codebook.double_quant ? 1 : 4));
    if (info.codebook.double_quant) {
      EXPECT_EQ(next.parts[2], first.parts[2]);
    }
  }
}

TEST(Codebook, CentroidsOfEachGrain) {
  const Shape shape = {2, 3, 11};
  for (const char* name : {"kmeans2-tensor", "kmeans3-channel", "kmeans4-channel", "kmeans3-g4", "kmeans4-g32",
                           "kmeans2-g11", "kmeans4-g23", "kmeans3-g50"}) {
    const EncodingInfo& info = get(name);
    const CodebookParams& params = info.codebook;
    Tensor tensor = allocate(info, shape);
    const std::int64_t n = centroid_count(params), tables = tables_per_row(params, 11);
    const std::span<std::byte> book = tensor.mutable_part(PartRole::kCodebook);
    for (std::size_t i = 0; i < book.size() / 2; ++i) {
      const std::uint16_t half = f32_to_f16(static_cast<float>(i));
      std::memcpy(book.data() + 2 * i, &half, 2);
    }
    std::vector<std::uint8_t> codes(6 * 11);
    for (std::size_t i = 0; i < codes.size(); ++i)
      codes[i] = static_cast<std::uint8_t>(i * 7 % static_cast<std::size_t>(n));
    for (std::int64_t row = 0; row < 6; ++row)
      pack_codes(params.bits, codes.data() + row * 11, 11, rows_at(tensor, row).parts[0]);
    validate(tensor.view());
    EXPECT_EQ(tensor_bytes(info, shape), tensor.view().n_bytes());
    std::vector<float> values(66);
    decode_rows(tensor.view(), 0, 6, values.data());
    for (std::int64_t i = 0; i < 66; ++i) {
      const bool whole = params.granularity == Granularity::kTensor;
      const std::int64_t together = rows_per_table(params, 11);
      const std::int64_t table = whole ? 0 : i / 11 / together * tables + i % 11 / centroid_columns(params, 11);
      EXPECT_EQ(values[static_cast<std::size_t>(i)], static_cast<float>(table * n + codes[static_cast<std::size_t>(i)]))
          << name << " " << i;
    }
    // The last table belongs to the last row, or to all.
    const std::uint16_t infinity = 0x7C00;
    std::memcpy(book.data() + book.size() - 2, &infinity, 2);
    const std::int64_t last = 5 / rows_per_table(params, 11) * rows_per_table(params, 11);
    EXPECT_EQ(find_not_finite(tensor.view(), 0, 6), params.granularity == Granularity::kTensor ? 0 : last) << name;
  }
}

TEST(Codebook, LevelsRoundToTheNearest) {
  for (const CodebookKind kind : {CodebookKind::kNf4, CodebookKind::kFp4}) {
    const auto& levels = levels_of(kind);
    for (int i = 0; i <= 4000; ++i) {
      const float value = static_cast<float>(i - 2000) / 2000;
      float least = 9;
      for (const float level : levels) least = std::min(least, std::fabs(level - value));
      const auto code = static_cast<std::size_t>(nearest_level(kind, value));
      EXPECT_NEAR(std::fabs(levels[code] - value), least, 1e-7f) << value;
      EXPECT_EQ(levels[static_cast<std::size_t>(nearest_level(kind, levels[code]))], levels[code]);
    }
  }
  const auto& map = dynamic_map();
  EXPECT_TRUE(std::ranges::is_sorted(map));
  EXPECT_EQ(map.back(), 1.0f);
  EXPECT_EQ(map[127], 0.0f);
  for (int i = 0; i <= 4000; ++i) {
    const float value = static_cast<float>(i - 2000) / 2000;
    float least = 9;
    for (const float level : map) least = std::min(least, std::fabs(level - value));
    const auto code = static_cast<std::size_t>(nearest_dynamic(value));
    EXPECT_NEAR(std::fabs(map[code] - value), least, 2.0f / 65535) << value;
  }
  EXPECT_EQ(nearest_dynamic(-5), 0);
  EXPECT_EQ(nearest_dynamic(5), 255);
}

TEST(Codebook, FindsScalesThatAreNotFinite) {
  const std::int64_t rows = 40;
  for (const char* name : {"nf4", "nf4-dq"}) {
    const bool nested = get(name).codebook.double_quant;
    for (const float value : {INFINITY, -INFINITY, NAN}) {
      Tensor tensor = allocate(get(name), {rows, 50});
      for (int i = 0; i < tensor.view().n_parts; ++i) {
        const auto part = tensor.mutable_part(tensor.view().parts[static_cast<std::size_t>(i)].role);
        std::memset(part.data(), 0, part.size());
      }
      EXPECT_EQ(find_not_finite(tensor.view(), 0, rows), rows);
      if (nested) {  // of every block
        std::memcpy(tensor.mutable_part(PartRole::kGlobalScale).data(), &value, 4);
        EXPECT_EQ(find_not_finite(tensor.view(), 3, rows), 3);
        continue;
      }
      std::memcpy(tensor.mutable_part(PartRole::kScales).data() + 5 * 4, &value, 4);  // weights 320 .. 383
      EXPECT_EQ(find_not_finite(tensor.view(), 0, rows), 6);
      EXPECT_EQ(find_not_finite(tensor.view(), 7, rows), 7);
      EXPECT_EQ(find_not_finite(tensor.view(), 8, rows), rows);
    }
  }
}

TEST(Codebook, ValidateRefusesOtherParts) {
  const auto fault = [](const TensorView& view) {
    try {
      validate(view);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  for (const char* name : {"nf4", "fp4-dq", "kmeans4-g32", "kmeans2-tensor"}) {
    const Tensor tensor = allocate(get(name), {6, 70});
    EXPECT_EQ(fault(tensor.view()), "") << name;
    for (int i = 0; i < tensor.view().n_parts; ++i) {
      TensorView wrong = tensor.view();
      Part& part = wrong.parts[static_cast<std::size_t>(i)];
      part.bytes = part.bytes.first(part.bytes.size() - 1);
      EXPECT_THAT(fault(wrong), testing::HasSubstr(name)) << i;
      wrong = tensor.view();
      wrong.parts[static_cast<std::size_t>(i)].dtype = Dtype::kI64;
      EXPECT_NE(fault(wrong), "") << i;
      wrong = tensor.view();
      wrong.parts[static_cast<std::size_t>(i)].role = PartRole::kZeros;
      EXPECT_NE(fault(wrong), "") << i;
    }
    TensorView few = tensor.view();
    --few.n_parts;
    EXPECT_NE(fault(few), "") << name;
  }
}

TEST(Codebook, EmptyTensors) {
  for (const char* name : {"nf4", "nf4-dq", "kmeans4-tensor", "kmeans4-g32"}) {
    for (const Shape& shape : {Shape{0, 64}, Shape{4, 0}}) {
      const Tensor tensor = allocate(get(name), shape);
      validate(tensor.view());
      EXPECT_EQ(row_step(get(name), shape), 1);
      decode_rows(tensor.view(), 0, shape.rows(), nullptr);
      EXPECT_EQ(find_not_finite(tensor.view(), 0, shape.rows()), shape.rows());
    }
  }
}

}  // namespace
}  // namespace nibble::encoding
