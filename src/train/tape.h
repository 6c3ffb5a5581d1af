// Reverse-mode differentiation: values of operations in the order they were computed, each with the way back. The
// operations themselves are functions of nodes.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/cpu.h"
#include "base/exec_context.h"
#include "linalg/gemm.h"
#include "ops/training_ops.h"
#include "train/parameter.h"

namespace nibble::train {

// A value on a tape: (rows, cols) row-major.
struct Var {
  std::int32_t index = -1;
  explicit operator bool() const { return index >= 0; }
};

// The operations in f32 of an instruction set, or in f64.
template <typename Real>
const ops::TrainingOps<Real>& choose_training_ops(Isa isa);

// Memory of values that come and go, kept for the next ones of that size.
class BufferPool {
 public:
  AlignedBuffer take(std::size_t n_bytes);
  void give(AlignedBuffer buffer);
  std::size_t held_bytes() const { return held_; }  // of all buffers ever made

 private:
  std::vector<AlignedBuffer> free_;
  std::size_t held_ = 0;
};

template <typename Real>
class Tape {
 public:
  // `precision`: of the products of linears in f32.
  Tape(ExecContext& context, Isa isa, linalg::Precision precision = linalg::Precision::kF32)
      : Tape(context, choose_training_ops<Real>(isa), std::make_shared<BufferPool>(), precision) {}
  Tape(ExecContext& context, const ops::TrainingOps<Real>& ops, std::shared_ptr<BufferPool> buffers,
       linalg::Precision precision = linalg::Precision::kF32)
      : context_(context), ops_(ops), precision_(precision), buffers_(std::move(buffers)) {}
  ~Tape() { clear(); }
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  // One for a part of the graph that is computed, and gone through backwards, on its own; memory is shared.
  std::unique_ptr<Tape> nested() const { return std::make_unique<Tape>(context_, ops_, buffers_, precision_); }

  ExecContext& context() const { return context_; }
  const ops::TrainingOps<Real>& ops() const { return ops_; }
  linalg::Precision precision() const { return precision_; }

  // Numbers of the caller's, which must outlive the tape's use of them. Of a constant no gradient is asked; that of a
  // parameter is added to its own.
  Var constant(std::int64_t rows, std::int64_t cols, const Real* values);
  Var parameter(BasicParameter<Real>& parameter);
  // The same with values of another place than the parameter's own.
  Var borrow(std::int64_t rows, std::int64_t cols, const Real* values, Real* gradient);
  // The result of an operation, not yet filled in; it has a gradient if one of `from` has. What else an operation keeps
  // for the way back is made before its result: later values are gone by then.
  Var make(std::int64_t rows, std::int64_t cols, std::initializer_list<Var> from);
  // Asks for its gradient, though it is not seen what depends on it.
  void want_gradient(Var v) { node(v).wanted = true; }
  // What adds to the gradients of the operation's inputs once that of `out` is known. Left out where `out` has none.
  void on_backward(Var out, std::function<void()> step);

  std::int64_t rows(Var v) const { return node(v).rows; }
  std::int64_t cols(Var v) const { return node(v).cols; }
  std::int64_t size(Var v) const { return rows(v) * cols(v); }
  const Real* value(Var v) const { return node(v).value; }
  Real* mutable_value(Var v) { return const_cast<Real*>(node(v).value); }
  bool has_gradient(Var v) const { return v && node(v).wanted; }
  // Zeros, unless something was added already.
  Real* gradient(Var v);
  // For an operation that can write as well as add: `add` tells which; all numbers must be written.
  Real* gradient(Var v, bool& add);

  // Goes back from `from`, whose gradient is 1 (of one number) or what gradient() was filled with. Values and gradients
  // of the operations are gone afterwards, those of borrowed numbers and parameters stay.
  void backward(Var from);
  void clear();
  // Bytes of work memory of this tape and those it was nested in, at most so far.
  std::size_t memory_bytes() const { return buffers_->held_bytes(); }

 private:
  struct Node {
    std::int64_t rows = 0, cols = 0;
    const Real* value = nullptr;
    Real* gradient = nullptr;
    AlignedBuffer own_value, own_gradient;
    bool wanted = false;  // is a gradient asked for?
    std::function<void()> step;
  };
  Node& node(Var v) { return nodes_[static_cast<std::size_t>(v.index)]; }
  const Node& node(Var v) const { return nodes_[static_cast<std::size_t>(v.index)]; }
  Var add(Node node);

  ExecContext& context_;
  const ops::TrainingOps<Real>& ops_;
  linalg::Precision precision_;
  std::shared_ptr<BufferPool> buffers_;
  std::vector<Node> nodes_;
};

extern template class Tape<float>;
extern template class Tape<double>;

}  // namespace nibble::train
