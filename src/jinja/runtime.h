// What every operation on values has at hand: the limits, the making of values, the clock.
#pragma once

#include <ctime>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "jinja/limits.h"
#include "jinja/value.h"

namespace nibble::jinja {

class Runtime {
 public:
  Runtime(const Limits& limits, const std::tm& now) : limits_(limits), now_(now) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  ~Runtime();

  const Limits& limits() const { return limits_; }
  const std::tm& now() const { return now_; }

  // Counts work; throws when there was too much of it.
  void spend(std::uint64_t work = 1) {
    work_ += work;
    if (work_ > limits_.work) fail_work();
  }
  void spend_copy(std::size_t bytes) { spend(1 + bytes / 256); }
  void spend_walk(std::size_t bytes) { spend(1 + bytes / 16); }  // character by character
  // Throws before so much memory is taken.
  void check_room(std::uint64_t bytes) const;
  void hold(std::uint64_t bytes);
  void release(std::uint64_t bytes) noexcept { held_ -= bytes; }

  Value text(std::string text, bool markup = false);
  Value list(Values items, Sequence::Kind kind = Sequence::Kind::kList);
  // Elements made when they are first asked for; `from` is what they are made of.
  Value generator(std::initializer_list<const Value*> from, std::function<Values(Runtime&)> generate);
  Value tuple(Values items) { return list(std::move(items), Sequence::Kind::kTuple); }
  // Later values of a key replace earlier ones. Throws for a key that is a list or an object.
  Value dict(std::vector<std::pair<Value, Value>> items);
  Value name_space(std::vector<std::pair<std::string, Value>> attributes);
  Value function(std::string name, std::function<Value(Runtime&, const Arguments&)> call,
                 std::string_view type = "builtin_function_or_method");

 private:
  [[noreturn]] void fail_work() const;
  int checked_depth(int depth) const;

  Limits limits_;
  std::tm now_;
  std::uint64_t work_ = 0;
  std::uint64_t held_ = 0;
  // Namespaces can hold themselves: they are emptied when rendering ends.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

template <typename... Args>
[[noreturn]] void fail_template(FormatString<Args...> text, Args&&... args) {
  fail(ErrorCode::kFormat, text, std::forward<Args>(args)...);
}

// Throws what using an undefined value says.
void require_defined(const Value& value);

}  // namespace nibble::jinja
