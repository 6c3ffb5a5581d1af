// This program, once more, with another environment: for libraries that read theirs before main().
#pragma once

namespace nibble {

// Does not return where it succeeds. `argv` as main() has it.
void restart_with(const char* variable, const char* value, char** argv);

}  // namespace nibble
