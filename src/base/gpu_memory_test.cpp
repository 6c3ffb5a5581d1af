// Detection of graphics memory against made-up machines.
#include "base/gpu_memory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace nibble {
namespace {

namespace fs = std::filesystem;

struct TemporaryFolder {
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "nibble-gpu-XXXXXX").string();
    path = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { fs::remove_all(path); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return (path / name).string(); }
  fs::path path;
};

constexpr std::uint64_t kMiB = 1 << 20;

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

// A machine of nothing but what a test puts into its folder.
GpuProbe empty_machine(const TemporaryFolder& folder) {
  GpuProbe probe;
  probe.drm = folder / "drm";
  probe.nvidia_smi = folder / "nvidia-smi";
  return probe;
}

GpuProbe with_nvidia_smi(const TemporaryFolder& folder, const std::string& script) {
  const GpuProbe probe = empty_machine(folder);
  write(probe.nvidia_smi, "#!/bin/sh\n" + script + "\n");
  fs::permissions(probe.nvidia_smi, fs::perms::owner_all);
  return probe;
}

TEST(GpuMemory, NothingThere) {
  const TemporaryFolder folder;
  EXPECT_TRUE(gpu_memory(empty_machine(folder)).empty());
}

TEST(GpuMemory, CardsOfAmdgpu) {
  const TemporaryFolder folder;
  const GpuProbe probe = empty_machine(folder);
  write(probe.drm / "card0/device/mem_info_vram_total", "17163091968\n");
  write(probe.drm / "card1/device/mem_info_vram_total", "536870912\n");
  write(probe.drm / "card0-DP-1/device/mem_info_vram_total", "17163091968\n");  // a connector of card0
  write(probe.drm / "renderD128/device/mem_info_vram_total", "17163091968\n");  // card0 again
  write(probe.drm / "card2/device/vendor", "0x8086\n");                         // no memory of its own
  write(probe.drm / "card3/device/mem_info_vram_total", "much\n");
  write(probe.drm / "card4/device/mem_info_vram_total", "");
  const auto found = gpu_memory(probe);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].driver, "amdgpu");
  EXPECT_EQ(found[0].devices, 2);
  EXPECT_EQ(found[0].bytes, 17163091968u + 536870912u);
}

TEST(GpuMemory, DevicesThatNvidiaSmiLists) {
  const TemporaryFolder folder;
  const auto found = gpu_memory(with_nvidia_smi(folder,
                                                "[ \"$*\" = '--query-gpu=memory.total --format=csv,noheader,nounits' ] "
                                                "|| exit 9\nprintf '24564\\n81559\\n[N/A]\\n'"));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].driver, "nvidia");
  EXPECT_EQ(found[0].devices, 2);
  EXPECT_EQ(found[0].bytes, (24564 + 81559) * kMiB);
}

TEST(GpuMemory, AnswersThatMakeNoSenseAreNoDevice) {
  for (const char* script : {"echo 24564; exit 9", "echo NVIDIA-SMI has failed", "echo -5", "echo 99999999999999999999",
                             "echo 24564 >&2", "printf '24564abc\\n'", "exec cat /dev/zero", "kill -9 $$", ":"}) {
    const TemporaryFolder folder;
    EXPECT_TRUE(gpu_memory(with_nvidia_smi(folder, script)).empty()) << script;
  }
}

TEST(GpuMemory, AProgramThatHangsIsEndedAtTheLimit) {
  for (const char* script : {"echo 24564\nsleep 60", "echo 24564\nexec >&-\nsleep 60"}) {
    const TemporaryFolder folder;
    GpuProbe probe = with_nvidia_smi(folder, script);
    probe.limit = std::chrono::milliseconds(200);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_TRUE(gpu_memory(probe).empty());
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  }
}

}  // namespace
}  // namespace nibble
