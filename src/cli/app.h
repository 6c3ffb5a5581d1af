// The program: arguments in, exit code out.
#pragma once

namespace nibble::cli {

constexpr int kExitOk = 0;
constexpr int kExitError = 1;        // the work failed
constexpr int kExitUsage = 2;        // the call was wrong: unknown option, unknown type
constexpr int kExitCancelled = 130;  // Ctrl-C

int run(int argc, char** argv);

}  // namespace nibble::cli
