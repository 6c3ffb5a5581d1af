// How long work tells how far it is: a task as a scope, and the sink that swallows everything.
#pragma once

#include <cstdint>
#include <string_view>

#include "nibble/run_context.h"

namespace nibble {

// Swallows everything.
class NullProgress final : public ProgressSink {
 public:
  void begin(std::string_view, std::uint64_t, std::string_view) override {}
  void update(std::uint64_t) override {}
  void end() override {}
  void note(std::string_view) override {}
};

// begin() at construction, end() at destruction.
class ProgressTask {
 public:
  ProgressTask(ProgressSink& sink, std::string_view task, std::uint64_t total, std::string_view unit) : sink_(sink) {
    sink_.begin(task, total, unit);
  }
  ~ProgressTask() { sink_.end(); }
  ProgressTask(const ProgressTask&) = delete;
  ProgressTask& operator=(const ProgressTask&) = delete;
  void add(std::uint64_t n) { sink_.update(done_ += n); }

 private:
  ProgressSink& sink_;
  std::uint64_t done_ = 0;
};

}  // namespace nibble
