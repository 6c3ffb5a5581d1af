// One command of the program as a plug-in: its name, its options, what it does.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/format.h"
#include "nibble/run_context.h"

namespace nibble::cli {

// What every command is run with. `run` holds --threads, the progress display and the Ctrl-C token.
struct Invocation {
  RunContext run;
  std::string json_path;  // --json FILE; empty: not asked for, "-": standard output
  bool dry_run = false;   // --dry-run; only of commands that write

  // True when the human-readable report belongs on standard output (it is not taken by --json -).
  bool wants_text() const { return json_path != "-"; }
  // Writes the report where --json asks for it, if it does.
  void write_json(std::string_view json) const;
};

// Prints to standard output.
void print(std::string_view text);
template <typename... Args>
void print_text(FormatString<Args...> text, Args&&... args) {
  print(format_text(text, std::forward<Args>(args)...));
}

using RunCommand = std::function<void(const Invocation&)>;

struct Command {
  std::string_view name;
  std::string_view summary;
  bool writes = false;  // has --dry-run
  // Adds the command's own options to `app` (kept alive by the returned function, which does the work and throws
  // Error).
  // --json, --threads and, where it writes, --dry-run are added for it.
  RunCommand (*setup)(CLI::App& app);
};

// Every command, in the order help shows them (commands.cpp: one line each).
std::span<const Command> all_commands();

}  // namespace nibble::cli
