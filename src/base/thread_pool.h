// A fixed set of threads that run one job together; work is split statically, so results never depend on timing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>

namespace nibble {

class ThreadPool {
 public:
  // `n_threads` counts the calling thread; 0 takes all processors. Workers spin briefly between jobs, then park.
  explicit ThreadPool(int n_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return n_threads_; }

  // Runs job(thread_index) once on every thread and waits for all. The first exception thrown by any is rethrown here.
  // Not reentrant: a job must not call run().
  template <typename Job>
  void run(Job&& job) {
    using Plain = std::remove_reference_t<Job>;
    run_raw([](void* context, int thread) { (*static_cast<Plain*>(context))(thread); },
            const_cast<void*>(static_cast<const void*>(&job)));
  }

  // body(begin, end) over contiguous shares of [0, n), each share but the last a multiple of `grain`; share i goes to
  // thread i.
  template <typename Body>
  void parallel_for(std::int64_t n, std::int64_t grain, Body&& body) {
    const std::int64_t chunks = (n + grain - 1) / grain;
    if (chunks <= 1 || n_threads_ == 1) {
      if (n > 0) body(std::int64_t{0}, n);
      return;
    }
    run([&](int thread) {
      const std::int64_t begin = chunks * thread / n_threads_ * grain;
      const std::int64_t end = std::min(n, chunks * (thread + 1) / n_threads_ * grain);
      if (begin < end) body(begin, end);
    });
  }

  // body(index) for every index of [0, n), handed out one by one as threads become free. For work whose result does not
  // depend on who does it: each index writes only its own output.
  template <typename Body>
  void parallel_dynamic(std::int64_t n, Body&& body) {
    std::int64_t next = 0;
    run([&](int) {
      for (;;) {
        const std::int64_t index = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
        if (index >= n) return;
        body(index);
      }
    });
  }

 private:
  struct State;
  void run_raw(void (*call)(void*, int), void* context);
  int n_threads_;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
