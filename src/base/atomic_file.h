// A file that appears whole under its name, or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace nibble {

// Writes go to an unnamed file in the target's folder (O_TMPFILE; a hidden temporary name where the file system has
// none), so that even a killed process leaves nothing behind. commit() makes it durable and gives it its name,
// replacing what was there. write_at() may be called from several threads at once; the rest from one.
class AtomicFile {
 public:
  // Throws Error{kIo} when the folder cannot be written, Error{kInvalidArgument} for a folder, a device or a pipe.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();  // without commit(): the written bytes vanish, the old file under the name stays
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Takes `n_bytes` of disk now, so that a full disk shows before the work and not after it.
  void reserve(std::uint64_t n_bytes);
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  // Asks the kernel to start writing back what lies in the range; a hint.
  void flush_range(std::uint64_t offset, std::uint64_t n_bytes);
  void commit();

 private:
  std::filesystem::path path_;
  std::string temporary_;  // empty while the file has no name
  int fd_ = -1;
};

// Writes a small file whole; to a device or a pipe (/dev/stdout, /dev/null) it writes as it is.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);
// Reads a small file whole; throws beyond `limit_bytes`.
std::string read_file(const std::filesystem::path& path, std::uint64_t limit_bytes = std::uint64_t{1} << 32);

}  // namespace nibble
