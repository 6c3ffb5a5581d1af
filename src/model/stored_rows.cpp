#include "model/stored_rows.h"

#include <algorithm>

#include "encoding/activation.h"
#include "encoding/affine.h"

namespace nibble::model {

std::span<const container::TensorEntry* const> StoredRows::entries() const {
  if (made != nullptr) return made->origin().entries();
  if (!parts.empty()) return parts;
  return {&entry, entry != nullptr ? 1u : 0u};
}

std::uint64_t StoredRows::n_bytes() const {
  std::uint64_t bytes = 0;
  double elements = 0;
  for (const container::TensorEntry* part : entries()) {
    bytes += part->view.n_bytes();
    elements += static_cast<double>(part->view.shape.elements());
  }
  const auto own = static_cast<double>(shape.elements());
  if (shape.rank() == 0 || own == elements || elements == 0) return bytes;
  return static_cast<std::uint64_t>(static_cast<double>(bytes) * own / elements);
}

StoredRows StoredRows::part_of(std::int64_t& row_begin, std::int64_t& row_end) const {
  StoredRows part = *this;
  if (parts.empty()) return part;
  const std::int64_t index = row_begin / view.rows();
  part.parts.clear();
  part.entry = parts[static_cast<std::size_t>(index)];
  part.view = part.entry->view;
  if (shares_input_scale()) part.view.inputs.scale = view.inputs.scale;
  part.shape = part.view.shape;
  row_begin -= index * view.rows();
  row_end -= index * view.rows();
  return part;
}

bool StoredRows::shares_input_scale() const {
  const encoding::ActivationInfo* inputs = view.inputs.activation;
  return !parts.empty() && inputs != nullptr && inputs->is_static() && inputs->symmetric;
}

std::int64_t StoredRows::cols() const {
  if (!strides.empty()) return shape.cols();
  return transposed ? view.rows() : view.cols();
}

bool StoredRows::has_even_groups() const {
  return std::ranges::all_of(entries(), [](const auto* part) { return encoding::has_even_groups(part->view); });
}

void StoredRows::decode(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  if (made != nullptr) {
    made->read(row_begin, row_end, out);
  } else {
    encoding::decode_rows(view, row_begin, row_end, out);
  }
}

void StoredRows::read(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  if (!parts.empty()) {
    read_parts(row_begin, row_end, out);
  } else if (!strides.empty()) {
    read_strided(row_begin, row_end, out);
  } else if (transposed) {
    read_transposed(row_begin, row_end, out);
  } else if (row_map.empty()) {
    decode(row_begin, row_end, out);
  } else {
    read_mapped(row_begin, row_end, out);
  }
  if (add == 0) return;
  const bool picked = view.shape.rank() == 1 && !row_map.empty();  // a part of a vector
  const std::int64_t n = picked ? static_cast<std::int64_t>(row_map.size()) : (row_end - row_begin) * cols();
  for (std::int64_t i = 0; i < n; ++i) out[i] += add;
}

void StoredRows::read_parts(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  if (view.shape.rank() == 1) {
    for (const container::TensorEntry* part : parts) {
      encoding::decode_rows(part->view, 0, 1, out);
      out += part->view.cols();
    }
    return;
  }
  const std::int64_t height = view.rows(), n_cols = cols();
  for (std::int64_t row = row_begin; row < row_end;) {
    const std::int64_t index = row / height, first = row % height;
    const std::int64_t count = std::min(height - first, row_end - row);
    encoding::decode_rows(parts[static_cast<std::size_t>(index)]->view, first, first + count,
                          out + (row - row_begin) * n_cols);
    row += count;
  }
}

void StoredRows::read_transposed(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  // Of plain numbers only the columns that are wanted are decoded.
  const std::int64_t n_cols = cols();
  const bool plain = made == nullptr && view.encoding->family == encoding::Family::kPlain;
  const std::int64_t first = plain ? row_begin : 0;
  const std::size_t size = plain ? dtype_bytes(view.encoding->dtype) : 0;
  std::vector<float> row(static_cast<std::size_t>(plain ? row_end - row_begin : view.cols()));
  for (std::int64_t c = 0; c < n_cols; ++c) {
    if (plain) {
      const std::byte* from = view.data().data() + static_cast<std::size_t>(c * view.cols() + first) * size;
      view.encoding->decode(from, row.data(), row_end - row_begin);
    } else {
      decode(c, c + 1, row.data());
    }
    for (std::int64_t r = row_begin; r < row_end; ++r)
      out[(r - row_begin) * n_cols + c] = row[static_cast<std::size_t>(r - first)];
  }
}

// Rows of one matrix at a time. Numbers of a row that lie in one row of the tensor are taken from it one row after the
// other; where each lies in a row of its own, those rows are decoded once for all rows that are read.
void StoredRows::read_strided(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  const std::int64_t n_cols = cols(), width = view.cols(), height = strides.rows_of_matrix(shape);
  std::vector<float> line(static_cast<std::size_t>(width));
  const auto decode = [&](std::int64_t at) { encoding::decode_rows(view, at / width, at / width + 1, line.data()); };
  for (std::int64_t row = row_begin; row < row_end;) {
    const std::int64_t matrix = row / height, end = std::min(row_end, (matrix + 1) * height);
    const std::int64_t base = strides.offset + matrix * strides.matrix;
    float* to = out + (row - row_begin) * n_cols;
    if (strides.col < width) {
      for (std::int64_t r = row; r < end; ++r, to += n_cols) {
        const std::int64_t at = base + r % height * strides.row;
        decode(at);
        for (std::int64_t c = 0; c < n_cols; ++c) to[c] = line[static_cast<std::size_t>(at % width + c * strides.col)];
      }
    } else {
      for (std::int64_t c = 0; c < n_cols; ++c) {
        const std::int64_t at = base + c * strides.col;
        decode(at);
        for (std::int64_t r = row; r < end; ++r)
          to[(r - row) * n_cols + c] = line[static_cast<std::size_t>(at % width + r % height * strides.row)];
      }
    }
    row = end;
  }
}

void StoredRows::read_mapped(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  if (view.shape.rank() == 1) {
    std::vector<float> stored(static_cast<std::size_t>(cols()));
    decode(0, 1, stored.data());
    for (std::size_t i = 0; i < row_map.size(); ++i) out[i] = stored[static_cast<std::size_t>(row_map[i])];
    return;
  }
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const std::int64_t at = row_map[static_cast<std::size_t>(row)];
    decode(at, at + 1, out + (row - row_begin) * cols());
  }
}

}  // namespace nibble::model
