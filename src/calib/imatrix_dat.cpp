#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "calib/imatrix_forms.h"

namespace nibble::calib {

namespace {

// Takes little-endian numbers off the front of a file.
class Cursor {
 public:
  explicit Cursor(std::string_view bytes) : bytes_(bytes) {}

  bool at_end() const { return offset_ == bytes_.size(); }
  std::size_t left() const { return bytes_.size() - offset_; }
  std::string_view take(std::size_t n_bytes, std::string_view what) {
    if (n_bytes > left()) {
      fail(ErrorCode::kFormat, "{} at offset {} needs {} bytes, {} are left", what, offset_, n_bytes, left());
    }
    const std::string_view taken = bytes_.substr(offset_, n_bytes);
    offset_ += n_bytes;
    return taken;
  }
  std::int32_t take_i32(std::string_view what) {
    std::int32_t value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }
  std::size_t take_size(std::string_view what) {
    const std::int32_t value = take_i32(what);
    if (value < 0) fail(ErrorCode::kFormat, "{} at offset {} is {}", what, offset_ - sizeof value, value);
    return static_cast<std::size_t>(value);
  }

 private:
  std::string_view bytes_;
  std::size_t offset_ = 0;
};

void append_i32(std::string& out, std::int64_t value) {
  const auto narrow = checked_cast<std::int32_t>(value);
  out.append(reinterpret_cast<const char*>(&narrow), sizeof narrow);
}

std::int64_t chunks_of(std::int64_t tokens, std::int64_t chunk_size) {
  return chunk_size > 0 ? (tokens + chunk_size - 1) / chunk_size : tokens;
}

void append_entry(std::string& out, const std::string& name, const ImatrixEntry& entry, std::int64_t chunk_size) {
  append_i32(out, static_cast<std::int64_t>(name.size()));
  out += name;
  const std::int64_t calls = chunks_of(*std::max_element(entry.counts.begin(), entry.counts.end()), chunk_size);
  append_i32(out, calls);
  append_i32(out, static_cast<std::int64_t>(entry.sums.size()));
  for (const float mean : mean_square(entry)) {
    const float value = mean * static_cast<float>(calls);
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
}

}  // namespace

Imatrix load_dat_form(std::string_view bytes) {
  Cursor cursor(bytes);
  Imatrix imatrix;
  const std::size_t n_entries = cursor.take_size("number of entries");
  for (std::size_t i = 0; i < n_entries; ++i) {
    const std::string name(cursor.take(cursor.take_size("length of a name"), "name of an entry"));
    with_context(format_text("entry '{}'", name), [&] {
      ImatrixEntry entry;
      entry.counts = {cursor.take_i32("number of calls")};
      const std::size_t n_values = cursor.take_size("number of values");
      const std::string_view values = cursor.take(checked_mul(n_values, sizeof(float)), "values");
      entry.sums.reserve(n_values);
      for (std::size_t j = 0; j < n_values; ++j) {
        float value;
        std::memcpy(&value, values.data() + j * sizeof value, sizeof value);
        entry.sums.push_back(value);
      }
      if (!imatrix.entries.emplace(name, std::move(entry)).second) fail(ErrorCode::kFormat, "occurs twice");
    });
  }
  if (cursor.at_end()) return imatrix;  // the oldest files stop here
  imatrix.chunk_count = cursor.take_i32("chunk count");
  if (cursor.at_end()) return imatrix;
  const std::string_view dataset = cursor.take(cursor.take_size("length of the dataset's name"), "dataset's name");
  if (!dataset.empty()) imatrix.datasets.emplace_back(dataset);
  if (!cursor.at_end()) fail(ErrorCode::kFormat, "{} bytes follow the end", cursor.left());
  return imatrix;
}

std::string to_dat_form(const Imatrix& imatrix) {
  const auto has_data = [](const auto& item) {
    return std::any_of(item.second.counts.begin(), item.second.counts.end(),
                       [](std::int64_t count) { return count > 0; });
  };
  std::string out;
  append_i32(out, std::count_if(imatrix.entries.begin(), imatrix.entries.end(), has_data));
  for (const auto& item : imatrix.entries) {
    if (has_data(item)) append_entry(out, item.first, item.second, imatrix.chunk_size);
  }
  append_i32(out, imatrix.chunk_count);
  const std::string dataset = imatrix.datasets.empty() ? std::string() : imatrix.datasets.back();
  append_i32(out, static_cast<std::int64_t>(dataset.size()));
  return out + dataset;
}

}  // namespace nibble::calib
