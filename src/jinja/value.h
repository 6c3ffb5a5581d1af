// Values of a template as Python has them: immutable but for namespaces, whose texts count characters, not bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace nibble::jinja {

class Runtime;
class Value;
struct Text;
struct Sequence;
struct Dict;
struct Namespace;
struct Callable;
struct Loop;

// An undefined value: what using it says.
struct Missing {
  std::string message;
};

class Value {
 public:
  struct None {};
  using MissingPtr = std::shared_ptr<const Missing>;
  using TextPtr = std::shared_ptr<const Text>;
  using SequencePtr = std::shared_ptr<const Sequence>;
  using DictPtr = std::shared_ptr<const Dict>;
  using NamespacePtr = std::shared_ptr<Namespace>;
  using CallablePtr = std::shared_ptr<const Callable>;
  using LoopPtr = std::shared_ptr<Loop>;

  Value() : data_(MissingPtr{}) {}
  Value(None) : data_(None{}) {}
  Value(bool value) : data_(value) {}
  Value(std::int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  template <typename T>
  requires(std::is_same_v<T, MissingPtr> || std::is_same_v<T, TextPtr> || std::is_same_v<T, SequencePtr> ||
           std::is_same_v<T, DictPtr> || std::is_same_v<T, NamespacePtr> || std::is_same_v<T, CallablePtr> ||
           std::is_same_v<T, LoopPtr>) Value(T pointer)
      : data_(std::move(pointer)) {}
  // `hint` is what using it says.
  static Value undefined(std::string hint) { return Value(std::make_shared<const Missing>(Missing{std::move(hint)})); }

  bool is_undefined() const { return holds<MissingPtr>(); }
  bool is_none() const { return holds<None>(); }
  bool is_bool() const { return holds<bool>(); }
  bool is_int() const { return holds<std::int64_t>(); }
  bool is_integral() const { return is_int() || is_bool(); }  // Python's bool is an int
  bool is_float() const { return holds<double>(); }
  bool is_number() const { return is_integral() || is_float(); }
  bool is_text() const { return holds<TextPtr>(); }
  bool is_sequence() const { return holds<SequencePtr>(); }
  bool is_dict() const { return holds<DictPtr>(); }
  bool is_namespace() const { return holds<NamespacePtr>(); }
  bool is_callable() const { return holds<CallablePtr>(); }
  bool is_loop() const { return holds<LoopPtr>(); }

  // Of the right kind only.
  bool as_bool() const { return std::get<bool>(data_); }
  std::int64_t as_int() const { return is_bool() ? std::int64_t{as_bool()} : std::get<std::int64_t>(data_); }
  double as_number() const { return is_float() ? std::get<double>(data_) : static_cast<double>(as_int()); }
  const std::string& text() const;
  bool is_markup() const;
  const Text& as_text() const { return *std::get<TextPtr>(data_); }
  const Sequence& sequence() const { return *std::get<SequencePtr>(data_); }
  const Dict& dict() const { return *std::get<DictPtr>(data_); }
  Namespace& name_space() const { return *std::get<NamespacePtr>(data_); }
  const Callable& callable() const { return *std::get<CallablePtr>(data_); }
  Loop& loop() const { return *std::get<LoopPtr>(data_); }
  // What using an undefined value says.
  std::string missing_message() const;

  bool truthy() const;
  // "str", "NoneType", "dict": the name of the Python type.
  std::string_view type_name() const;
  // As undefined values name what they were looked for in: "dict object", "None".
  std::string described() const;
  int depth() const;  // 0 for scalars, 1 for a list of scalars
  // The same object, or equal scalars.
  bool same_as(const Value& other) const;

 private:
  template <typename T>
  bool holds() const {
    return std::holds_alternative<T>(data_);
  }
  std::variant<MissingPtr, None, bool, std::int64_t, double, TextPtr, SequencePtr, DictPtr, NamespacePtr, CallablePtr,
               LoopPtr>
      data_;
};

inline const Value kNone{Value::None{}};
using Values = std::vector<Value>;

// Memory that counts against a limit as long as this lives.
class Charge {
 public:
  Charge() = default;
  Charge(Runtime* runtime, std::uint64_t bytes);
  Charge(Charge&& other) noexcept
      : runtime_(std::exchange(other.runtime_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&& other) noexcept {
    std::swap(runtime_, other.runtime_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Charge();
  void grow_to(std::uint64_t bytes);

 private:
  Runtime* runtime_ = nullptr;
  std::uint64_t bytes_ = 0;
};

struct Text {
  std::string text;     // well-formed UTF-8
  bool markup = false;  // marked as safe: what is added to it is escaped
  bool ascii = false;
  Charge charge;
  explicit Text(std::string text, bool markup = false, Charge charge = {});
  std::int64_t length() const;  // in characters
};

struct Sequence {
  enum class Kind : std::uint8_t { kList, kTuple, kRange, kItems, kKeys, kValues, kGenerator };
  Values items;
  Kind kind = Kind::kList;
  int depth = 1;
  // A generator makes its elements when they are first asked for, and gives them once.
  std::function<Values(Runtime&)> generate;
  mutable bool consumed = false;
  Charge charge;
  bool has_length() const { return kind != Kind::kGenerator; }
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;               // in the order of insertion
  std::unordered_map<std::string_view, std::size_t> texts;  // places of the keys that are texts
  int depth = 1;
  Charge charge;
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  Charge charge;
  Value* find(std::string_view name);
};

struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;
  const Value* find(std::string_view name) const;
};

struct Callable {
  std::string name;
  std::string_view type;  // "Macro", "builtin_function_or_method"
  std::function<Value(Runtime&, const Arguments&)> call;
  Charge charge;
};

// The variable `loop` of a for block.
struct Loop {
  std::shared_ptr<const Sequence> items;
  std::int64_t index0 = 0;
  Value last_changed;
  bool changed_once = false;
};

}  // namespace nibble::jinja
