// Bytes as a chat template, rendered with a short conversation.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "jinja/template.h"
#include "token/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace nibble;
  static const json::Value variables = json::parse(
      R"({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "H\u00e9llo <b>"},
          {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.5}}}]}],
          "tools": null, "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>"})");
  jinja::Limits limits;
  limits.work = 100'000;
  limits.memory_bytes = 16 << 20;
  try {
    const jinja::Template parsed(std::string_view(reinterpret_cast<const char*>(data), size), limits);
    if (!token::is_valid_utf8(parsed.render(variables, {}))) std::abort();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kInternal) std::abort();
  }
  return 0;
}
