#include "eval/tensor_error.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "encoding/encoding.h"

namespace nibble::eval {

namespace {

using model::ModelSource;
using model::WeightSlot;

constexpr std::int64_t kRowsPerTask = 64;

struct Sums {
  double squares = 0;  // of the reference
  double other = 0;    // of the candidate
  double products = 0;
  double differences = 0;  // squared
  double max_abs = 0;

  void add(const Sums& rhs) {
    squares += rhs.squares;
    other += rhs.other;
    products += rhs.products;
    differences += rhs.differences;
    max_abs = std::max(max_abs, rhs.max_abs);
  }
};

Sums compare(const float* w, const float* q, std::int64_t n) {
  Sums sums;
  for (std::int64_t i = 0; i < n; ++i) {
    const double a = w[i];
    const double b = q[i];
    const double difference = a - b;
    sums.squares += a * a;
    sums.other += b * b;
    sums.products += a * b;
    sums.differences += difference * difference;
    sums.max_abs = std::max(sums.max_abs, std::abs(difference));
  }
  return sums;
}

Sums compare_slots(ExecContext& context, const ModelSource& reference, std::size_t slot, const ModelSource& candidate,
                   std::size_t other_slot) {
  const Shape& shape = reference.spec().weights[slot].shape;
  const std::int64_t cols = shape.cols();
  const std::int64_t rows = shape.elements() / std::max<std::int64_t>(cols, 1);
  std::vector<Sums> parts(static_cast<std::size_t>((rows + kRowsPerTask - 1) / kRowsPerTask));
  context.pool.parallel_dynamic(static_cast<std::int64_t>(parts.size()), [&](std::int64_t task) {
    const std::int64_t begin = task * kRowsPerTask;
    const std::int64_t end = std::min(rows, begin + kRowsPerTask);
    const auto n = static_cast<std::size_t>((end - begin) * cols);
    std::vector<float> w(n), q(n);
    reference.read_rows(slot, begin, end, w.data());
    candidate.read_rows(other_slot, begin, end, q.data());
    parts[static_cast<std::size_t>(task)] = compare(w.data(), q.data(), static_cast<std::int64_t>(n));
  });
  Sums total;
  for (const Sums& part : parts) total.add(part);
  return total;
}

TensorError to_error(const WeightSlot& slot, const container::TensorEntry* entry, const Sums& sums) {
  TensorError error;
  error.name = slot.hf_name;
  error.elements = slot.shape.elements();
  if (entry != nullptr) {
    error.encoding = entry->view.encoding->name;
    error.n_bytes = entry->view.n_bytes();
  }
  if (sums.differences > 0) {
    error.relative_mse = sums.squares > 0 ? sums.differences / sums.squares : std::numeric_limits<double>::infinity();
  }
  error.snr_db = -10 * std::log10(error.relative_mse);
  const double norm = std::sqrt(sums.squares * sums.other);
  error.cosine = norm > 0 ? sums.products / norm : (sums.differences > 0 ? 0.0 : 1.0);
  error.max_abs = sums.max_abs;
  return error;
}

}  // namespace

std::vector<TensorError> tensor_errors(ExecContext& context, const ModelSource& reference,
                                       const ModelSource& candidate) {
  const model::ModelSpec& spec = candidate.spec();
  std::vector<TensorError> errors;
  ProgressTask progress(context.progress, "compare weights", spec.parameters(), "weights");
  for (std::size_t slot = 0; slot < spec.weights.size(); ++slot) {
    context.check_cancelled();
    const WeightSlot& weight = spec.weights[slot];
    const WeightSlot* other = reference.spec().find(weight.role, weight.layer, weight.bias);
    if (other == nullptr && weight.role == model::Role::kOutput) {  // untied by the candidate
      other = reference.spec().find(model::Role::kTokenEmbedding, -1);
    }
    if (other == nullptr) fail(ErrorCode::kInvalidArgument, "the reference has no weight '{}'", weight.hf_name);
    if (!(other->shape == weight.shape)) {
      fail(ErrorCode::kInvalidArgument, "weight '{}' is {}, in the reference {}", weight.hf_name,
           weight.shape.to_string(), other->shape.to_string());
    }
    const auto other_slot = static_cast<std::size_t>(other - reference.spec().weights.data());
    const Sums sums = compare_slots(context, reference, other_slot, candidate, slot);
    errors.push_back(to_error(weight, candidate.weight(slot).entry, sums));
    progress.add(static_cast<std::uint64_t>(weight.shape.elements()));
  }
  return errors;
}

json::Value to_json(const std::vector<TensorError>& errors) {
  json::Array array;
  for (const TensorError& error : errors) {
    json::Value item;
    item.set("name", error.name);
    item.set("encoding", error.encoding);
    item.set("elements", error.elements);
    item.set("bytes", error.n_bytes);
    item.set("relative_mse", error.relative_mse);
    item.set("snr_db", error.snr_db);
    item.set("cosine", error.cosine);
    item.set("max_abs", error.max_abs);
    array.push_back(std::move(item));
  }
  return array;
}

std::string to_table(const std::vector<TensorError>& errors) {
  std::size_t width = 6;
  for (const TensorError& error : errors) width = std::max(width, error.name.size());
  std::string table = format_text("{:<{}}  {:<10} {:>13} {:>8} {:>11} {:>10}\n", "tensor", width, "encoding",
                                  "relative MSE", "SNR dB", "cosine", "max error");
  for (const TensorError& error : errors) {
    table += format_text("{:<{}}  {:<10} {:>13.4e} {:>8.2f} {:>11.8f} {:>10.3e}\n", error.name, width, error.encoding,
                         error.relative_mse, error.snr_db, error.cosine, error.max_abs);
  }
  return table;
}

}  // namespace nibble::eval
