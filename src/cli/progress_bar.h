// Progress on standard error: one redrawn line with a bar and the time left on a terminal, plain lines otherwise.
#pragma once

#include <chrono>
#include <string>

#include "nibble/run_context.h"

namespace nibble::cli {

class ProgressBar final : public ProgressSink {
 public:
  ProgressBar();
  ~ProgressBar() override { clear(); }
  void begin(std::string_view task, std::uint64_t total, std::string_view unit) override;
  void update(std::uint64_t done) override;
  void end() override;
  void note(std::string_view line) override;
  void clear();  // takes the redrawn line off the screen, before something else is printed

 private:
  using Clock = std::chrono::steady_clock;
  double elapsed_s() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  std::string line(double seconds) const;
  void draw();

  bool terminal_;
  bool drawn_ = false;
  bool active_ = false;
  std::string task_, unit_;
  std::uint64_t total_ = 0, done_ = 0;
  Clock::time_point start_, last_;
};

// "quantize   37%  1.20 GB of 3.24 GB  812 MB/s  left 2.4s", and with bar_columns > 0 a bar of that width in it.
std::string progress_line(std::string_view task, std::uint64_t done, std::uint64_t total, std::string_view unit,
                          double seconds, int bar_columns);

}  // namespace nibble::cli
