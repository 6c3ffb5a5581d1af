#include "jinja/template.h"

#include "jinja/interpreter.h"
#include "jinja/parser.h"

namespace nibble::jinja {

Template::Template(std::string_view source, const Limits& limits)
    : ast_(std::make_unique<const Ast>(parse(source, limits))), limits_(limits) {}
Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

std::string Template::render(const json::Value& variables, const std::tm& now) const {
  Runtime runtime(limits_, now);
  Interpreter interpreter(*ast_, runtime);
  try {
    return interpreter.run(variables);
  } catch (Error& error) {
    error.add_context(format_text("line {}", interpreter.line()));
    throw;
  }
}

}  // namespace nibble::jinja
