#include "base/restart.h"

#include <unistd.h>

#include <cstdlib>

namespace nibble {

void restart_with(const char* variable, const char* value, char** argv) {
  setenv(variable, value, 1);
  execv("/proc/self/exe", argv);
}

}  // namespace nibble
