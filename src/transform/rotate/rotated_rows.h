// The weights of a rotated model, made of the original's when they are read.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "model/source.h"
#include "transform/rotate/rotation.h"

namespace nibble::transform::rotate {

// Matrices that were asked for last, as many as fit into `limit_bytes`; from any thread.
class MatrixCache {
 public:
  using Key = std::pair<const void*, std::int64_t>;  // whose, matrix of its stack
  using Values = std::shared_ptr<const std::vector<float>>;
  explicit MatrixCache(std::uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  // The matrix of `n` numbers under that key; `make` fills it in if it is not held. Others who want it wait.
  Values get(const Key& key, std::int64_t n, const std::function<void(float*)>& make);
  void forget(const void* whose);

 private:
  struct Item {
    Key key;
    std::uint64_t bytes;
    std::once_flag once;
    std::vector<float> values;
  };
  std::shared_ptr<Item> find(const Key& key, std::int64_t n);
  std::mutex mutex_;
  std::list<std::shared_ptr<Item>> items_;  // that was asked for last first
  std::uint64_t bytes_ = 0, limit_bytes_;
};

// What becomes of one weight, in this order.
struct Rewriting {
  std::size_t from = 0;                          // its slot in the original
  std::vector<float> factors;                    // of the columns of a matrix, the values of a vector; empty: none
  std::size_t plus_weight = 0;                   // of a bias: the product of that weight with a vector is added
  std::vector<float> plus;                       // that vector; empty: none
  std::shared_ptr<const Rotation> inputs;        // of each run of the numbers of a row; null: none
  std::shared_ptr<const Rotation> outputs;       // of each run of rows, of a bias of values; null: none
  std::int64_t first_output = 0, n_outputs = 0;  // that it turns, of each matrix of a stack; 0: all
  bool changes() const { return !factors.empty() || !plus.empty() || inputs != nullptr || outputs != nullptr; }
};

class RotatedRows final : public model::MadeRows {
 public:
  RotatedRows(std::shared_ptr<const model::ModelSource> original, Rewriting rewriting,
              std::shared_ptr<MatrixCache> cache);
  const model::StoredRows& origin() const override { return original_->weight(rewriting_.from); }
  void read(std::int64_t row_begin, std::int64_t row_end, float* out) const override;
  void forget() const override { cache_->forget(this); }

 private:
  void read_inputs(std::int64_t row_begin, std::int64_t row_end, float* out) const;  // all but what outputs become
  void make_matrix(std::int64_t index, float* out) const;
  void make_bias(float* out) const;
  std::shared_ptr<const model::ModelSource> original_;
  Rewriting rewriting_;
  std::shared_ptr<MatrixCache> cache_;
  std::int64_t height_, cols_;  // of a matrix
  bool bias_, whole_;           // whole_: a row cannot be made without the others of its matrix, or not cheaply
};

// One number everywhere.
class ConstantRows final : public model::MadeRows {
 public:
  ConstantRows(std::shared_ptr<const model::ModelSource> original, std::size_t slot, float value)
      : original_(std::move(original)), slot_(slot), value_(value) {}
  const model::StoredRows& origin() const override { return original_->weight(slot_); }
  void read(std::int64_t row_begin, std::int64_t row_end, float* out) const override;

 private:
  std::shared_ptr<const model::ModelSource> original_;
  std::size_t slot_;
  float value_;
};

}  // namespace nibble::transform::rotate
