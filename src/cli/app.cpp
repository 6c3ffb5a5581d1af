#include "cli/app.h"

#include <CLI/Error.hpp>
#include <CLI/Validators.hpp>
#include <csignal>
#include <memory>
#include <new>

#include "base/atomic_file.h"
#include "base/terminal.h"
#include "cli/command.h"
#include "cli/progress_bar.h"
#include "nibble/error.h"
#include "nibble/version.h"

namespace nibble::cli {

namespace {

CancelToken g_cancel;  // a signal handler can reach nothing else

// The first signal asks the work to stop and clean up; a second one ends the process at once.
extern "C" void on_signal(int number) {
  g_cancel.cancel();
  std::signal(number, SIG_DFL);
}

int report_error(std::string_view message, int code) {
  write_stderr(format_text("nibble: error: {}\n", message));
  return code;
}

int exit_code(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
      return kExitUsage;
    case ErrorCode::kCancelled:
      return kExitCancelled;
    default:
      return kExitError;
  }
}

struct Options {
  Invocation invocation;
  bool quiet = false;
};

void add_command(CLI::App& app, const Command& command, Options& options, RunCommand& chosen) {
  CLI::App* sub = app.add_subcommand(std::string(command.name), std::string(command.summary));
  RunCommand work = command.setup(*sub);
  sub->add_option("--threads", options.invocation.run.threads, "threads to use; 0: all processors")
      ->check(CLI::Range(0, 4096));
  sub->add_option("--json", options.invocation.json_path,
                  "write the report as JSON to this file ('-': standard output)")
      ->type_name("FILE");
  if (command.writes) sub->add_flag("--dry-run", options.invocation.dry_run, "show what would be written, and stop");
  sub->add_flag("-q,--quiet", options.quiet, "no progress on standard error");
  sub->callback([&chosen, work = std::move(work)] { chosen = work; });
}

int run_guarded(const RunCommand& work, Options& options) {
  ProgressBar progress;
  if (!options.quiet) options.invocation.run.progress = &progress;
  options.invocation.run.cancel = &g_cancel;
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write, not the end of the process
  try {
    work(options.invocation);
    return kExitOk;
  } catch (const Error& error) {
    progress.clear();
    return report_error(error.what(), exit_code(error));
  } catch (const std::bad_alloc&) {
    progress.clear();
    return report_error("out of memory", kExitError);
  } catch (const std::exception& error) {
    progress.clear();
    return report_error(format_text("unexpected: {}", error.what()), kExitError);
  }
}

}  // namespace

void Invocation::write_json(std::string_view json) const {
  if (json_path.empty()) return;
  const std::string text = std::string(json) + "\n";
  if (json_path == "-") {
    print(text);
  } else {
    write_file_atomically(json_path, text);
  }
}

void print(std::string_view text) { write_stdout(text); }

int run(int argc, char** argv) {
  CLI::App app("Nibble quantizes large language models, measures what that cost, and runs the result.", "nibble");
  app.set_version_flag("--version", std::string(kVersion));
  app.require_subcommand(1);
  app.get_formatter()->column_width(36);
  Options options;
  RunCommand chosen;
  for (const Command& command : all_commands()) add_command(app, command, options, chosen);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& info) {  // --help, --version
    app.exit(info);
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    report_error(error.what(), kExitUsage);
    write_stderr("Run with --help for more information.\n");
    return kExitUsage;
  }
  return run_guarded(chosen, options);
}

}  // namespace nibble::cli
