// What long work runs with: threads, a way to stop it, a place to tell how far it is. Passed explicitly; there are no globals.
#pragma once

#include <atomic>

#include "base/error.h"
#include "base/progress.h"
#include "base/thread_pool.h"

namespace nibble {

class CancelToken {
 public:
  void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }  // safe in a signal handler
  bool cancelled() const noexcept { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
};

struct ExecContext {
  ThreadPool& pool;
  const CancelToken& cancel;
  ProgressSink& progress;

  // Called between steps of long work; throws Error{kCancelled}.
  void check_cancelled() const {
    if (cancel.cancelled()) fail(ErrorCode::kCancelled, "stopped on request");
  }
};

}  // namespace nibble
