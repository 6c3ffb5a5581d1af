#include "base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "base/error.h"
#include "base/mapped_file.h"

namespace nibble {

namespace {

std::filesystem::path folder_of(const std::filesystem::path& path) {
  const auto parent = path.parent_path();
  return parent.empty() ? std::filesystem::path(".") : parent;
}

// Something that a file must not take the place of.
bool is_device(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  return !error && std::filesystem::exists(status) && !std::filesystem::is_regular_file(status) &&
         !std::filesystem::is_directory(status);
}

// Devices and pipes take what comes; there is nothing to keep.
void write_to_device(const std::filesystem::path& path, std::string_view content) {
  std::ofstream out(path, std::ios::binary);
  out << content;
  out.flush();
  if (!out) fail(ErrorCode::kIo, "cannot write '{}'", path.string());
}

std::string temporary_name(const std::filesystem::path& path) {
  return (folder_of(path) / ("." + path.filename().string() + "." + std::to_string(getpid()) + ".tmp")).string();
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  if (!path_.has_filename() || std::filesystem::is_directory(path_)) {
    fail(ErrorCode::kInvalidArgument, "cannot write '{}': it is a folder", path_.string());
  }
  if (is_device(path_))
    fail(ErrorCode::kInvalidArgument, "cannot write '{}': it is a device or a pipe", path_.string());
  fd_ = ::open(folder_of(path_).c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
  if (fd_ < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
    temporary_ = temporary_name(path_);
    fd_ = ::open(temporary_.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);
  }
  if (fd_ < 0) {
    const int error = errno;
    temporary_.clear();
    fail_errno("cannot write '" + path_.string() + "'", error);
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::reserve(std::uint64_t n_bytes) {
  if (n_bytes == 0) return;
  if (fallocate(fd_, 0, 0, static_cast<off_t>(n_bytes)) == 0) return;
  if (errno != EOPNOTSUPP && errno != ENOSYS) {
    const int error = errno;
    fail_errno("cannot reserve " + format_bytes(n_bytes) + " for '" + path_.string() + "'", error);
  }
  if (ftruncate(fd_, static_cast<off_t>(n_bytes)) != 0) fail_errno("cannot size '" + path_.string() + "'", errno);
}

void AtomicFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      fail_errno("cannot write '" + path_.string() + "' at offset " + std::to_string(offset), errno);
    }
    offset += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void AtomicFile::flush_range(std::uint64_t offset, std::uint64_t n_bytes) {
  sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(n_bytes), SYNC_FILE_RANGE_WRITE);
}

void AtomicFile::commit() {
  const std::string where = "cannot finish '" + path_.string() + "'";
  if (fsync(fd_) != 0) fail_errno(where, errno);
  if (temporary_.empty()) {
    // linkat() cannot replace: name it beside the target, then rename over.
    const std::string name = temporary_name(path_);
    const std::string self = "/proc/self/fd/" + std::to_string(fd_);
    unlink(name.c_str());
    if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0) fail_errno(where, errno);
    temporary_ = name;
  }
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail_errno(where, errno);
  temporary_.clear();
  const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    fsync(folder);
    close(folder);
  }
  close(fd_);
  fd_ = -1;
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  if (is_device(path)) return write_to_device(path, content);
  AtomicFile file(path);
  file.write_at(0, std::as_bytes(std::span(content)));
  file.commit();
}

std::string read_file(const std::filesystem::path& path, std::uint64_t limit_bytes) {
  const auto file = MappedFile::open(path);
  if (file->size() > limit_bytes) {
    fail(ErrorCode::kFormat, "'{}' has {}, more than the {} allowed here", path.string(), format_bytes(file->size()),
         format_bytes(limit_bytes));
  }
  return std::string(reinterpret_cast<const char*>(file->bytes().data()), file->size());
}

}  // namespace nibble
