// What long work runs with: threads, a way to stop it, a place to tell how far it is. Passed explicitly; there are no
// globals.
#pragma once

#include "base/error.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "nibble/run_context.h"

namespace nibble {

struct ExecContext {
  ThreadPool& pool;
  const CancelToken& cancel;
  ProgressSink& progress;

  // Called between steps of long work; throws Error{kCancelled}.
  void check_cancelled() const {
    if (cancel.cancelled()) fail(ErrorCode::kCancelled, "stopped on request");
  }
};

// An ExecContext made from what a caller of the public API brings; what he leaves out is filled in.
class OwnedExecContext {
 public:
  explicit OwnedExecContext(const RunContext& run)
      : pool_(run.threads),
        context_{pool_, run.cancel != nullptr ? *run.cancel : never_,
                 run.progress != nullptr ? *run.progress : silent_} {}
  OwnedExecContext(const OwnedExecContext&) = delete;
  OwnedExecContext& operator=(const OwnedExecContext&) = delete;
  ExecContext& operator*() { return context_; }
  ExecContext* operator->() { return &context_; }

 private:
  CancelToken never_;
  NullProgress silent_;
  ThreadPool pool_;
  ExecContext context_;
};

}  // namespace nibble
