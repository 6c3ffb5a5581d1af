// How long work tells how far it is. The library knows only this interface; the command line brings a skin.
#pragma once

#include <cstdint>
#include <string_view>

namespace nibble {

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
