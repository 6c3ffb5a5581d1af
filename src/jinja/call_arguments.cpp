#include "jinja/call_arguments.h"

#include <algorithm>

namespace nibble::jinja {

CallArguments::CallArguments(std::string_view function, const Arguments& arguments,
                             std::initializer_list<std::string_view> parameters)
    : function_(function), parameters_(parameters), given_(parameters.size(), nullptr) {
  if (arguments.positional.size() > parameters_.size()) {
    fail_template("{}() takes at most {} argument(s), {} given", function, parameters_.size(),
                  arguments.positional.size());
  }
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) given_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::ranges::find(parameters_, name);
    if (found == parameters_.end()) fail_template("{}() got an unexpected keyword argument '{}'", function, name);
    given_[static_cast<std::size_t>(found - parameters_.begin())] = &value;
  }
}

const Value& CallArguments::required(std::size_t parameter) const {
  if (given_[parameter] == nullptr) {
    fail_template("{}() missing required argument: '{}'", function_, parameters_[parameter]);
  }
  return *given_[parameter];
}

bool CallArguments::flag(std::size_t parameter, bool fallback) const {
  return given_[parameter] != nullptr ? given_[parameter]->truthy() : fallback;
}

void CallArguments::fail_kind(std::size_t parameter, std::string_view wanted) const {
  require_defined(*given_[parameter]);
  fail_template("{}(): argument '{}' must be {}, not {}", function_, parameters_[parameter], wanted,
                given_[parameter]->type_name());
}

std::int64_t CallArguments::integer(std::size_t parameter, std::int64_t fallback) const {
  const Value* value = given_[parameter];
  if (value == nullptr) return fallback;
  if (!value->is_integral()) fail_kind(parameter, "int");
  return value->as_int();
}

const std::string* CallArguments::text(std::size_t parameter) const {
  const Value* value = given_[parameter];
  if (value == nullptr || value->is_none()) return nullptr;
  if (!value->is_text()) {
    require_defined(*value);
    fail_template("must be str or None, not {}", value->type_name());
  }
  return &value->text();
}

const std::string& CallArguments::required_text(std::size_t parameter) const {
  if (!required(parameter).is_text()) fail_kind(parameter, "str");
  return given_[parameter]->text();
}

}  // namespace nibble::jinja
