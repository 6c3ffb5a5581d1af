// Shell commands run for what they print.
#pragma once

#include <string>

namespace nibble {

// Standard output of `command`; its errors go where ours go, and Ctrl-C reaches it too. Throws Error{kIo} when it
// cannot be started or does not end with status 0.
std::string shell_output(const std::string& command);

}  // namespace nibble
