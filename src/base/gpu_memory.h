// The memory of the graphics processors of this machine, without any of their libraries.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace nibble {

// All devices of one driver together: a model may be split over them.
struct GpuMemory {
  std::string driver;  // "amdgpu", "nvidia"
  int devices = 0;
  std::uint64_t bytes = 0;  // of all of them
};

struct GpuProbe {
  std::filesystem::path drm = "/sys/class/drm";  // where amdgpu shows each card's memory
  std::string nvidia_smi = "nvidia-smi";         // a name looked up on PATH, or a path
  std::chrono::milliseconds limit{5000};         // nvidia-smi is ended after that
};

// Never throws for what is not there, does not answer or makes no sense: that is no device.
std::vector<GpuMemory> gpu_memory(const GpuProbe& probe = {});

}  // namespace nibble
