#include "eval/logits_file.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/error.h"

namespace nibble::eval {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr double kDepth = 16;  // nats below the largest that a level can reach
constexpr double kLevels = 65535;

template <typename T>
void append(std::vector<std::byte>& out, const T* values, std::size_t n) {
  const auto* bytes = reinterpret_cast<const std::byte*>(values);
  out.insert(out.end(), bytes, bytes + n * sizeof(T));
}

std::vector<std::byte> header(const calib::TokenChunks& chunks, std::int64_t vocab) {
  std::vector<std::byte> out;
  append(out, "_logits_", 8);
  for (const std::int64_t value : {chunks.context, vocab, chunks.n_chunks}) {
    if (value > std::numeric_limits<std::int32_t>::max()) {
      fail(ErrorCode::kInvalidArgument, "{} is more than a file of log-probabilities can state", value);
    }
    const auto narrow = static_cast<std::int32_t>(value);
    append(out, &narrow, 1);
  }
  static_assert(sizeof(token::TokenId) == 4);
  append(out, chunks.tokens.data(), chunks.tokens.size());
  return out;
}

}  // namespace

LogitsFile::LogitsFile(const std::filesystem::path& path, const calib::TokenChunks& chunks, std::int64_t vocab)
    : file_(path), vocab_(vocab) {
  if (chunks.protocol != calib::Protocol::kLlamaCpp) {
    fail(ErrorCode::kInvalidArgument, "a file of log-probabilities holds the second halves of chunks: protocol {} only",
         calib::protocol_name(calib::Protocol::kLlamaCpp));
  }
  const std::vector<std::byte> head = header(chunks, vocab);
  header_bytes_ = head.size();
  row_bytes_ = 2 * sizeof(float) + static_cast<std::uint64_t>((vocab + 1) / 2 * 2) * sizeof(std::uint16_t);
  file_.reserve(header_bytes_ + static_cast<std::uint64_t>(chunks.scored()) * row_bytes_);
  file_.write_at(0, head);
}

void LogitsFile::write_row(std::int64_t index, const float* logits, double log_sum) {
  const auto [smallest, largest] = std::minmax_element(logits, logits + vocab_);
  const double floor = std::max<double>(*smallest, *largest - kDepth);
  const double per_nat = *largest > floor ? kLevels / (*largest - floor) : 0;
  const float terms[2] = {static_cast<float>((*largest - floor) / kLevels), static_cast<float>(floor - log_sum)};
  std::vector<std::byte> row(row_bytes_);
  std::memcpy(row.data(), terms, sizeof terms);
  std::byte* out = row.data() + sizeof terms;
  for (std::int64_t i = 0; i < vocab_; ++i, out += sizeof(std::uint16_t)) {
    const auto level = static_cast<std::uint16_t>(std::lround(std::max(logits[i] - floor, 0.0) * per_nat));
    std::memcpy(out, &level, sizeof level);
  }
  file_.write_at(header_bytes_ + static_cast<std::uint64_t>(index) * row_bytes_, row);
}

}  // namespace nibble::eval
