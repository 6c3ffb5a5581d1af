#include "cli/outlier_options.h"

namespace nibble::cli {

CLI::Option* add_outlier_options(CLI::App& app, OutlierRequest& request) {
  const std::string summary = "what flows into each linear: ranges, kurtosis, channels that stand out";
  CLI::Option* outliers = app.add_flag("--outliers", summary);
  app.add_option("--threshold", request.threshold, "of outliers: the magnitude from which an input is one")
      ->type_name("X")
      ->capture_default_str()
      ->needs(outliers);
  app.add_option("--transform", request.transforms,
                 "of outliers: also behind this rewrite (repeatable), as of quantize")
      ->type_name("NAME")
      ->allow_extra_args(false)
      ->needs(outliers);
  app.add_option("--transform-type", request.transform_type, "the type it is made for, where it looks at one")
      ->type_name("TYPE")
      ->capture_default_str()
      ->needs(outliers);
  app.add_option("--calib", request.calib, "text that transforms learn from")->type_name("FILE")->needs(outliers);
  app.add_option("--calib-tokens", request.calib_tokens, "tokens of it, at most")
      ->type_name("N")
      ->capture_default_str()
      ->needs(outliers);
  app.add_option("--calib-ctx", request.calib_context, "tokens of a sequence of it (as --ctx)")
      ->type_name("N")
      ->needs(outliers);
  app.add_option("--plot", request.plot, "of outliers: write max |x| and kurtosis over depth as SVG")
      ->type_name("FILE")
      ->needs(outliers);
  return outliers;
}

}  // namespace nibble::cli
