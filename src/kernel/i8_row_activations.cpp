#include "kernel/i8_row_activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "encoding/activation.h"

namespace nibble::kernel {

namespace {

constexpr std::int64_t kLine = 64;

std::int64_t round_up(std::int64_t value) { return (value + kLine - 1) / kLine * kLine; }
std::int64_t sums_at(std::int64_t cols) { return round_up(cols); }
std::int64_t header_at(std::int64_t cols) { return sums_at(cols) + round_up((cols / kBlock + 1) * 4); }
std::int64_t columns_at(std::int64_t cols) { return header_at(cols) + kLine; }
std::int64_t values_at(std::int64_t cols) { return columns_at(cols) + round_up(cols * 4); }

template <bool kKept>
std::uint64_t row_bytes(std::int64_t cols) noexcept {
  const std::int64_t bytes = kKept ? values_at(cols) + round_up(cols * 4) : columns_at(cols);
  return static_cast<std::uint64_t>((bytes / kLine | 1) * kLine);
}

RowScan scan_row_scalar(const float* x, std::int64_t cols, float threshold, std::int32_t* columns, float* values) {
  RowScan scan{};
  for (std::int64_t c = 0; c < cols; ++c) {
    if (std::fabs(x[c]) < threshold) {
      scan.least = std::min(scan.least, x[c]);
      scan.largest = std::max(scan.largest, x[c]);
    } else if (columns != nullptr) {
      columns[scan.kept] = static_cast<std::int32_t>(c);
      values[scan.kept++] = x[c];
    }
  }
  return scan;
}

void round_row_scalar(const RowRounding& how, const float* x, std::int64_t cols, std::int8_t* codes,
                      std::int32_t* sums) {
  std::int32_t sum = 0;
  for (std::int64_t c = 0; c < cols; ++c) {
    if (c % kBlock == 0) *sums++ = sum;
    const bool rounded = std::fabs(x[c]) < how.threshold;
    const float level = rounded ? std::clamp(x[c] * how.inverse, how.low, how.high) : 0.0f;
    const int code = static_cast<int>(std::lrint(level)) + how.shift;
    codes[c] = static_cast<std::int8_t>(code);
    sum += code;
  }
  *sums = sum;
}

// Lists the inputs that weights keep, and copies the row to `others` with zeros for them.
const float* take_kept(const InputRounding& inputs, const float* x, std::int64_t cols, std::int32_t* columns,
                       float* values, float* others) {
  std::copy_n(x, cols, others);
  for (std::int64_t i = 0; i < inputs.kept.size(); ++i) {
    columns[i] = inputs.kept[i];
    values[i] = x[columns[i]];
    others[columns[i]] = 0;
  }
  return others;
}

template <bool kKept, ScanRow kScan, RoundRow kRound>
void quantize(const InputRounding& inputs, const float* x, std::int64_t ldx, std::int64_t n, std::int64_t cols,
              std::byte* out) noexcept {
  const encoding::ActivationInfo& info = *inputs.activation;
  const auto stride = static_cast<std::int64_t>(row_bytes<kKept>(cols));
  const float top = encoding::largest_level(info);
  RowRounding how{};
  how.threshold = info.threshold > 0 ? static_cast<float>(info.threshold) : HUGE_VALF;
  const std::int64_t kept = inputs.kept.size();
  std::vector<float> others(static_cast<std::size_t>(kept > 0 ? cols : 0));
  for (std::int64_t t = 0; t < n; ++t, out += stride) {
    auto* header = reinterpret_cast<I8RowHeader*>(out + header_at(cols));
    auto* columns = kKept ? reinterpret_cast<std::int32_t*>(out + columns_at(cols)) : nullptr;
    auto* values = kKept ? reinterpret_cast<float*>(out + values_at(cols)) : nullptr;
    const float* row = x + t * ldx;
    if (kept > 0) row = take_kept(inputs, row, cols, columns, values, others.data());
    RowScan scan{};
    if (kKept) {
      scan = kScan(row, cols, how.threshold, columns + kept, values + kept);
    } else if (!info.is_static()) {
      scan = kScan(row, cols, how.threshold, nullptr, nullptr);
    }
    const encoding::InputScale at = info.is_static() ? encoding::InputScale{inputs.scale, inputs.zero}
                                                     : encoding::input_scale(info, scan.least, scan.largest);
    how.inverse = at.scale >= kSmallestScale ? 1.0f / at.scale : 0.0f;
    how.low = info.symmetric ? -top : static_cast<float>(-at.zero);
    how.high = info.symmetric ? top : top - static_cast<float>(at.zero);
    how.shift = info.symmetric ? 0 : at.zero - (1 << (info.bits - 1));  // unsigned codes, to the middle of int8
    std::memset(out + cols, 0, static_cast<std::size_t>(sums_at(cols) - cols));
    kRound(how, row, cols, reinterpret_cast<std::int8_t*>(out), reinterpret_cast<std::int32_t*>(out + sums_at(cols)));
    *header = {at.scale, static_cast<float>(how.shift), kept + scan.kept};
  }
}

template <bool kKept>
bool rounds(const encoding::ActivationInfo& inputs) noexcept {
  return inputs.code == encoding::InputCode::kInteger && inputs.scope != encoding::InputScope::kGroup &&
         (inputs.threshold > 0) == kKept;
}

}  // namespace

const ActivationFormat kI8RowsScalar{"i8-rows/scalar", row_bytes<false>,
                                     quantize<false, scan_row_scalar, round_row_scalar>, rounds<false>, true};
const ActivationFormat kI8RowsAvx2{"i8-rows/avx2", row_bytes<false>, quantize<false, scan_row_avx2, round_row_avx2>,
                                   rounds<false>, true};
const ActivationFormat kI8RowsAvx512{"i8-rows/avx512", row_bytes<false>,
                                     quantize<false, scan_row_avx512, round_row_avx512>, rounds<false>, true};
const ActivationFormat kI8KeptRowsScalar{"i8-kept-rows/scalar", row_bytes<true>,
                                         quantize<true, scan_row_scalar, round_row_scalar>, rounds<true>, true};
const ActivationFormat kI8KeptRowsAvx2{"i8-kept-rows/avx2", row_bytes<true>,
                                       quantize<true, scan_row_avx2, round_row_avx2>, rounds<true>, true};
const ActivationFormat kI8KeptRowsAvx512{"i8-kept-rows/avx512", row_bytes<true>,
                                         quantize<true, scan_row_avx512, round_row_avx512>, rounds<true>, true};

I8Rows i8_rows(const ActivationFormat& format, const std::byte* rows, std::int64_t cols) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(rows),
          static_cast<std::int64_t>(format.row_bytes(cols)),
          sums_at(cols),
          header_at(cols),
          columns_at(cols),
          values_at(cols)};
}

}  // namespace nibble::kernel
