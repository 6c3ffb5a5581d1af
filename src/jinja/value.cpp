#include "jinja/value.h"

#include <algorithm>

#include "base/format.h"
#include "jinja/runtime.h"

namespace nibble::jinja {

const std::string& Value::text() const { return as_text().text; }
bool Value::is_markup() const { return is_text() && as_text().markup; }

std::string Value::missing_message() const {
  const MissingPtr& missing = std::get<MissingPtr>(data_);
  return missing ? missing->message : "the value is undefined";
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return as_number() != 0;
  if (is_text()) return !text().empty();
  if (is_sequence()) return !sequence().has_length() || !sequence().items.empty();
  if (is_dict()) return !dict().items.empty();
  return true;
}

std::string_view Value::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_text()) return is_markup() ? "Markup" : "str";
  if (is_dict()) return "dict";
  if (is_namespace()) return "Namespace";
  if (is_callable()) return callable().type;
  if (is_loop()) return "LoopContext";
  constexpr std::string_view kNames[] = {"list",      "tuple",       "range",    "dict_items",
                                         "dict_keys", "dict_values", "generator"};
  return kNames[static_cast<std::size_t>(sequence().kind)];
}

std::string Value::described() const {
  if (is_none()) return "None";
  if (is_namespace()) return "jinja2.utils.Namespace object";
  if (is_loop()) return "jinja2.runtime.LoopContext object";
  if (is_callable() && type_name() == "Macro") return "jinja2.runtime.Macro object";
  return std::string(type_name()) + " object";
}

int Value::depth() const {
  if (is_sequence()) return sequence().depth;
  return is_dict() ? dict().depth : 0;
}

bool Value::same_as(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  if (is_text()) return text() == other.text();
  if (is_bool()) return as_bool() == other.as_bool();
  if (is_int()) return as_int() == other.as_int();
  if (is_float()) return as_number() == other.as_number();
  return std::visit(
      [&](const auto& mine) {
        using T = std::decay_t<decltype(mine)>;
        if constexpr (requires { mine.get(); }) return mine == std::get<T>(other.data_);
        return true;
      },
      data_);
}

Text::Text(std::string source, bool is_markup, Charge held)
    : text(std::move(source)), markup(is_markup), charge(std::move(held)) {
  ascii = std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::int64_t Text::length() const {
  if (ascii) return static_cast<std::int64_t>(text.size());
  return std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

const Value* Dict::find(std::string_view key) const {
  const auto found = texts.find(key);
  return found == texts.end() ? nullptr : &items[found->second].second;
}

const Value* Dict::find(const Value& key) const {
  if (key.is_text()) return find(std::string_view(key.text()));
  for (const auto& [name, value] : items) {
    // 1, 1.0 and true are one key, as in Python.
    if (key.is_number() ? name.is_number() && name.as_number() == key.as_number() : name.same_as(key)) return &value;
  }
  return nullptr;
}

Value* Namespace::find(std::string_view name) {
  const auto found = std::ranges::find(attributes, name, &std::pair<std::string, Value>::first);
  return found == attributes.end() ? nullptr : &found->second;
}

const Value* Arguments::find(std::string_view name) const {
  const auto found = std::ranges::find(named, name, &std::pair<std::string, Value>::first);
  return found == named.end() ? nullptr : &found->second;
}

Charge::Charge(Runtime* runtime, std::uint64_t bytes) : runtime_(runtime) { grow_to(bytes); }

Charge::~Charge() {
  if (runtime_ != nullptr) runtime_->release(bytes_);
}

void Charge::grow_to(std::uint64_t bytes) {
  if (runtime_ == nullptr || bytes <= bytes_) return;
  runtime_->hold(bytes - bytes_);
  bytes_ = bytes;
}

}  // namespace nibble::jinja
