#include "base/restart.h"
#include "cli/app.h"
#include "linalg/core.h"

int main(int argc, char** argv) {
  const char* core = nibble::linalg::better_core();
  if (core != nullptr) nibble::restart_with("OPENBLAS_CORETYPE", core, argv);  // where that fails, it goes on slowly
  return nibble::cli::run(argc, argv);
}
