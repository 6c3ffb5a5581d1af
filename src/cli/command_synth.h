// nibble synth: a model of a known shape with random weights.
#pragma once

#include "cli/command.h"

namespace nibble::cli {

Command synth_command();

}  // namespace nibble::cli
