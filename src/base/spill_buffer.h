// Memory for large intermediate data: in RAM up to a limit, beyond it in an unnamed file that the kernel pages in and
// out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned_buffer.h"

namespace nibble {

class SpillBuffer {
 public:
  SpillBuffer() = default;
  // Zeros. More than `limit` bytes go to a file in $TMPDIR (else /tmp) that vanishes with the buffer. Throws Error{kIo}
  // when there is no room for it.
  SpillBuffer(std::uint64_t n_bytes, std::uint64_t limit);
  SpillBuffer(SpillBuffer&& other) noexcept { *this = static_cast<SpillBuffer&&>(other); }
  SpillBuffer& operator=(SpillBuffer&& other) noexcept;
  ~SpillBuffer();

  float* floats() { return static_cast<float*>(data_); }
  const float* floats() const { return static_cast<const float*>(data_); }
  bool spilled() const { return mapped_ > 0; }

 private:
  void* data_ = nullptr;
  std::size_t mapped_ = 0;  // bytes of the file; 0: in `memory_`
  AlignedBuffer memory_;
};

}  // namespace nibble
