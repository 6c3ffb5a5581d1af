// Tokens of a template to its tree.
#pragma once

#include <string_view>

#include "jinja/ast.h"
#include "jinja/limits.h"

namespace nibble::jinja {

// Throws Error{kFormat} that names the line.
Ast parse(std::string_view source, const Limits& limits);

}  // namespace nibble::jinja
