#include "pipeline/peer_speed.h"

#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "base/shell.h"
#include "json/json.h"

namespace nibble::pipeline {

namespace {

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

void take(PeerSpeed& speed, bool prefill, double tok_s) {
  (prefill ? speed.prefill_tok_s : speed.decode_tok_s) = tok_s;
}

PeerSpeed from_json(const json::Value& value) {
  PeerSpeed speed;
  if (value.is_array()) {  // llama-bench: a test with n_prompt or n_gen each
    for (const json::Value& test : value.as_array()) {
      const std::int64_t prompt = test.get("n_prompt", 0);
      const std::int64_t generated = test.get("n_gen", 0);
      if ((prompt > 0) != (generated > 0)) take(speed, prompt > 0, test.at("avg_ts").as_number());
    }
  } else {
    if (value.find("prefill_tok_s") != nullptr) take(speed, true, value.at("prefill_tok_s").as_number());
    if (value.find("decode_tok_s") != nullptr) take(speed, false, value.at("decode_tok_s").as_number());
  }
  return speed;
}

// llama-bench: "| model | ... | pp512 @ d0 | 105.31 ± 0.42 |".
PeerSpeed from_table(std::string_view text) {
  PeerSpeed speed;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == text.npos ? std::string_view{} : text.substr(end + 1);
    std::vector<std::string_view> cells;
    for (std::size_t at = line.find('|'); at != line.npos;) {
      const std::size_t next = line.find('|', at + 1);
      if (next == line.npos) break;
      cells.push_back(trimmed(line.substr(at + 1, next - at - 1)));
      at = next;
    }
    if (cells.size() < 2) continue;
    const std::string_view test = cells[cells.size() - 2];
    const bool prefill = test.starts_with("pp");
    if (!prefill && !test.starts_with("tg")) continue;
    const double tok_s = std::strtod(std::string(cells.back()).c_str(), nullptr);
    if (tok_s > 0) take(speed, prefill, tok_s);
  }
  return speed;
}

}  // namespace

PeerSpeed parse_peer_speed(std::string_view output) {
  const std::string_view text = trimmed(output);
  const bool is_json = text.starts_with('[') || text.starts_with('{');
  const PeerSpeed speed = is_json ? from_json(json::parse(text)) : from_table(text);
  if (!speed.prefill_tok_s && !speed.decode_tok_s) {
    fail(ErrorCode::kFormat, "no speed found in what it printed: neither a llama-bench table or JSON nor nibble's");
  }
  return speed;
}

PeerSpeed run_peer(const std::string& command) {
  return with_context("'" + command + "'", [&] { return parse_peer_speed(shell_output(command)); });
}

}  // namespace nibble::pipeline
