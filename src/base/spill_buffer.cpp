#include "base/spill_buffer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.h"

namespace nibble {

namespace {

// An unnamed file of `n_bytes`, its disk space taken.
int open_unnamed(const std::string& folder, std::uint64_t n_bytes) {
  std::string name = folder + "/nibble-XXXXXX";
  const int fd = ::mkstemp(name.data());
  if (fd < 0) fail(ErrorCode::kIo, "'{}': {}", folder, std::strerror(errno));
  ::unlink(name.c_str());
  const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(n_bytes));
  if (error == 0) return fd;
  ::close(fd);
  fail(ErrorCode::kIo, "'{}': no room for {} bytes of intermediate data: {}", folder, n_bytes, std::strerror(error));
}

}  // namespace

SpillBuffer::SpillBuffer(std::uint64_t n_bytes, std::uint64_t limit) {
  if (n_bytes <= limit) {
    memory_ = AlignedBuffer(n_bytes);
    data_ = memory_.data();
    if (n_bytes > 0) std::memset(data_, 0, n_bytes);
    return;
  }
  const char* folder = std::getenv("TMPDIR");
  const int fd = open_unnamed(folder != nullptr && *folder != '\0' ? folder : "/tmp", n_bytes);
  data_ = ::mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int error = errno;
  ::close(fd);
  if (data_ == MAP_FAILED) fail(ErrorCode::kIo, "cannot map {} bytes: {}", n_bytes, std::strerror(error));
  mapped_ = n_bytes;
}

SpillBuffer& SpillBuffer::operator=(SpillBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(mapped_, other.mapped_);
  memory_.swap(other.memory_);
  return *this;
}

SpillBuffer::~SpillBuffer() {
  if (mapped_ > 0) ::munmap(data_, mapped_);
}

}  // namespace nibble
