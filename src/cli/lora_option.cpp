#include "cli/lora_option.h"

namespace nibble::cli {

CLI::Option* add_lora_option(CLI::App& app, std::vector<std::string>& adapters, const std::string& what) {
  return app.add_option("--lora", adapters, what + ": a PEFT folder or a .gguf file, times SCALE (repeatable)")
      ->type_name("ADAPTER[:SCALE]")
      ->allow_extra_args(false);
}

}  // namespace nibble::cli
