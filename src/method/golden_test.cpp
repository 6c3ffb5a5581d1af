// The search against GGML's own quantizers on rows of a real model (dev/golden/search.py made the figures).
#include <gtest/gtest.h>

#include <fstream>

#include "method/quantizer.h"

namespace nibble::method {
namespace {

constexpr std::int64_t kRows = 8, kCols = 768;
const std::string kFolder = std::string(NIBBLE_SOURCE_DIR) + "/src/method/testdata/";

struct Data {
  std::vector<float> weights, importance;
};

Data read_data() {
  Data data{std::vector<float>(kRows * kCols), std::vector<float>(kCols)};
  std::ifstream file(kFolder + "search.bin", std::ios::binary);
  for (std::vector<float>* part : {&data.weights, &data.importance}) {
    file.read(reinterpret_cast<char*>(part->data()), static_cast<std::streamsize>(part->size() * sizeof(float)));
  }
  EXPECT_TRUE(file.good());
  return data;
}

// The part of the weights' energy that is lost at the best gain, weighted.
double residual(const Data& data, bool weighted, const std::vector<float>& decoded) {
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < decoded.size(); ++i) {
    const double w = weighted ? static_cast<double>(data.importance[i % kCols]) : 1.0;
    const auto x = static_cast<double>(data.weights[i]), y = static_cast<double>(decoded[i]);
    xy += w * x * y;
    xx += w * x * x;
    yy += w * y * y;
  }
  return 1 - xy * xy / (xx * yy);
}

TEST(Golden, SearchLosesNoMoreThanTheStockQuantizer) {
  const Data data = read_data();
  std::ifstream lines(kFolder + "search.txt");
  std::string type;
  bool weighted = false;
  double stock = 0;
  int n = 0;
  for (; lines >> type >> weighted >> stock; ++n) {
    const encoding::EncodingInfo& target = encoding::get(type);
    Job job{.tensor = "rows", .target = &target, .shape = {kRows, kCols}, .statistics = {}, .options = {}};
    if (weighted) job.statistics.importance = data.importance;
    job.options.isa = best_isa();
    std::vector<std::byte> bytes(encoding::tensor_bytes(target, job.shape));
    RowsOut out;
    out.parts[0] = bytes.data();
    get("search").make(job)->quantize_rows(data.weights.data(), 0, kRows, out);
    std::vector<float> decoded(data.weights.size());
    target.decode(bytes.data(), decoded.data(), kRows * kCols);
    EXPECT_LE(residual(data, weighted, decoded), 1.005 * stock) << type << (weighted ? " with importance" : "");
    RecordProperty(type + (weighted ? "_weighted" : ""), std::to_string(residual(data, weighted, decoded) / stock));
  }
  EXPECT_EQ(n, 24);
}

}  // namespace
}  // namespace nibble::method
