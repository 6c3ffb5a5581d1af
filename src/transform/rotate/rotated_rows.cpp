#include "transform/rotate/rotated_rows.h"

#include <algorithm>

namespace nibble::transform::rotate {

std::shared_ptr<MatrixCache::Item> MatrixCache::find(const Key& key, std::int64_t n) {
  const std::scoped_lock lock(mutex_);
  const auto found = std::ranges::find_if(items_, [&](const auto& item) { return item->key == key; });
  if (found != items_.end()) {
    items_.splice(items_.begin(), items_, found);
    return items_.front();
  }
  auto item = std::make_shared<Item>();
  item->key = key;
  item->bytes = static_cast<std::uint64_t>(n) * sizeof(float);
  bytes_ += item->bytes;
  items_.push_front(item);
  while (bytes_ > limit_bytes_ && items_.size() > 1) {
    bytes_ -= items_.back()->bytes;
    items_.pop_back();
  }
  return item;
}

MatrixCache::Values MatrixCache::get(const Key& key, std::int64_t n, const std::function<void(float*)>& make) {
  const std::shared_ptr<Item> item = find(key, n);
  std::call_once(item->once, [&] {
    item->values.resize(static_cast<std::size_t>(n));
    make(item->values.data());
  });
  return {item, &item->values};
}

void MatrixCache::forget(const void* whose) {
  const std::scoped_lock lock(mutex_);
  std::erase_if(items_, [&](const auto& item) {
    const bool own = item->key.first == whose;
    if (own) bytes_ -= item->bytes;
    return own;
  });
}

RotatedRows::RotatedRows(std::shared_ptr<const model::ModelSource> original, Rewriting rewriting,
                         std::shared_ptr<MatrixCache> cache)
    : original_(std::move(original)), rewriting_(std::move(rewriting)), cache_(std::move(cache)) {
  const model::WeightSlot& slot = original_->spec().weights[rewriting_.from];
  bias_ = slot.bias;
  height_ = model::Strides::rows_of_matrix(slot.shape);
  cols_ = slot.shape.cols();
  // The file's rows may be our columns, or the output's be them.
  whole_ = rewriting_.outputs != nullptr || slot.hf_transposed || slot.hf_strides.col > 1;
}

void RotatedRows::read_inputs(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  original_->read_rows(rewriting_.from, row_begin, row_end, out);
  const std::int64_t rows = row_end - row_begin;
  if (!rewriting_.factors.empty()) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) out[r * cols_ + c] *= rewriting_.factors[static_cast<std::size_t>(c)];
    }
  }
  if (rewriting_.inputs != nullptr) rewriting_.inputs->rotate_runs(rows * cols_ / rewriting_.inputs->size(), out);
}

void RotatedRows::make_matrix(std::int64_t index, float* out) const {
  read_inputs(index * height_, (index + 1) * height_, out);
  if (rewriting_.outputs == nullptr) return;
  const std::int64_t turned = rewriting_.n_outputs > 0 ? rewriting_.n_outputs : height_;
  rewriting_.outputs->rotate_rows(turned / rewriting_.outputs->size(), cols_, out + rewriting_.first_output * cols_);
}

// A value for each row of the weight that it goes with.
void RotatedRows::make_bias(float* out) const {
  const Shape& shape = original_->spec().weights[rewriting_.from].shape;
  original_->read_rows(rewriting_.from, 0, shape.rows(), out);
  if (!rewriting_.plus.empty()) {
    std::vector<float> row(rewriting_.plus.size());
    for (std::int64_t r = 0; r < shape.elements(); ++r) {
      original_->read_rows(rewriting_.plus_weight, r, r + 1, row.data());
      double sum = static_cast<double>(out[r]);
      for (std::size_t c = 0; c < row.size(); ++c) sum += static_cast<double>(row[c]) * rewriting_.plus[c];
      out[r] = static_cast<float>(sum);
    }
  }
  if (rewriting_.outputs == nullptr) return;
  const std::int64_t turned = rewriting_.n_outputs > 0 ? rewriting_.n_outputs : shape.elements();
  rewriting_.outputs->rotate_runs(turned / rewriting_.outputs->size(), out + rewriting_.first_output);
}

void RotatedRows::read(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  if (bias_ && rewriting_.inputs == nullptr) {
    const MatrixCache::Values values = cache_->get(
        {this, 0}, original_->spec().weights[rewriting_.from].shape.elements(), [&](float* to) { make_bias(to); });
    std::copy(values->begin() + row_begin * cols_, values->begin() + row_end * cols_, out);
    return;
  }
  if (!whole_) return read_inputs(row_begin, row_end, out);
  while (row_begin < row_end) {
    const std::int64_t index = row_begin / height_, end = std::min(row_end, (index + 1) * height_);
    const MatrixCache::Values values =
        cache_->get({this, index}, height_ * cols_, [&](float* to) { make_matrix(index, to); });
    const auto first = values->begin() + (row_begin - index * height_) * cols_;
    out = std::copy(first, first + (end - row_begin) * cols_, out);
    row_begin = end;
  }
}

void ConstantRows::read(std::int64_t row_begin, std::int64_t row_end, float* out) const {
  std::fill_n(out, (row_end - row_begin) * original_->spec().weights[slot_].shape.cols(), value_);
}

}  // namespace nibble::transform::rotate
