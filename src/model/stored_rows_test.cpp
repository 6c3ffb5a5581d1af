#include "model/stored_rows.h"

#include <gtest/gtest.h>

#include <numeric>

#include "encoding/encoding.h"

namespace nibble::model {
namespace {

// A tensor of f32 whose numbers are their places.
Tensor counting(const Shape& shape) {
  Tensor tensor(encoding::get("f32"), shape);
  const auto bytes = tensor.add_part(PartRole::kCodes, Dtype::kF32, shape);
  auto* values = reinterpret_cast<float*>(bytes.data());
  std::iota(values, values + shape.elements(), 0.0f);
  return tensor;
}

void expect_strided(const Shape& weight, const Strides& strides) {
  const Tensor tensor = counting(strides.shape);
  StoredRows stored;
  stored.view = tensor.view();
  stored.shape = weight;
  stored.strides = strides;
  ASSERT_EQ(stored.cols(), weight.cols());
  const std::int64_t rows = weight.rows(), cols = weight.cols(), height = Strides::rows_of_matrix(weight);
  for (std::int64_t begin = 0; begin < rows; ++begin) {
    for (std::int64_t end = begin + 1; end <= rows; ++end) {
      std::vector<float> got(static_cast<std::size_t>((end - begin) * cols), -1.0f);
      stored.read(begin, end, got.data());
      for (std::int64_t r = begin; r < end; ++r) {
        for (std::int64_t c = 0; c < cols; ++c) {
          const std::int64_t at =
              strides.offset + r / height * strides.matrix + r % height * strides.row + c * strides.col;
          ASSERT_EQ(got[static_cast<std::size_t>((r - begin) * cols + c)], static_cast<float>(at)) << r << ' ' << c;
        }
      }
    }
  }
}

TEST(StoredRows, PartsOfAStack) {
  expect_strided({3, 4, 5}, {.shape = {3, 8, 5}, .offset = 20, .matrix = 40, .row = 5, .col = 1});
}
TEST(StoredRows, EveryOtherRowOfAStack) {
  expect_strided({3, 4, 5}, {.shape = {3, 8, 5}, .offset = 5, .matrix = 40, .row = 10, .col = 1});
}
TEST(StoredRows, EveryOtherColumnOfATransposedStack) {
  expect_strided({3, 4, 5}, {.shape = {3, 5, 8}, .offset = 1, .matrix = 40, .row = 2, .col = 8});
}
TEST(StoredRows, RowsOfHeadsTransposed) {
  expect_strided({3, 4, 2}, {.shape = {15, 4}, .offset = 4, .matrix = 20, .row = 1, .col = 4});
}
TEST(StoredRows, EveryOtherNumberOfAMatrix) {
  expect_strided({3, 4}, {.shape = {3, 8}, .offset = 1, .matrix = 0, .row = 8, .col = 2});
}

TEST(StoredRows, BytesAreTheShareOfTheTensor) {
  const Tensor tensor = counting({3, 8, 5});
  container::TensorEntry entry;
  entry.view = tensor.view();
  StoredRows stored;
  stored.entry = &entry;
  stored.view = entry.view;
  stored.shape = {3, 2, 5};
  EXPECT_EQ(stored.n_bytes(), 3u * 2 * 5 * 4);
  stored.shape = {3, 8, 5};
  EXPECT_EQ(stored.n_bytes(), 3u * 8 * 5 * 4);
}

}  // namespace
}  // namespace nibble::model
