// The options of `eval --outliers`.
#pragma once

#include "cli/command.h"
#include "nibble/outliers.h"

namespace nibble::cli {

// Adds them to `app`; `request` must live until the command line is parsed. Returns --outliers, without which the
// others are refused.
CLI::Option* add_outlier_options(CLI::App& app, OutlierRequest& request);

}  // namespace nibble::cli
