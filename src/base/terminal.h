// What the standard streams are connected to.
#pragma once

#include <string_view>

namespace nibble {

bool stdin_is_terminal();
bool stderr_is_terminal();
bool stdout_is_terminal();
int terminal_columns();  // of standard error; 80 when unknown

// Whole text to a standard stream, unbuffered by the library; errors are ignored (there is nowhere to tell them).
void write_stdout(std::string_view text);
void write_stderr(std::string_view text);

}  // namespace nibble
