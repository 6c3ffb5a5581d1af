// Many small pieces of work on all threads, some at a time, so that progress shows and a stop is noticed.
#pragma once

#include <algorithm>
#include <exception>
#include <vector>

#include "base/exec_context.h"

namespace nibble::train {

// work(index) for every index below `n`, in rounds of `each` per thread; after a round done(first, count) on this
// thread. Of errors that leave work() the one of the least index is thrown, whatever thread was first.
template <typename Work, typename Done>
void in_rounds(ExecContext& context, std::size_t n, std::size_t each, Work&& work, Done&& done) {
  const std::size_t round = each * static_cast<std::size_t>(context.pool.size());
  for (std::size_t first = 0; first < n; first += round) {
    context.check_cancelled();
    const std::size_t count = std::min(round, n - first);
    std::vector<std::exception_ptr> errors(count);
    context.pool.parallel_dynamic(static_cast<std::int64_t>(count), [&](std::int64_t i) {
      const auto at = static_cast<std::size_t>(i);
      try {
        work(first + at);
      } catch (...) {
        errors[at] = std::current_exception();
      }
    });
    for (const std::exception_ptr& error : errors) {
      if (error) std::rethrow_exception(error);
    }
    done(first, count);
  }
}

}  // namespace nibble::train
