#include "base/error.h"

#include <cmath>
#include <cstring>

namespace nibble {

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid argument";
    case ErrorCode::kNotFound:
      return "not found";
    case ErrorCode::kIo:
      return "input/output";
    case ErrorCode::kFormat:
      return "bad format";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "unknown";
}

void fail_errno(std::string_view what, int error_number) {
  const ErrorCode code = error_number == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo;
  throw Error(code, format_text("{}: {}", what, std::strerror(error_number)));
}

std::string format_bytes(std::uint64_t n_bytes) {
  static const char* const units[] = {"B", "KB", "MB", "GB", "TB", "PB"};
  double value = static_cast<double>(n_bytes);
  int unit = 0;
  while (value >= 999.95 && unit < 5) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? format_text("{} B", n_bytes) : format_text("{:.{}f} {}", value, value < 100 ? 2 : 0, units[unit]);
}

std::string format_count(std::uint64_t count) {
  static const char* const units[] = {"", "K", "M", "B", "T"};
  double value = static_cast<double>(count);
  int unit = 0;
  while (value >= 999.5 && unit < 4) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? format_text("{}", count)
                   : format_text("{:.{}f}{}", value,
                                 value < 10    ? 2
                                 : value < 100 ? 1
                                               : 0,
                                 units[unit]);
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  if (seconds < 60) return format_text("{:.1f}s", seconds);
  const auto total = static_cast<std::uint64_t>(std::llround(seconds));
  if (total < 3600) return format_text("{}m{:02}s", total / 60, total % 60);
  return format_text("{}h{:02}m", total / 3600, total % 3600 / 60);
}

}  // namespace nibble
