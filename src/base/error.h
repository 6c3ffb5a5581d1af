// How errors are thrown: fail() with a formatted message, with_context() to say where.
#pragma once

#include <string_view>
#include <utility>

#include "base/format.h"
#include "nibble/error.h"

namespace nibble {

template <typename... Args>
[[noreturn]] void fail(ErrorCode code, FormatString<Args...> text, Args&&... args) {
  throw Error(code, format_text(text, std::forward<Args>(args)...));
}

// fail() with the meaning of the current `errno` behind the text.
[[noreturn]] void fail_errno(std::string_view what, int error_number);

// Runs `body`; an Error that leaves it gets `where` in front.
template <typename Body>
decltype(auto) with_context(std::string_view where, Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (Error& error) {
    error.add_context(where);
    throw;
  }
}

}  // namespace nibble
