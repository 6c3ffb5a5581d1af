#include "train/loss_curve.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <string>
#include <string_view>

#include "base/atomic_file.h"
#include "base/error.h"

namespace nibble::train {

namespace {

constexpr std::string_view kHeader = "step,tokens,lr,loss,gradient_norm,tokens_per_s,held_out_loss";
constexpr std::size_t kColumns = 7;

template <typename Number>
Number parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail(ErrorCode::kFormat, "'{}' is no number", text);
  }
  return value;
}

LossRow parse_row(std::string_view line) {
  std::array<std::string_view, kColumns> fields;
  std::size_t n = 0;
  for (std::size_t begin = 0; begin <= line.size(); ++n) {
    const std::size_t end = std::min(line.find(',', begin), line.size());
    if (n < kColumns) fields[n] = line.substr(begin, end - begin);
    begin = end + 1;
  }
  if (n != kColumns) fail(ErrorCode::kFormat, "{} fields instead of {}", n, kColumns);
  LossRow row{parse_number<std::int64_t>(fields[0]), parse_number<std::int64_t>(fields[1]),
              parse_number<double>(fields[2]),       parse_number<double>(fields[3]),
              parse_number<double>(fields[4]),       parse_number<double>(fields[5])};
  if (!fields[6].empty()) row.held_out_loss = parse_number<double>(fields[6]);
  return row;
}

std::string line_of(const LossRow& row) {
  return format_text("{},{},{},{},{},{:.1f},{}\n", row.step, row.tokens, row.lr, row.loss, row.gradient_norm,
                     row.tokens_per_s, row.held_out_loss ? format_text("{}", *row.held_out_loss) : "");
}

}  // namespace

std::vector<LossRow> read_loss_curve(const std::filesystem::path& path) {
  return with_context(format_text("'{}'", path.string()), [&] {
    const std::string content = read_file(path);
    std::vector<LossRow> rows;
    std::int64_t number = 1;
    std::size_t begin = 0;
    for (std::size_t end; (end = content.find('\n', begin)) != std::string::npos; begin = end + 1, ++number) {
      const std::string_view line = std::string_view(content).substr(begin, end - begin);
      with_context(format_text("line {}", number), [&] {
        if (number > 1) {
          rows.push_back(parse_row(line));
        } else if (line != kHeader) {
          fail(ErrorCode::kFormat, "is not '{}'", kHeader);
        }
      });
    }
    if (number == 1) fail(ErrorCode::kFormat, "is no table of losses");
    return rows;
  });
}

LossCurve::LossCurve(const std::filesystem::path& path, std::int64_t taken) : path_(path) {
  std::string content = std::string(kHeader) + "\n";
  if (taken > 0 && std::filesystem::exists(path)) {
    for (const LossRow& row : read_loss_curve(path)) {
      if (row.step <= taken) content += line_of(row);
    }
  }
  write_file_atomically(path, content);
  file_.open(path, std::ios::app | std::ios::binary);
  if (!file_) fail_errno(format_text("cannot write '{}'", path.string()), errno);
}

void LossCurve::append(const LossRow& row) {
  file_ << line_of(row) << std::flush;
  if (!file_) fail_errno(format_text("cannot write '{}'", path_.string()), errno);
}

std::vector<LossRow> thin_rows(const std::vector<LossRow>& rows, std::size_t most) {
  if (most == 0 || rows.size() <= most) return rows;
  std::vector<LossRow> thin;
  for (std::size_t part = 0; part < most; ++part) {
    const std::size_t begin = rows.size() * part / most, end = rows.size() * (part + 1) / most;
    LossRow mean = rows[end - 1];  // its step and tokens
    mean.lr = mean.loss = mean.gradient_norm = mean.tokens_per_s = 0;
    double held_out = 0;
    int n_held_out = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const double share = 1 / static_cast<double>(end - begin);
      mean.lr += rows[i].lr * share;
      mean.loss += rows[i].loss * share;
      mean.gradient_norm += rows[i].gradient_norm * share;
      mean.tokens_per_s += rows[i].tokens_per_s * share;
      if (rows[i].held_out_loss) held_out += *rows[i].held_out_loss, ++n_held_out;
    }
    mean.held_out_loss.reset();
    if (n_held_out > 0) mean.held_out_loss = held_out / n_held_out;
    thin.push_back(mean);
  }
  return thin;
}

}  // namespace nibble::train
