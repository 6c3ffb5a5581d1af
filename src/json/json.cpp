#include "json/json.h"

#include <simdjson.h>

#include <bit>
#include <charconv>
#include <cmath>

#include "base/atomic_file.h"
#include "base/error.h"

namespace nibble::json {

namespace {

constexpr std::size_t kMaxDepth = 512;

std::string_view kind(const Value& value) {
  if (value.is_null()) return "null";
  if (value.is_bool()) return "a boolean";
  if (value.is_number()) return "a number";
  if (value.is_string()) return "a string";
  return value.is_array() ? "an array" : "an object";
}

[[noreturn]] void wrong_kind(std::string_view wanted, const Value& found) {
  fail(ErrorCode::kFormat, "JSON: expected {}, found {}", wanted, kind(found));
}

Value convert(simdjson::dom::element element) {
  using simdjson::dom::element_type;
  switch (element.type()) {
    case element_type::NULL_VALUE:
      return {};
    case element_type::BOOL:
      return Value(bool{element});
    case element_type::INT64:
      return Value(std::int64_t{element});
    case element_type::UINT64:
      return Value(static_cast<double>(std::uint64_t{element}));
    case element_type::DOUBLE:
      return Value(double{element});
    case element_type::STRING:
      return Value(std::string_view{element});
    case element_type::ARRAY: {
      const simdjson::dom::array source = element;
      Array array;
      array.reserve(source.size());
      for (auto item : source) array.push_back(convert(item));
      return Value(std::move(array));
    }
    case element_type::OBJECT: {
      const simdjson::dom::object source = element;
      Object object;
      object.reserve(source.size());
      for (auto field : source) object.emplace_back(std::string(field.key), convert(field.value));
      return Value(std::move(object));
    }
  }
  return {};
}

void write_string(std::string_view text, std::string& out) {
  out += '"';
  for (char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += format_text("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void write_value(const Value& value, int indent, int level, std::string& out) {
  auto new_line = [&](int at) {
    if (indent == 0) return;
    out += '\n';
    out.append(static_cast<std::size_t>(indent * at), ' ');
  };
  if (value.is_null()) {
    out += "null";
  } else if (value.is_bool()) {
    out += value.as_bool() ? "true" : "false";
  } else if (value.is_int()) {
    out += std::to_string(value.as_int());
  } else if (value.is_number()) {
    const double number = value.as_number();
    if (!std::isfinite(number)) {
      out += "null";
      return;
    }
    char buffer[32];
    const auto end = std::to_chars(buffer, buffer + sizeof(buffer), number).ptr;
    const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
    out += text;
    if (text.find_first_of(".e") == std::string_view::npos) out += ".0";
  } else if (value.is_string()) {
    write_string(value.as_string(), out);
  } else if (value.is_array()) {
    const Array& array = value.as_array();
    bool scalars = true;
    for (const Value& item : array) scalars = scalars && !item.is_array() && !item.is_object();
    out += '[';
    for (std::size_t i = 0; i < array.size(); ++i) {
      if (i > 0) out += scalars && indent > 0 ? ", " : ",";
      if (!scalars) new_line(level + 1);
      write_value(array[i], indent, level + 1, out);
    }
    if (!scalars) new_line(level);
    out += ']';
  } else {
    const Object& object = value.as_object();
    out += '{';
    for (std::size_t i = 0; i < object.size(); ++i) {
      if (i > 0) out += ',';
      new_line(level + 1);
      write_string(object[i].first, out);
      out += indent > 0 ? ": " : ":";
      write_value(object[i].second, indent, level + 1, out);
    }
    if (!object.empty()) new_line(level);
    out += '}';
  }
}

}  // namespace

bool Value::as_bool() const {
  if (const auto* value = std::get_if<bool>(&data_)) return *value;
  wrong_kind("a boolean", *this);
}

std::int64_t Value::as_int() const {
  if (const auto* value = std::get_if<std::int64_t>(&data_)) return *value;
  if (const auto* value = std::get_if<double>(&data_)) {
    if (*value == std::floor(*value) && std::fabs(*value) < 0x1p63) return static_cast<std::int64_t>(*value);
  }
  wrong_kind("an integer", *this);
}

double Value::as_number() const {
  if (const auto* value = std::get_if<double>(&data_)) return *value;
  if (const auto* value = std::get_if<std::int64_t>(&data_)) return static_cast<double>(*value);
  wrong_kind("a number", *this);
}

const std::string& Value::as_string() const {
  if (const auto* value = std::get_if<std::string>(&data_)) return *value;
  wrong_kind("a string", *this);
}

const Array& Value::as_array() const {
  if (const auto* value = std::get_if<Array>(&data_)) return *value;
  wrong_kind("an array", *this);
}

const Object& Value::as_object() const {
  if (const auto* value = std::get_if<Object>(&data_)) return *value;
  wrong_kind("an object", *this);
}

Array& Value::as_array() { return const_cast<Array&>(std::as_const(*this).as_array()); }
Object& Value::as_object() { return const_cast<Object&>(std::as_const(*this).as_object()); }

const Value* Value::find(std::string_view key) const {
  const auto* object = std::get_if<Object>(&data_);
  if (object == nullptr) return nullptr;
  for (const auto& [name, value] : *object) {
    if (name == key) return &value;
  }
  return nullptr;
}

const Value& Value::at(std::string_view key) const {
  if (const Value* value = find(key)) return *value;
  fail(ErrorCode::kFormat, "JSON: no member '{}'", key);
}

bool Value::get(std::string_view key, bool fallback) const {
  const Value* value = find(key);
  return value == nullptr || value->is_null() ? fallback : with_context(key, [&] { return value->as_bool(); });
}

std::int64_t Value::get(std::string_view key, std::int64_t fallback) const {
  const Value* value = find(key);
  return value == nullptr || value->is_null() ? fallback : with_context(key, [&] { return value->as_int(); });
}

double Value::get(std::string_view key, double fallback) const {
  const Value* value = find(key);
  return value == nullptr || value->is_null() ? fallback : with_context(key, [&] { return value->as_number(); });
}

std::string Value::get(std::string_view key, std::string_view fallback) const {
  const Value* value = find(key);
  if (value == nullptr || value->is_null()) return std::string(fallback);
  return with_context(key, [&] { return value->as_string(); });
}

void Value::set(std::string_view key, Value value) {
  if (is_null()) data_ = Object{};
  for (auto& [name, old] : as_object()) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  as_object().emplace_back(std::string(key), std::move(value));
}

void Value::push_back(Value value) {
  if (is_null()) data_ = Array{};
  as_array().push_back(std::move(value));
}

struct Document::State {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
};

Document::Document(std::string_view text) : state_(std::make_unique<State>()) {
  if (const auto error = state_->parser.allocate(text.size(), kMaxDepth)) {
    fail(ErrorCode::kFormat, "JSON: {}", simdjson::error_message(error));
  }
  if (const auto error = state_->parser.parse(text.data(), text.size()).get(state_->root)) {
    fail(ErrorCode::kFormat, "JSON: {}", simdjson::error_message(error));
  }
}

Document::Document(Document&&) noexcept = default;
Document& Document::operator=(Document&&) noexcept = default;
Document::~Document() = default;

using dom_element = simdjson::dom::element;

Document::Element Document::root() const { return Element(std::bit_cast<Element::Raw>(state_->root)); }

bool Document::Element::is_string() const { return std::bit_cast<dom_element>(raw_).is_string(); }
bool Document::Element::is_array() const { return std::bit_cast<dom_element>(raw_).is_array(); }
bool Document::Element::is_object() const { return std::bit_cast<dom_element>(raw_).is_object(); }

std::string_view Document::Element::as_string() const {
  std::string_view text;
  if (std::bit_cast<dom_element>(raw_).get(text)) wrong_kind("a string", value());
  return text;
}

std::int64_t Document::Element::as_int() const {
  std::int64_t number = 0;
  return std::bit_cast<dom_element>(raw_).get(number) ? value().as_int() : number;
}

double Document::Element::as_number() const {
  double number = 0;
  return std::bit_cast<dom_element>(raw_).get(number) ? value().as_number() : number;
}

std::size_t Document::Element::size() const {
  const auto element = std::bit_cast<dom_element>(raw_);
  if (is_array()) return simdjson::dom::array(element).size();
  if (!is_object()) wrong_kind("an array or object", value());
  return simdjson::dom::object(element).size();
}

void Document::Element::each(Call call, void* context) const {
  if (!is_array()) wrong_kind("an array", value());
  for (const auto item : simdjson::dom::array(std::bit_cast<dom_element>(raw_)))
    call(context, {}, Element(std::bit_cast<Raw>(item)));
}

void Document::Element::each_member(Call call, void* context) const {
  if (!is_object()) wrong_kind("an object", value());
  for (const auto field : simdjson::dom::object(std::bit_cast<dom_element>(raw_)))
    call(context, field.key, Element(std::bit_cast<Raw>(field.value)));
}

Value Document::Element::value() const { return convert(std::bit_cast<dom_element>(raw_)); }

Value parse(std::string_view text) { return Document(text).root().value(); }

Value parse_file(const std::filesystem::path& path, std::uint64_t limit_bytes) {
  return with_context("'" + path.string() + "'", [&] { return parse(read_file(path, limit_bytes)); });
}

std::string dump(const Value& value, int indent) {
  std::string out;
  write_value(value, indent, 0, out);
  return out;
}

}  // namespace nibble::json
