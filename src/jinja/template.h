// Chat templates: the part of Jinja that models' own templates use, with the results that the transformers library
// gives, bounded in time and memory. What is not there: inheritance, includes, recursive loops, a few filters for web
// pages.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>

#include "jinja/limits.h"
#include "json/json.h"

namespace nibble::jinja {

struct Ast;

// Parsed once, rendered any number of times, from any thread.
class Template {
 public:
  // Throws Error{kFormat} that names the line.
  explicit Template(std::string_view source, const Limits& limits = {});
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  // `variables` is an object: messages, tools, add_generation_prompt, bos_token ...; `now` is what strftime_now()
  // tells. Throws Error{kInvalidArgument} with the template's own words where it calls raise_exception(),
  // Error{kFormat} for mistakes in it, Error{kUnsupported} beyond the limits; what() names the line, message() does
  // not.
  std::string render(const json::Value& variables, const std::tm& now) const;

 private:
  std::unique_ptr<const Ast> ast_;
  Limits limits_;
};

}  // namespace nibble::jinja
