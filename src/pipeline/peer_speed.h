// Other programs' speed, measured by their own commands.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace nibble::pipeline {

struct PeerSpeed {
  std::optional<double> prefill_tok_s, decode_tok_s;
};

// Reads the output of a bench: JSON or the table of llama-bench, or the JSON of `nibble bench`. Throws Error{kFormat}
// when it holds no speed.
PeerSpeed parse_peer_speed(std::string_view output);

// Runs `command` by the shell and reads what it prints. Throws Error{kIo} when it fails, Error{kFormat} as above; both
// name the command.
PeerSpeed run_peer(const std::string& command);

}  // namespace nibble::pipeline
