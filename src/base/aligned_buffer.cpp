#include "base/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdlib>

#include "base/error.h"

namespace nibble {

namespace {
constexpr std::size_t kHugePage = std::size_t{2} << 20;
}

AlignedBuffer::AlignedBuffer(std::size_t n_bytes) : size_(n_bytes) {
  if (n_bytes == 0) return;
  const bool huge = n_bytes >= kHugePage / 2;
  const std::size_t alignment = huge ? kHugePage : kAlignment;
  if (n_bytes > SIZE_MAX - alignment) fail(ErrorCode::kInternal, "out of memory: {} bytes asked for", n_bytes);
  const std::size_t rounded = (n_bytes + alignment - 1) / alignment * alignment;
  data_ = static_cast<std::byte*>(std::aligned_alloc(alignment, rounded));
  if (data_ == nullptr) fail(ErrorCode::kInternal, "out of memory: {} asked for", format_bytes(n_bytes));
  if (huge) madvise(data_, rounded, MADV_HUGEPAGE);
}

AlignedBuffer::~AlignedBuffer() { std::free(data_); }

}  // namespace nibble
