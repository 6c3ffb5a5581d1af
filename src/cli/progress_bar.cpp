#include "cli/progress_bar.h"

#include <algorithm>

#include "base/format.h"
#include "base/terminal.h"

namespace nibble::cli {

namespace {

constexpr std::chrono::milliseconds kRedraw{100};  // on a terminal
constexpr std::chrono::seconds kLine{5};           // elsewhere: a line this often, for logs

std::string amount(std::uint64_t n, std::string_view unit) {
  if (unit == "bytes") return format_bytes(n);
  return n < 100000 ? format_text("{} {}", n, unit) : format_text("{} {}", format_count(n), unit);
}

std::string speed(double per_second, std::string_view unit) {
  if (unit == "bytes") return format_bytes(static_cast<std::uint64_t>(per_second)) + "/s";
  if (per_second >= 100000)
    return format_count(static_cast<std::uint64_t>(per_second)) + " " + std::string(unit) + "/s";
  return per_second >= 10 ? format_text("{:.0f} {}/s", per_second, unit) : format_text("{:.2f} {}/s", per_second, unit);
}

}  // namespace

std::string progress_line(std::string_view task, std::uint64_t done, std::uint64_t total, std::string_view unit,
                          double seconds, int bar_columns) {
  const double fraction = total == 0 ? 0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  std::string bar;
  if (bar_columns > 0) {
    const auto filled = static_cast<std::size_t>(fraction * bar_columns);
    bar = " [" + std::string(filled, '#') + std::string(static_cast<std::size_t>(bar_columns) - filled, '.') + "]";
  }
  std::string text =
      format_text("{}{} {:3.0f}%  {} of {}", task, bar, fraction * 100, amount(done, unit), amount(total, unit));
  if (seconds > 0.2 && done > 0) {
    text += "  " + speed(static_cast<double>(done) / seconds, unit);
    if (done < total) {
      const double left = seconds * static_cast<double>(total - done) / static_cast<double>(done);
      text += "  left " + format_duration(left);
    } else {
      text += "  took " + format_duration(seconds);
    }
  }
  return text;
}

ProgressBar::ProgressBar() : terminal_(stderr_is_terminal()) {}

std::string ProgressBar::line(double seconds) const {
  return progress_line(task_, done_, total_, unit_, seconds, terminal_ && terminal_columns() >= 100 ? 24 : 0);
}

void ProgressBar::draw() {
  std::string text = line(elapsed_s());
  if (terminal_) {
    const auto columns = static_cast<std::size_t>(terminal_columns());
    if (text.size() >= columns) text.resize(columns - 1);
    write_stderr("\r" + text + "\x1b[K");
    drawn_ = true;
  } else {
    write_stderr(text + "\n");
  }
  last_ = Clock::now();
}

void ProgressBar::begin(std::string_view task, std::uint64_t total, std::string_view unit) {
  task_ = task;
  unit_ = unit;
  total_ = total;
  done_ = 0;
  active_ = true;
  start_ = last_ = Clock::now();
}

void ProgressBar::update(std::uint64_t done) {
  done_ = done;
  const auto pause = Clock::now() - last_;
  if (terminal_ ? pause >= kRedraw : pause >= kLine) draw();
}

void ProgressBar::end() {
  if (!active_) return;
  active_ = false;
  if (done_ < total_) {  // left by an error: the last state is no news
    clear();
    return;
  }
  clear();
  write_stderr(line(elapsed_s()) + "\n");
}

void ProgressBar::note(std::string_view text) {
  clear();
  write_stderr(std::string(text) + "\n");
}

void ProgressBar::clear() {
  if (drawn_) write_stderr("\r\x1b[K");
  drawn_ = false;
}

}  // namespace nibble::cli
