// Arguments of a call put to the parameters of what is called.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "jinja/runtime.h"

namespace nibble::jinja {

class CallArguments {
 public:
  // Throws when there are more arguments than parameters, or named ones that are no parameter.
  CallArguments(std::string_view function, const Arguments& arguments,
                std::initializer_list<std::string_view> parameters);

  // Null where it was not given.
  const Value* find(std::size_t parameter) const { return given_[parameter]; }
  // Throws where it was not given.
  const Value& required(std::size_t parameter) const;
  bool flag(std::size_t parameter, bool fallback) const;
  std::int64_t integer(std::size_t parameter, std::int64_t fallback) const;
  // Null where not given or none; throws where it is something else than a text.
  const std::string* text(std::size_t parameter) const;
  const std::string& required_text(std::size_t parameter) const;

 private:
  [[noreturn]] void fail_kind(std::size_t parameter, std::string_view wanted) const;
  std::string_view function_;
  std::vector<std::string_view> parameters_;
  std::vector<const Value*> given_;
};

}  // namespace nibble::jinja
