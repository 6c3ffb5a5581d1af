#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <limits>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/atomic_file.h"
#include "base/checked.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "base/rng.h"
#include "base/thread_pool.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

class BaseFiles : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("nibble_base_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::size_t n_files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  fs::path folder_;
};

TEST(Checked, OverflowIsAnError) {
  const auto huge = std::numeric_limits<std::uint64_t>::max();
  EXPECT_THROW(checked_mul(huge, std::uint64_t{2}), Error);
  EXPECT_THROW(checked_add(huge, std::uint64_t{1}), Error);
  EXPECT_THROW(checked_cast<std::int32_t>(huge), Error);
  EXPECT_EQ(checked_align(std::uint64_t{33}, std::uint64_t{32}), 64u);
}

TEST(Error, ContextIsPutInFront) {
  try {
    with_context("file 'x'", [] { fail(ErrorCode::kFormat, "bad {}", 7); });
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "file 'x': bad 7");
    EXPECT_EQ(error.code(), ErrorCode::kFormat);
  }
}

TEST(Format, Units) {
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(1234567890), "1.23 GB");
  EXPECT_EQ(format_count(7345408), "7.35M");
  EXPECT_EQ(format_duration(187), "3m07s");
}

TEST(ThreadPool, EveryIndexOnceAndErrorsReturn) {
  ThreadPool pool(3);
  std::vector<int> hits(1000, 0);
  pool.parallel_for(1000, 7, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
  });
  pool.parallel_dynamic(1000, [&](std::int64_t i) { ++hits[static_cast<std::size_t>(i)]; });
  for (int hit : hits) EXPECT_EQ(hit, 2);
  EXPECT_THROW(pool.run([](int thread) {
    if (thread == 2) fail(ErrorCode::kInternal, "from a worker");
  }),
               Error);
  std::atomic<int> n{0};
  for (int i = 0; i < 2000; ++i) pool.run([&](int) { n.fetch_add(1); });
  EXPECT_EQ(n.load(), 6000);
}

TEST_F(BaseFiles, AbandonedFileLeavesNothing) {
  const auto path = folder_ / "out.bin";
  {
    AtomicFile file(path);
    file.reserve(4096);
    file.write_at(0, std::as_bytes(std::span("abc")));
  }
  EXPECT_EQ(n_files(), 0u);
}

TEST_F(BaseFiles, CommitReplacesWhole) {
  const auto path = folder_ / "out.bin";
  write_file_atomically(path, "old");
  {
    AtomicFile file(path);
    file.write_at(0, std::as_bytes(std::span(std::string_view("newer"))));
    EXPECT_EQ(read_file(path), "old");
    file.commit();
  }
  EXPECT_EQ(read_file(path), "newer");
  EXPECT_EQ(n_files(), 1u);
  EXPECT_THROW(read_file(path, 2), Error);
}

TEST_F(BaseFiles, MissingAndUnwritable) {
  EXPECT_THROW(MappedFile::open(folder_ / "none"), Error);
  EXPECT_THROW(MappedFile::open(folder_), Error);
  EXPECT_THROW(AtomicFile(folder_ / "no" / "such" / "folder"), Error);
  EXPECT_THROW(AtomicFile{folder_}, Error);
  // A device is never replaced by a file: a pipe stands for one here.
  const fs::path pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THROW(AtomicFile{pipe}, Error);
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  write_file_atomically(pipe, "text");
  char text[8] = {};
  EXPECT_EQ(::read(reader, text, sizeof text), 4);
  ::close(reader);
  EXPECT_TRUE(fs::is_fifo(pipe));
}

TEST(Rng, PureAndSpread) {
  EXPECT_EQ(random_bits(1, 2, 3), random_bits(1, 2, 3));
  EXPECT_NE(random_bits(1, 2, 3), random_bits(1, 3, 2));
  double sum = 0;
  double squares = 0;
  for (std::uint64_t i = 0; i < 10000; ++i) {
    const double x = random_normal(5, 0, i);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / 10000, 0, 0.05);
  EXPECT_NEAR(squares / 10000, 1, 0.05);
}

TEST(Cpu, NamesRoundTrip) {
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) EXPECT_EQ(parse_isa(isa_name(isa)), isa);
  EXPECT_GE(cpu_count(), 1);
}

TEST(AlignedBuffer, IsAligned) {
  for (std::size_t size : {1u, 100u, 5u << 20}) {
    AlignedBuffer buffer(size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % AlignedBuffer::kAlignment, 0u);
  }
}

}  // namespace
}  // namespace nibble
