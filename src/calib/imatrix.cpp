#include "calib/imatrix.h"

#include <cmath>

#include "base/atomic_file.h"
#include "base/error.h"
#include "calib/imatrix_forms.h"

namespace nibble::calib {

const ImatrixEntry* Imatrix::find(std::string_view name) const {
  const auto it = entries.find(name);
  return it == entries.end() ? nullptr : &it->second;
}

void check_entry(std::string_view name, const ImatrixEntry& entry) {
  if (entry.sums.empty() || entry.counts.empty() || entry.sums.size() % entry.counts.size() != 0) {
    fail(ErrorCode::kFormat, "entry '{}': {} sums for {} counts", name, entry.sums.size(), entry.counts.size());
  }
  for (const double sum : entry.sums) {
    if (!std::isfinite(sum) || sum < 0) fail(ErrorCode::kFormat, "entry '{}': {} is no sum of squares", name, sum);
  }
  for (const std::int64_t count : entry.counts) {
    if (count < 0) fail(ErrorCode::kFormat, "entry '{}': {} tokens", name, count);
  }
}

Imatrix load_imatrix(const std::filesystem::path& path) {
  return with_context(format_text("importance matrix '{}'", path.string()), [&] {
    Imatrix imatrix = is_gguf_file(path) ? load_gguf_form(path) : load_dat_form(read_file(path));
    if (imatrix.entries.empty()) fail(ErrorCode::kFormat, "no entries");
    for (const auto& [name, entry] : imatrix.entries) check_entry(name, entry);
    return imatrix;
  });
}

void save_imatrix(const Imatrix& imatrix, const std::filesystem::path& path, ImatrixFormat format) {
  if (imatrix.entries.empty())
    fail(ErrorCode::kInvalidArgument, "an importance matrix without entries cannot be written");
  for (const auto& [name, entry] : imatrix.entries) check_entry(name, entry);
  if (format == ImatrixFormat::kGguf) {
    save_gguf_form(imatrix, path);
  } else {
    write_file_atomically(path, to_dat_form(imatrix));
  }
}

std::uint64_t imatrix_bytes(const Imatrix& imatrix, ImatrixFormat format) {
  return format == ImatrixFormat::kGguf ? gguf_form_bytes(imatrix) : to_dat_form(imatrix).size();
}

void merge_imatrix(Imatrix& into, const Imatrix& other) {
  const std::int64_t unit = other.chunk_size == 0 && into.chunk_size > 0 ? into.chunk_size : 1;
  for (const auto& [name, entry] : other.entries) {
    ImatrixEntry& sum = into.entries[name];
    if (sum.sums.empty()) {
      sum.sums.resize(entry.sums.size());
      sum.counts.resize(entry.counts.size());
    }
    // One count for all matrices is as good as the same count for each.
    if (sum.counts.size() == 1) sum.counts.resize(entry.counts.size(), sum.counts[0]);
    if (sum.sums.size() != entry.sums.size() ||
        (entry.counts.size() != 1 && entry.counts.size() != sum.counts.size())) {
      fail(ErrorCode::kFormat, "entry '{}': {} sums for {} matrices cannot be added to {} for {}", name,
           entry.sums.size(), entry.counts.size(), sum.sums.size(), sum.counts.size());
    }
    for (std::size_t i = 0; i < sum.sums.size(); ++i) sum.sums[i] += entry.sums[i] * static_cast<double>(unit);
    for (std::size_t i = 0; i < sum.counts.size(); ++i) {
      sum.counts[i] += entry.counts[entry.counts.size() == 1 ? 0 : i] * unit;
    }
  }
  into.chunk_count += other.chunk_count;
  if (into.chunk_size == 0) into.chunk_size = other.chunk_size;
  into.datasets.insert(into.datasets.end(), other.datasets.begin(), other.datasets.end());
}

std::vector<float> mean_square(const ImatrixEntry& entry) {
  std::vector<float> means(entry.sums.size());
  const std::size_t cols = entry.sums.size() / entry.counts.size();
  for (std::size_t i = 0; i < means.size(); ++i) {
    const auto count = static_cast<float>(entry.counts[i / cols]);
    means[i] = count > 0 ? static_cast<float>(entry.sums[i]) / count : 1.0f;
  }
  return means;
}

}  // namespace nibble::calib
