#include "encoding/activation.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <deque>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tensor/half.h"

namespace nibble::encoding {

namespace {

constexpr float kSmallestScale = 1e-32f;  // below it all inputs count as zero
constexpr std::int64_t kMostColumns = std::int64_t{1} << 30;

// Takes `prefix` off the front of a text.
bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

template <typename T>
bool take_number(std::string_view& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool parse(std::string_view name, ActivationInfo& info) {
  info.name = name;
  if (take(name, "fp8")) {
    info.code = InputCode::kE4m3;
  } else if (!take(name, "int") || !take_number(name, info.bits) || info.bits < 4 || info.bits > 8) {
    return false;
  }
  if (take(name, "-tensor")) {
    info.scope = InputScope::kTensor;
  } else if (take(name, "-g")) {
    info.scope = InputScope::kGroup;
    if (!take_number(name, info.group) || info.group < 1 || info.group > kMostColumns) return false;
  } else if (!take(name, "-token")) {
    return false;
  }
  const bool integers = info.code == InputCode::kInteger;
  if (integers && take(name, "-asym")) info.symmetric = false;
  if (!integers && !info.is_static()) info.powers_of_two = take(name, "-e8m0");
  if (integers && take(name, "-over") && (!take_number(name, info.threshold) || !(info.threshold > 0))) return false;
  return name.empty();
}

// Least and largest of a stretch, with 0; sixteen lanes, which the compiler keeps in vectors. Those of at least
// `threshold` in magnitude do not count.
struct Range {
  float least = 0, largest = 0;
};
Range range_of(const float* x, std::int64_t n, float threshold) noexcept {
  constexpr int kLanes = 16;
  float least[kLanes] = {}, largest[kLanes] = {};
  std::int64_t i = 0;
  const auto count = [&](float value, int lane) {
    const float counted = std::fabs(value) < threshold ? value : 0.0f;
    least[lane] = std::min(least[lane], counted);
    largest[lane] = std::max(largest[lane], counted);
  };
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) count(x[i + lane], lane);
  }
  for (; i < n; ++i) count(x[i], 0);
  return {*std::ranges::min_element(least), *std::ranges::max_element(largest)};
}

float inverse_of(float scale) noexcept { return scale >= kSmallestScale ? 1.0f / scale : 0.0f; }

float threshold_of(const ActivationInfo& info) noexcept {
  return info.threshold > 0 ? static_cast<float>(info.threshold) : HUGE_VALF;
}

void round_integers(const ActivationInfo& info, InputScale at, const float* x, std::int64_t n, float* out) noexcept {
  const float inverse = inverse_of(at.scale), top = largest_level(info), threshold = threshold_of(info);
  const auto zero = static_cast<float>(at.zero);
  const float low = info.symmetric ? -top : -zero, high = info.symmetric ? top : top - zero;
  for (std::int64_t i = 0; i < n; ++i) {
    const float rounded = std::clamp(std::nearbyint(x[i] * inverse), low, high);
    out[i] = std::fabs(x[i]) < threshold ? rounded * at.scale : x[i];
  }
}

// To E4M3; what is no number stays.
void round_floats(const ActivationInfo& info, float scale, const float* x, std::int64_t n, float* out) noexcept {
  const float top = largest_level(info);
  for (std::int64_t i = 0; i < n; ++i) {
    const float level = scale > 0 ? std::clamp(x[i] / scale, -top, top) : 0;
    out[i] = std::isfinite(x[i]) ? f8_e4m3_to_f32(f32_to_f8_e4m3(level)) * scale : x[i];
  }
}

// The least power of two that is no less; of 0 it is 0.
float power_of_two(float scale) noexcept {
  int exponent = 0;
  const float share = std::frexp(scale, &exponent);  // 0.5 to 1
  return share > 0 ? std::ldexp(1.0f, share > 0.5f ? exponent : exponent - 1) : 0;
}

std::int64_t stretch_of(const ActivationInfo& info, std::int64_t cols) noexcept {
  return info.scope == InputScope::kGroup ? info.group : cols;
}

InputScale scale_of(const InputRounding& rounding, const float* x, std::int64_t n) noexcept {
  const ActivationInfo& info = *rounding.activation;
  if (info.is_static()) return {rounding.scale, rounding.zero};
  const Range range = range_of(x, n, threshold_of(info));
  return input_scale(info, range.least, range.largest);
}

// Those that are kept count as zeros for the scale of the others.
void round_others(InputRounding rounding, const float* x, std::int64_t cols, float* out) {
  std::vector<float> kept(static_cast<std::size_t>(rounding.kept.size()));
  std::copy_n(x, cols, out);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    float& value = out[rounding.kept[static_cast<std::int64_t>(i)]];
    kept[i] = value;
    value = 0;
  }
  const ColumnList columns = std::exchange(rounding.kept, {});
  round_inputs(rounding, out, cols, out);
  for (std::size_t i = 0; i < kept.size(); ++i) out[columns[static_cast<std::int64_t>(i)]] = kept[i];
}

}  // namespace

