// Key-value metadata with GGUF's value types, in file order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace nibble::container {

struct MetaArray;
using MetaValue = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t,
                               float, bool, std::string, std::uint64_t, std::int64_t, double, MetaArray>;
// A homogeneous array, as the file has it.
struct MetaArray {
  std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
               std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>, std::vector<float>,
               std::vector<bool>, std::vector<std::string>, std::vector<std::uint64_t>, std::vector<std::int64_t>,
               std::vector<double>>
      items;
  std::size_t size() const {
    return std::visit([](const auto& v) { return v.size(); }, items);
  }
  bool operator==(const MetaArray&) const = default;
};

class Metadata {
 public:
  const MetaValue* find(std::string_view key) const;
  bool contains(std::string_view key) const { return find(key) != nullptr; }
  void set(std::string_view key, MetaValue value);  // replaces in place or appends
  void append(std::string key, MetaValue value);    // for a key known to be new: no search
  void erase(std::string_view key);
  const std::vector<std::pair<std::string, MetaValue>>& entries() const { return entries_; }

  // Any numeric type that holds the value exactly is taken (a boolean is no number); a wrong type or a value that does
  // not fit throws Error{kFormat} naming the key. The forms with a fallback give it only when the key is absent; the
  // others throw Error{kNotFound} when it is.
  std::int64_t get_int(std::string_view key) const;
  std::int64_t get_int(std::string_view key, std::int64_t fallback) const;
  double get_float(std::string_view key) const;
  double get_float(std::string_view key, double fallback) const;
  bool get_bool(std::string_view key, bool fallback) const;
  const std::string& get_string(std::string_view key) const;
  std::string get_string(std::string_view key, std::string_view fallback) const;
  std::vector<std::int64_t> get_ints(std::string_view key) const;  // an array, or a scalar as one element
  std::vector<float> get_floats(std::string_view key) const;
  const std::vector<std::string>& get_strings(std::string_view key) const;

  bool operator==(const Metadata&) const = default;

 private:
  std::vector<std::pair<std::string, MetaValue>> entries_;
};

}  // namespace nibble::container
