// The one exception type of Nibble: what went wrong, of which kind, and where (file, tensor, offset).
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace nibble {

enum class ErrorCode {
  kInvalidArgument,  // the caller asked for something that does not exist or does not fit
  kNotFound,         // a file or tensor is missing
  kIo,               // the operating system refused: permission, full disk, short read
  kFormat,           // a file's bytes contradict its format
  kUnsupported,      // valid, but Nibble does not do it
  kCancelled,        // the user asked to stop
  kInternal,         // a defect in Nibble
};

std::string_view error_code_name(ErrorCode code);

// Thrown for bad input and I/O; caught at the command line, the request handler and the C API. Kernels never throw.
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)), what_(message_) {}

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const char* what() const noexcept override { return what_.c_str(); }

  // Puts "where: " in front, innermost first: `tensor 'x' at offset 96: ...`, then `file 'm.gguf': tensor 'x' ...`.
  Error& add_context(std::string_view where) {
    what_ = std::string(where) + ": " + what_;
    return *this;
  }

 private:
  ErrorCode code_;
  std::string message_;
  std::string what_;
};

}  // namespace nibble