const ActivationInfo* find_activation(std::string_view name) {
  static std::mutex mutex;
  static std::map<std::string, const ActivationInfo*, std::less<>> table;
  static std::deque<ActivationInfo> infos;
  const std::scoped_lock lock(mutex);
  if (const auto found = table.find(name); found != table.end()) return found->second;
  ActivationInfo info;
  if (!parse(name, info)) return nullptr;
  return table[std::string(name)] = &infos.emplace_back(std::move(info));
}

const ActivationInfo& get_activation(std::string_view name) {
  const ActivationInfo* info = find_activation(name);
  if (info == nullptr)
    fail(ErrorCode::kInvalidArgument,
         "no activation type '{}'; there are int{{4..8}}-{{tensor,token,gN}}[-asym][-overT], fp8-tensor, "
         "fp8-{{token,gN}}[-e8m0]",
         name);
  return *info;
}

float largest_level(const ActivationInfo& info) noexcept {
  if (info.code == InputCode::kE4m3) return 448.0f;
  return static_cast<float>(info.symmetric ? (1 << (info.bits - 1)) - 1 : (1 << info.bits) - 1);
}

InputScale input_scale(const ActivationInfo& info, float least, float largest) noexcept {
  const float top = largest_level(info);
  const float symmetric = std::max(-least, largest) / top;
  if (info.symmetric) return {info.powers_of_two ? power_of_two(symmetric) : symmetric, 0};
  const float scale = (largest - least) / top;
  return {scale, static_cast<int>(std::nearbyint(-least * inverse_of(scale)))};
}

void check_rounding(const InputRounding& rounding) {
  const ActivationInfo& info = *rounding.activation;
  if (!info.is_static()) return;
  if (!std::isfinite(rounding.scale) || rounding.scale <= 0)
    fail(ErrorCode::kFormat, "the scale of its inputs is {}, not a positive number", rounding.scale);
  const int most = info.symmetric ? 0 : static_cast<int>(largest_level(info));
  if (rounding.zero < 0 || rounding.zero > most)
    fail(ErrorCode::kFormat, "the zero point of its inputs is {}, not 0 to {}", rounding.zero, most);
}

void round_inputs(const InputRounding& rounding, const float* x, std::int64_t cols, float* out) noexcept {
  if (!rounding.kept.empty()) return round_others(rounding, x, cols, out);
  const std::int64_t stretch = stretch_of(*rounding.activation, cols);
  for (std::int64_t begin = 0; begin < cols; begin += stretch) {
    const std::int64_t n = std::min(stretch, cols - begin);
    const InputScale at = scale_of(rounding, x + begin, n);
    rounding.activation->code == InputCode::kE4m3
        ? round_floats(*rounding.activation, at.scale, x + begin, n, out + begin)
        : round_integers(*rounding.activation, at, x + begin, n, out + begin);
  }
}

void block_scales(const InputRounding& rounding, const float* x, std::int64_t cols, std::int64_t block,
                  float* scales) noexcept {
  const std::int64_t stretch = stretch_of(*rounding.activation, cols);
  for (std::int64_t begin = 0; begin < cols; begin += stretch) {
    const std::int64_t n = std::min(stretch, cols - begin);
    std::fill_n(scales + begin / block, (n + block - 1) / block, scale_of(rounding, x + begin, n).scale);
  }
}

bool has_block_scales(const ActivationInfo& info, std::int64_t block) noexcept {
  return info.code == InputCode::kInteger && info.symmetric && info.threshold == 0 &&
         info.scope == InputScope::kGroup && info.group % block == 0;
}

}  // namespace nibble::encoding
