// Bytes as a tokenizer file (a .model, or a tokenizer.json where they begin with a brace), then text through the
// tokenizer.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "token/spm_model.h"
#include "token/tokenizer.h"
#include "token/tokenizer_json.h"
#include "token/utf8.h"

namespace {

using namespace nibble;

constexpr std::string_view kText =
    "Hello  world 123\n\xE2\x96\x81it's <s></s> \xF0\x9F\x98\x80 e\xCC\x81 \xFF\xC3( \t\x00 end"
    " a b c aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

void check(bool good) {
  if (!good) std::abort();
}

void use(const token::Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text);
  for (token::TokenId id : ids) check(id >= 0 && id < tokenizer.size());
  check(token::is_valid_utf8(tokenizer.decode(ids)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const bool described = bytes.starts_with('{');
    const auto tokenizer =
        token::make_tokenizer(described ? token::parse_tokenizer_json(bytes) : token::parse_spm_model(bytes));
    use(*tokenizer, kText);
    use(*tokenizer, bytes.substr(bytes.size() - bytes.size() / 8));
  } catch (const Error& error) {
    check(error.code() != ErrorCode::kInternal);
  }
  return 0;
}
