// JSON values: bounded parsing and writing. The JSON library is named only in json.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace nibble::json {

class Value;
using Array = std::vector<Value>;
using Object = std::vector<std::pair<std::string, Value>>;  // in file order

// One JSON value. The typed getters throw Error{kFormat} that says what was found instead.
class Value {
 public:
  Value() = default;
  Value(std::nullptr_t) {}
  Value(bool value) : data_(value) {}
  Value(int value) : data_(std::int64_t{value}) {}
  Value(std::int64_t value) : data_(value) {}
  Value(std::uint64_t value) : data_(static_cast<std::int64_t>(value)) {}
  Value(double value) : data_(value) {}
  Value(const char* value) : data_(std::string(value)) {}
  Value(std::string_view value) : data_(std::string(value)) {}
  Value(std::string value) : data_(std::move(value)) {}
  Value(Array value) : data_(std::move(value)) {}
  Value(Object value) : data_(std::move(value)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<std::int64_t>(data_); }
  bool is_number() const { return is_int() || std::holds_alternative<double>(data_); }
  bool is_string() const { return std::holds_alternative<std::string>(data_); }
  bool is_array() const { return std::holds_alternative<Array>(data_); }
  bool is_object() const { return std::holds_alternative<Object>(data_); }

  bool as_bool() const;
  std::int64_t as_int() const;  // a double with an integral value counts
  double as_number() const;
  const std::string& as_string() const;
  const Array& as_array() const;
  const Object& as_object() const;
  Array& as_array();
  Object& as_object();

  // Member of an object; find() gives null when this is no object or has no such member, at() throws naming the key.
  const Value* find(std::string_view key) const;
  const Value& at(std::string_view key) const;
  // Member or fallback; a JSON null counts as absent.
  bool get(std::string_view key, bool fallback) const;
  std::int64_t get(std::string_view key, std::int64_t fallback) const;
  std::int64_t get(std::string_view key, int fallback) const { return get(key, std::int64_t{fallback}); }
  double get(std::string_view key, double fallback) const;
  std::string get(std::string_view key, std::string_view fallback) const;
  std::string get(std::string_view key, const char* fallback) const { return get(key, std::string_view(fallback)); }

  // Adds or replaces a member; a null value becomes an object first.
  void set(std::string_view key, Value value);
  void push_back(Value value);  // a null value becomes an array first

  bool operator==(const Value&) const = default;

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> data_;
};

// A parsed text without a tree of its own: for files with hundreds of thousands of values. Elements and strings that it
// gives out live as long as it does.
class Document {
 public:
  // As parse() below.
  explicit Document(std::string_view text);
  Document(Document&&) noexcept;
  Document& operator=(Document&&) noexcept;
  ~Document();

  class Element {
   public:
    bool is_string() const;
    bool is_array() const;
    bool is_object() const;
    // These throw Error{kFormat} that says what was found instead.
    std::string_view as_string() const;
    std::int64_t as_int() const;
    double as_number() const;
    // How many elements or members; 0xFFFFFF stands for that many and more.
    std::size_t size() const;
    // visit(element) or visit(key, element) in file order.
    template <typename Visit>
    void for_each(Visit&& visit) const {
      each([](void* context, std::string_view,
              Element item) { (*static_cast<std::remove_reference_t<Visit>*>(context))(item); },
           const_cast<void*>(static_cast<const void*>(&visit)));
    }
    template <typename Visit>
    void for_each_member(Visit&& visit) const {
      each_member([](void* context, std::string_view key,
                     Element item) { (*static_cast<std::remove_reference_t<Visit>*>(context))(key, item); },
                  const_cast<void*>(static_cast<const void*>(&visit)));
    }
    Value value() const;  // a tree of its own

   private:
    friend class Document;
    using Call = void (*)(void* context, std::string_view key, Element item);
    void each(Call call, void* context) const;
    void each_member(Call call, void* context) const;
    struct Raw {
      const void* document;
      std::size_t index;
    };
    explicit Element(Raw raw) : raw_(raw) {}
    Raw raw_;  // a simdjson::dom::element
  };
  Element root() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Throws Error{kFormat} that says what is wrong. Nesting is limited to 512, invalid UTF-8 is refused.
Value parse(std::string_view text);
// Reads and parses a file of at most `limit_bytes`; errors name it.
Value parse_file(const std::filesystem::path& path, std::uint64_t limit_bytes = std::uint64_t{256} << 20);

// Shortest numbers that read back equal; NaN and infinities become null. `indent` 0 gives one line.
std::string dump(const Value& value, int indent = 2);

}  // namespace nibble::json
