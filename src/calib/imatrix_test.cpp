// Both file forms of an importance matrix: files made by llama-imatrix, round trips, merging, damaged files.
#include "calib/imatrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "testing/program.h"

namespace nibble::calib {
namespace {

using testing::TemporaryFolder;

const std::string kGolden = std::string(NIBBLE_SOURCE_DIR) + "/src/calib/testdata/block0";

Imatrix small_imatrix() {
  Imatrix imatrix;
  imatrix.entries["blk.0.attn_q.weight"] = {{10, 20, 30, 40}, {10}};
  imatrix.entries["blk.0.ffn_down_exps.weight"] = {{4, 8, 1, 2, 0, 0},
                                                   {4, 1, 0}};  // three experts, the last without tokens
  imatrix.entries["token_embd.weight"] = {{0.5, 0}, {16}};
  imatrix.chunk_count = 2;
  imatrix.chunk_size = 8;
  imatrix.datasets = {"one.txt", "two.txt"};
  return imatrix;
}

TEST(Imatrix, ReadsTheGgufFormOfLlamaCpp) {
  const Imatrix imatrix = load_imatrix(kGolden + ".gguf");
  EXPECT_EQ(imatrix.entries.size(), 7u);
  EXPECT_EQ(imatrix.chunk_count, 2);
  EXPECT_EQ(imatrix.chunk_size, 64);
  EXPECT_THAT(imatrix.datasets, ::testing::ElementsAre("calib.txt"));
  const ImatrixEntry* q = imatrix.find("blk.0.attn_q.weight");
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(q->sums.size(), 256u);
  EXPECT_THAT(q->counts, ::testing::ElementsAre(128));
  EXPECT_FLOAT_EQ(static_cast<float>(q->sums[0]), 4.623583f);
  EXPECT_FLOAT_EQ(static_cast<float>(q->sums[3]), 14.182745f);
  EXPECT_EQ(imatrix.find("blk.0.ffn_down.weight")->sums.size(), 768u);
  EXPECT_EQ(imatrix.find("output.weight"), nullptr);
}

TEST(Imatrix, BothFormsOfLlamaCppSayTheSame) {
  const Imatrix gguf = load_imatrix(kGolden + ".gguf");
  const Imatrix dat = load_imatrix(kGolden + ".dat");
  EXPECT_EQ(dat.chunk_count, 2);
  EXPECT_EQ(dat.chunk_size, 0);
  EXPECT_THAT(dat.datasets, ::testing::ElementsAre("calib.txt"));
  ASSERT_EQ(dat.entries.size(), gguf.entries.size());
  for (const auto& [name, entry] : gguf.entries) {
    ASSERT_NE(dat.find(name), nullptr) << name;
    const std::vector<float> expected = mean_square(entry);
    const std::vector<float> found = mean_square(*dat.find(name));
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_FLOAT_EQ(found[i], expected[i]) << name;
  }
}

TEST(Imatrix, WritesTheDatFormByteForByteAsLlamaCpp) {
  const TemporaryFolder folder;
  Imatrix imatrix = load_imatrix(kGolden + ".gguf");
  save_imatrix(imatrix, folder / "out.dat", ImatrixFormat::kDat);
  EXPECT_EQ(read_file(folder / "out.dat"), read_file(kGolden + ".dat"));
}

TEST(Imatrix, GgufFormKeepsEverything) {
  const TemporaryFolder folder;
  const Imatrix imatrix = small_imatrix();
  save_imatrix(imatrix, folder / "out.gguf", ImatrixFormat::kGguf);
  const Imatrix read = load_imatrix(folder / "out.gguf");
  EXPECT_EQ(read.chunk_count, 2);
  EXPECT_EQ(read.chunk_size, 8);
  EXPECT_EQ(read.datasets, imatrix.datasets);
  ASSERT_EQ(read.entries.size(), imatrix.entries.size());
  for (const auto& [name, entry] : imatrix.entries) {
    EXPECT_EQ(read.find(name)->sums, entry.sums) << name;
    EXPECT_EQ(read.find(name)->counts, entry.counts) << name;
  }
}

TEST(Imatrix, MeansOfExpertsAndOfThoseWithoutTokens) {
  const Imatrix imatrix = small_imatrix();
  EXPECT_THAT(mean_square(*imatrix.find("blk.0.ffn_down_exps.weight")), ::testing::ElementsAre(1, 2, 1, 2, 1, 1));
  const TemporaryFolder folder;
  save_imatrix(imatrix, folder / "out.dat", ImatrixFormat::kDat);
  const Imatrix read = load_imatrix(folder / "out.dat");
  EXPECT_THAT(mean_square(*read.find("blk.0.ffn_down_exps.weight")), ::testing::ElementsAre(1, 2, 1, 2, 1, 1));
  EXPECT_THAT(mean_square(*read.find("blk.0.attn_q.weight")), ::testing::ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(read.datasets, ::testing::ElementsAre("two.txt"));
}

TEST(Imatrix, MergingAddsTokens) {
  Imatrix sum = small_imatrix();
  Imatrix more;
  more.entries["blk.0.attn_q.weight"] = {{1, 1, 1, 1}, {6}};
  more.entries["blk.1.attn_q.weight"] = {{5}, {1}};
  more.chunk_count = 1;
  more.chunk_size = 8;
  more.datasets = {"three.txt"};
  merge_imatrix(sum, more);
  EXPECT_THAT(sum.find("blk.0.attn_q.weight")->sums, ::testing::ElementsAre(11, 21, 31, 41));
  EXPECT_THAT(sum.find("blk.0.attn_q.weight")->counts, ::testing::ElementsAre(16));
  EXPECT_THAT(sum.find("blk.1.attn_q.weight")->sums, ::testing::ElementsAre(5));
  EXPECT_EQ(sum.chunk_count, 3);
  EXPECT_EQ(sum.datasets.size(), 3u);

  more.entries["blk.0.attn_q.weight"] = {{1, 1}, {6}};
  EXPECT_THROW(merge_imatrix(sum, more), Error);
}

TEST(Imatrix, MergingTheDatFormCountsChunksAsTokens) {
  const TemporaryFolder folder;
  save_imatrix(small_imatrix(), folder / "out.dat", ImatrixFormat::kDat);
  Imatrix sum = small_imatrix();
  merge_imatrix(sum, load_imatrix(folder / "out.dat"));
  EXPECT_EQ(sum.chunk_size, 8);
  // 10 tokens of 8-token chunks were written as 2 calls; both read the same means, so the sum keeps them.
  EXPECT_THAT(mean_square(*sum.find("blk.0.attn_q.weight")), ::testing::ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(sum.find("blk.0.attn_q.weight")->counts, ::testing::ElementsAre(26));
}

std::string refusal(const std::string& path) {
  try {
    load_imatrix(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Imatrix, DamagedFilesAreRefusedByName) {
  const TemporaryFolder folder;
  const std::string whole = read_file(kGolden + ".dat");
  for (std::size_t size = 0; size < whole.size(); size += size < 12 ? 1 : 499) {
    write_file_atomically(folder / "cut.dat", whole.substr(0, size));
    EXPECT_THAT(refusal(folder / "cut.dat"), ::testing::HasSubstr("cut.dat")) << size;
  }
  std::string lying = whole;
  const std::int32_t huge = 0x7FFFFFFF;
  for (const std::size_t offset : {std::size_t{0}, std::size_t{4}}) {
    lying = whole;
    std::memcpy(lying.data() + offset, &huge, sizeof huge);
    write_file_atomically(folder / "lying.dat", lying);
    EXPECT_NE(refusal(folder / "lying.dat"), "accepted") << offset;
  }
  write_file_atomically(folder / "tail.dat", whole + "x");
  EXPECT_THAT(refusal(folder / "tail.dat"), ::testing::HasSubstr("follow the end"));
  EXPECT_THAT(refusal(folder / "absent.dat"), ::testing::HasSubstr("absent.dat"));
  const std::string gguf = read_file(kGolden + ".gguf");
  write_file_atomically(folder / "cut.gguf", gguf.substr(0, gguf.size() / 2));
  EXPECT_THAT(refusal(folder / "cut.gguf"), ::testing::HasSubstr("cut.gguf"));
}

TEST(Imatrix, NegativeAndNonFiniteSumsAreRefused) {
  const TemporaryFolder folder;
  for (const double bad : {-1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    Imatrix imatrix = small_imatrix();
    imatrix.entries["token_embd.weight"].sums[1] = bad;
    EXPECT_THROW(save_imatrix(imatrix, folder / "out.gguf", ImatrixFormat::kGguf), Error);
  }
  std::string bytes = read_file(kGolden + ".dat");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bytes.data() + bytes.size() - 64, &nan, sizeof nan);  // among the last entry's values
  write_file_atomically(folder / "nan.dat", bytes);
  EXPECT_THAT(refusal(folder / "nan.dat"), ::testing::HasSubstr("blk.0.ffn_up.weight"));
  EXPECT_THROW(save_imatrix({}, folder / "out.gguf", ImatrixFormat::kGguf), Error);
}

}  // namespace
}  // namespace nibble::calib
