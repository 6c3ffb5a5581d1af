#include "container/metadata.h"

#include <cmath>
#include <concepts>
#include <limits>
#include <type_traits>

#include "base/error.h"

namespace nibble::container {

namespace {

template <typename T>
concept Number = std::is_arithmetic_v<T> && !std::same_as<T, bool>;

[[noreturn]] void refuse(std::string_view key, std::string_view wanted) {
  fail(ErrorCode::kFormat, "metadata key '{}': not {}", key, wanted);
}

template <Number T>
std::int64_t exact_int(std::string_view key, T value) {
  if constexpr (std::floating_point<T>) {
    const double wide = value;
    if (!(wide >= -0x1p63 && wide < 0x1p63) || wide != std::floor(wide)) refuse(key, "an integer");
    return static_cast<std::int64_t>(wide);
  } else {
    if (!std::in_range<std::int64_t>(value))
      fail(ErrorCode::kFormat, "metadata key '{}': {} is out of range", key, value);
    return static_cast<std::int64_t>(value);
  }
}

// T as a double, or as a float when To is float (then rounding to float is what the caller asked for, unless T is an
// integer).
template <std::floating_point To, Number T>
To exact_float(std::string_view key, T value) {
  const To result = static_cast<To>(value);
  if constexpr (std::integral<T>) {
    if (!(std::fabs(result) < 0x1p63) || static_cast<std::int64_t>(result) != static_cast<std::int64_t>(value)) {
      fail(ErrorCode::kFormat, "metadata key '{}': {} does not fit a floating-point number", key, value);
    }
  }
  return result;
}

template <typename Result, typename Convert>
Result number(std::string_view key, const MetaValue& value, std::string_view wanted, Convert convert) {
  return std::visit(
      [&]<typename T>(const T& item) -> Result {
        if constexpr (Number<T>) {
          return convert(item);
        } else {
          refuse(key, wanted);
        }
      },
      value);
}

template <typename Item, typename Convert>
std::vector<Item> numbers(std::string_view key, const MetaValue& value, std::string_view wanted, Convert convert) {
  const auto* array = std::get_if<MetaArray>(&value);
  if (array == nullptr) return {number<Item>(key, value, wanted, convert)};
  return std::visit(
      [&]<typename T>(const std::vector<T>& items) -> std::vector<Item> {
        std::vector<Item> result;
        if constexpr (Number<T>) {
          result.reserve(items.size());
          for (const T item : items) result.push_back(convert(item));
        } else {
          refuse(key, wanted);
        }
        return result;
      },
      array->items);
}

const MetaValue& required(const Metadata& metadata, std::string_view key) {
  if (const MetaValue* value = metadata.find(key)) return *value;
  fail(ErrorCode::kNotFound, "the metadata lacks the key '{}'", key);
}

template <typename T>
const T& typed(std::string_view key, const MetaValue& value, std::string_view wanted) {
  if (const T* item = std::get_if<T>(&value)) return *item;
  refuse(key, wanted);
}

std::int64_t to_int(std::string_view key, const MetaValue& value) {
  return number<std::int64_t>(key, value, "an integer", [&](auto item) { return exact_int(key, item); });
}

double to_float(std::string_view key, const MetaValue& value) {
  return number<double>(key, value, "a number", [&](auto item) { return exact_float<double>(key, item); });
}

}  // namespace

const MetaValue* Metadata::find(std::string_view key) const {
  for (const auto& [name, value] : entries_) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Metadata::set(std::string_view key, MetaValue value) {
  for (auto& [name, old] : entries_) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  append(std::string(key), std::move(value));
}

void Metadata::append(std::string key, MetaValue value) { entries_.emplace_back(std::move(key), std::move(value)); }

void Metadata::erase(std::string_view key) {
  std::erase_if(entries_, [&](const auto& entry) { return entry.first == key; });
}

std::int64_t Metadata::get_int(std::string_view key) const { return to_int(key, required(*this, key)); }

std::int64_t Metadata::get_int(std::string_view key, std::int64_t fallback) const {
  const MetaValue* value = find(key);
  return value == nullptr ? fallback : to_int(key, *value);
}

double Metadata::get_float(std::string_view key) const { return to_float(key, required(*this, key)); }

double Metadata::get_float(std::string_view key, double fallback) const {
  const MetaValue* value = find(key);
  return value == nullptr ? fallback : to_float(key, *value);
}

bool Metadata::get_bool(std::string_view key, bool fallback) const {
  const MetaValue* value = find(key);
  return value == nullptr ? fallback : typed<bool>(key, *value, "a boolean");
}

const std::string& Metadata::get_string(std::string_view key) const {
  return typed<std::string>(key, required(*this, key), "a string");
}

std::string Metadata::get_string(std::string_view key, std::string_view fallback) const {
  const MetaValue* value = find(key);
  return value == nullptr ? std::string(fallback) : typed<std::string>(key, *value, "a string");
}

std::vector<std::int64_t> Metadata::get_ints(std::string_view key) const {
  return numbers<std::int64_t>(key, required(*this, key), "an array of integers",
                               [&](auto item) { return exact_int(key, item); });
}

std::vector<float> Metadata::get_floats(std::string_view key) const {
  return numbers<float>(key, required(*this, key), "an array of numbers",
                        [&](auto item) { return exact_float<float>(key, item); });
}

const std::vector<std::string>& Metadata::get_strings(std::string_view key) const {
  constexpr std::string_view wanted = "an array of strings";
  const auto& items = typed<MetaArray>(key, required(*this, key), wanted).items;
  if (const auto* strings = std::get_if<std::vector<std::string>>(&items)) return *strings;
  refuse(key, wanted);
}

}  // namespace nibble::container
