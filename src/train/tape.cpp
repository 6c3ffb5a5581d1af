#include "train/tape.h"

#include <algorithm>

#include "base/error.h"

namespace nibble::train {

template <>
const ops::TrainingOps<float>& choose_training_ops<float>(Isa isa) {
  if (isa >= Isa::kAvx512) return ops::training_ops_avx512();
  if (isa >= Isa::kAvx2) return ops::training_ops_avx2();
  return ops::training_ops_scalar();
}
template <>
const ops::TrainingOps<double>& choose_training_ops<double>(Isa) {
  return ops::training_ops_double();
}

// The least that is large enough, unless it is far too large.
AlignedBuffer BufferPool::take(std::size_t n_bytes) {
  std::size_t best = free_.size();
  for (std::size_t i = 0; i < free_.size(); ++i) {
    const std::size_t size = free_[i].size();
    if (size < n_bytes || size > 2 * n_bytes + 4096) continue;
    if (best == free_.size() || size < free_[best].size()) best = i;
  }
  if (best == free_.size()) {
    held_ += n_bytes;
    return AlignedBuffer(n_bytes);
  }
  AlignedBuffer taken = std::move(free_[best]);
  free_[best] = std::move(free_.back());
  free_.pop_back();
  return taken;
}

void BufferPool::give(AlignedBuffer buffer) {
  if (buffer.size() > 0) free_.push_back(std::move(buffer));
}

template <typename Real>
Var Tape<Real>::add(Node node) {
  nodes_.push_back(std::move(node));
  return {static_cast<std::int32_t>(nodes_.size()) - 1};
}

template <typename Real>
Var Tape<Real>::constant(std::int64_t rows, std::int64_t cols, const Real* values) {
  return borrow(rows, cols, values, nullptr);
}

template <typename Real>
Var Tape<Real>::parameter(BasicParameter<Real>& parameter) {
  return borrow(parameter.rows, parameter.cols, parameter.values(),
                parameter.gradient.size() > 0 ? parameter.gradients() : nullptr);
}

template <typename Real>
Var Tape<Real>::borrow(std::int64_t rows, std::int64_t cols, const Real* values, Real* gradient) {
  Node node;
  node.rows = rows;
  node.cols = cols;
  node.value = values;
  node.gradient = gradient;
  node.wanted = gradient != nullptr;
  return add(std::move(node));
}

template <typename Real>
Var Tape<Real>::make(std::int64_t rows, std::int64_t cols, std::initializer_list<Var> from) {
  Node made;
  made.rows = rows;
  made.cols = cols;
  made.own_value = buffers_->take(static_cast<std::size_t>(rows * cols) * sizeof(Real));
  made.value = made.own_value.template as<Real>();
  made.wanted = std::ranges::any_of(from, [this](Var v) { return has_gradient(v); });
  return add(std::move(made));
}

template <typename Real>
void Tape<Real>::on_backward(Var out, std::function<void()> step) {
  if (node(out).wanted) node(out).step = std::move(step);
}

template <typename Real>
Real* Tape<Real>::gradient(Var v) {
  bool add = false;
  Real* out = gradient(v, add);
  if (!add) std::fill_n(out, size(v), Real{0});
  return out;
}

template <typename Real>
Real* Tape<Real>::gradient(Var v, bool& add) {
  Node& of = node(v);
  add = of.gradient != nullptr;
  if (!add) {
    of.own_gradient = buffers_->take(static_cast<std::size_t>(size(v)) * sizeof(Real));
    of.gradient = of.own_gradient.template as<Real>();
  }
  return of.gradient;
}

template <typename Real>
void Tape<Real>::backward(Var from) {
  if (!node(from).wanted) fail(ErrorCode::kInternal, "nothing that this value depends on has a gradient");
  if (node(from).gradient == nullptr) {
    if (size(from) != 1) fail(ErrorCode::kInternal, "the gradient of {} numbers is not known", size(from));
    *gradient(from) = 1;
  }
  for (std::int32_t i = from.index; i >= 0; --i) {
    Node& at = nodes_[static_cast<std::size_t>(i)];
    if (at.step && at.gradient != nullptr) at.step();
    Node& done = nodes_[static_cast<std::size_t>(i)];
    done.step = nullptr;
    if (done.own_value.size() == 0) continue;
    buffers_->give(std::move(done.own_value));
    buffers_->give(std::move(done.own_gradient));
    done.value = nullptr;
    done.gradient = nullptr;
  }
}

template <typename Real>
void Tape<Real>::clear() {
  for (Node& done : nodes_) {
    buffers_->give(std::move(done.own_value));
    buffers_->give(std::move(done.own_gradient));
  }
  nodes_.clear();
}

template class Tape<float>;
template class Tape<double>;

}  // namespace nibble::train
