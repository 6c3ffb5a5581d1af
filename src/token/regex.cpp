#define PCRE2_CODE_UNIT_WIDTH 8
#include "token/regex.h"

#include <pcre2.h>

#include "base/error.h"
#include "token/utf8.h"

namespace nibble::token {

namespace {

constexpr std::uint32_t kMatchLimit = 10'000'000;
constexpr std::size_t kPatternLimit = 1 << 16;

std::string message_of(int error) {
  char buffer[256];
  const int length = pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(buffer), sizeof(buffer));
  return length < 0 ? "error " + std::to_string(error) : std::string(buffer);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

struct Regex::Scratch::State {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 4 << 20, nullptr);
  ~State() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

Regex::Scratch::Scratch() : state_(std::make_unique<State>()) {
  if (state_->data == nullptr || state_->context == nullptr) fail(ErrorCode::kInternal, "PCRE2: out of memory");
  pcre2_set_match_limit(state_->context, kMatchLimit);
  pcre2_set_heap_limit(state_->context, 64 << 10);  // KiB, without the JIT
  if (state_->stack != nullptr) pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
}

Regex::Scratch::~Scratch() = default;

Regex::Regex(std::string_view pattern) : code_(std::make_unique<Code>()), pattern_(pattern) {
  if (pattern.size() > kPatternLimit) fail(ErrorCode::kFormat, "a regular expression of {} bytes", pattern.size());
  const std::string translated = translate_oniguruma(pattern);
  int error = 0;
  PCRE2_SIZE at = 0;
  code_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr);
  if (code_->code == nullptr) {
    fail(ErrorCode::kFormat, "regular expression '{}' does not compile: {} at offset {} of '{}'", pattern,
         message_of(error), at, translated);
  }
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);  // without it pcre2_match() interprets
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::find_all(std::string_view text, Scratch& scratch, std::vector<Span>& matches) const {
  const Scratch::State& state = *scratch.state_;
  const PCRE2_SIZE* const bounds = pcre2_get_ovector_pointer(state.data);
  std::size_t at = 0;
  std::size_t done = 0;
  while (at <= text.size()) {
    const int found = pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                  PCRE2_NO_UTF_CHECK, state.data, state.context);
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0)
      fail(ErrorCode::kUnsupported, "regular expression '{}' on a text of {} bytes: {}", pattern_, text.size(),
           message_of(found));
    Span match{bounds[0], bounds[1]};
    // \K in a look-around can put the bounds anywhere.
    if (match.begin < done || match.end < match.begin) match = {at, at};
    matches.push_back(match);
    done = match.end;
    at = match.end;
    if (match.begin == match.end) at += at < text.size() ? announced_length(text.substr(at)) : 1;
  }
}

}  // namespace nibble::token
