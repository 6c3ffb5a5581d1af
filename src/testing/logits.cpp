#include "testing/logits.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "model/model.h"

namespace nibble::testing {

std::vector<float> logits_of(const std::shared_ptr<const model::ModelSource>& source) {
  constexpr std::uint64_t kTokens = 40;
  ThreadPool pool(2);
  CancelToken cancel;
  NullProgress progress;
  ExecContext context{pool, cancel, progress};
  const std::int64_t vocab = source->spec().vocab;
  std::vector<token::TokenId> tokens;
  for (std::uint64_t i = 0; i < kTokens; ++i)
    tokens.push_back(static_cast<token::TokenId>(random_bits(5, 0, i) % static_cast<std::uint64_t>(vocab)));
  const auto model = model::Model::load(context, source, {model::MathPath::kExact, best_isa()});
  model::KvCache cache(model->spec(), model::KvType::kF32, 1, static_cast<std::int64_t>(kTokens));
  std::vector<float> out;
  const model::Segment segment = {0, tokens, 0};
  model->forward(context, cache, {&segment, 1}, [&](std::size_t, std::int64_t, std::int64_t n, const float* logits) {
    out.insert(out.end(), logits, logits + n * vocab);
  });
  return out;
}

LogitsError compare_logits(const std::vector<float>& got, const std::vector<float>& expected) {
  if (got.size() != expected.size()) fail(ErrorCode::kInternal, "{} logits instead of {}", got.size(), expected.size());
  double square = 0, difference = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double reference = static_cast<double>(expected[i]), off = static_cast<double>(got[i]) - reference;
    square += reference * reference;
    difference += off * off;
  }
  LogitsError error;
  error.relative = std::sqrt(difference / square);
  const double scale = std::sqrt(square / static_cast<double>(expected.size()));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double reference = static_cast<double>(expected[i]), off = static_cast<double>(got[i]) - reference;
    error.worst = std::max(error.worst, std::abs(off) / (std::abs(reference) + scale));
  }
  return error;
}

}  // namespace nibble::testing
