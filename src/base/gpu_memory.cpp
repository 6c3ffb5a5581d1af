#include "base/gpu_memory.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <fstream>
#include <string_view>
#include <thread>

extern char** environ;  // NOLINT: POSIX declares it nowhere

namespace nibble {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostOutput = std::size_t{1} << 16;
constexpr std::uint64_t kMostMebibytes = std::uint64_t{1} << 30;  // of one device; more is no answer

bool is_card(std::string_view name) {  // "card0", not "card0-DP-1"
  return name.size() > 4 && name.starts_with("card") &&
         name.find_first_not_of("0123456789", 4) == std::string_view::npos;
}

void add(GpuMemory& gpus, std::uint64_t n_bytes) {
  if (n_bytes == 0) return;
  ++gpus.devices;
  gpus.bytes += n_bytes;
}

GpuMemory amdgpu(const fs::path& drm) {
  GpuMemory gpus{"amdgpu", 0, 0};
  std::error_code error;
  for (fs::directory_iterator it(drm, error), end; !error && it != end; it.increment(error)) {
    if (!is_card(it->path().filename().string())) continue;
    std::ifstream file(it->path() / "device" / "mem_info_vram_total");
    std::uint64_t n_bytes = 0;
    if (file >> n_bytes && n_bytes >> 20 <= kMostMebibytes) add(gpus, n_bytes);
  }
  return gpus;
}

// Reads until the end, the limit or too much; true at the end.
bool read_until_end(int fd, Clock::time_point deadline, std::string& out) {
  while (out.size() < kMostOutput) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd waiting{fd, POLLIN, 0};
    const int ready = left > 0 ? poll(&waiting, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    char buffer[4096];
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n == 0;
    out.append(buffer, static_cast<std::size_t>(n));
  }
  return false;
}

// Starts a program with its output in `fd`, its errors nowhere, in a process group of its own; -1 when that fails.
pid_t start(const std::vector<std::string>& command, int fd) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  if (posix_spawn_file_actions_init(&files) != 0) return -1;
  if (posix_spawnattr_init(&attributes) != 0) {
    posix_spawn_file_actions_destroy(&files);
    return -1;
  }
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, fd, STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, argv[0], &files, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return error == 0 ? pid : -1;
}

// The exit status of the program; it and all it has started are killed at the deadline.
int wait_until(pid_t pid, Clock::time_point deadline) {
  int status = -1;
  pid_t ended = 0;
  while ((ended = waitpid(pid, &status, WNOHANG)) == 0 && Clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (ended == 0) {
    kill(-pid, SIGKILL);
    while ((ended = waitpid(pid, &status, 0)) < 0 && errno == EINTR) {
    }
  }
  return ended == pid ? status : -1;
}

// What a program prints, or nothing when it cannot be started, fails, or takes longer than `limit`.
std::string output_of(const std::vector<std::string>& command, std::chrono::milliseconds limit) {
  const Clock::time_point deadline = Clock::now() + limit;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return {};
  const pid_t pid = start(command, ends[1]);
  close(ends[1]);
  std::string out;
  const bool whole = pid > 0 && read_until_end(ends[0], deadline, out);
  close(ends[0]);
  if (pid <= 0) return {};
  const int status = wait_until(pid, whole ? deadline : Clock::now());
  return whole && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? out : std::string();
}

// One line of mebibytes for each device; "[N/A]" where the driver does not say.
GpuMemory nvidia(const GpuProbe& probe) {
  GpuMemory gpus{"nvidia", 0, 0};
  const std::string out =
      output_of({probe.nvidia_smi, "--query-gpu=memory.total", "--format=csv,noheader,nounits"}, probe.limit);
  for (std::size_t begin = 0; begin < out.size();) {
    const std::size_t end = std::min(out.find('\n', begin), out.size());
    std::uint64_t mebibytes = 0;
    const auto [stop, error] = std::from_chars(out.data() + begin, out.data() + end, mebibytes);
    const bool number = error == std::errc() && (stop == out.data() + end || *stop == '\r' || *stop == ' ');
    if (number && mebibytes <= kMostMebibytes) add(gpus, mebibytes << 20);
    begin = end + 1;
  }
  return gpus;
}

}  // namespace

std::vector<GpuMemory> gpu_memory(const GpuProbe& probe) {
  std::vector<GpuMemory> found;
  for (GpuMemory& gpus : std::vector<GpuMemory>{amdgpu(probe.drm), nvidia(probe)}) {
    if (gpus.devices > 0) found.push_back(std::move(gpus));
  }
  return found;
}

}  // namespace nibble
