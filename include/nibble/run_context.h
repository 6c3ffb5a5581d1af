// What every long call takes besides its request: how many threads, how it tells how far it is, how it is stopped.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

namespace nibble {

class CancelToken {
 public:
  void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }  // safe in a signal handler
  bool cancelled() const noexcept { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
};

// All calls come from the thread that does the long work, never from its helpers.
class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  // A task of `total` units ("tokens", "bytes", "tensors") begins; tasks do not nest.
  virtual void begin(std::string_view task, std::uint64_t total, std::string_view unit) = 0;
  virtual void update(std::uint64_t done) = 0;
  virtual void end() = 0;
  // One line worth keeping: a fallback, a warning.
  virtual void note(std::string_view line) = 0;
};

struct RunContext {
  int threads = 0;                      // 0: all processors
  const CancelToken* cancel = nullptr;  // null: cannot be stopped; a stopped call throws Error{kCancelled}
  ProgressSink* progress = nullptr;     // null: silent
};

}  // namespace nibble
