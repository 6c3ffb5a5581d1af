#include "calib/statistics_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "calib/statistics_header.h"
#include "encoding/encoding.h"

namespace nibble::calib {

namespace {

constexpr double kSameModel = 0.9;  // least cosine of two probes; quantizing to 4 bits leaves 0.99

template <typename T>
std::span<const std::byte> bytes_of(std::span<const T> values) {
  return std::as_bytes(values);
}

// Each input counts the same, whatever the size of its weights.
double probe_cosine(std::span<const float> a, std::span<const float> b) {
  double cosines = 0, inputs = 0;
  for (std::size_t begin = 0; begin + kProbe <= a.size(); begin += kProbe) {
    double aa = 0, bb = 0, ab = 0;
    for (std::size_t i = begin; i < begin + kProbe; ++i) {
      aa += static_cast<double>(a[i]) * static_cast<double>(a[i]);
      bb += static_cast<double>(b[i]) * static_cast<double>(b[i]);
      ab += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    }
    if (aa == 0 && bb == 0) continue;
    inputs += 1;
    if (aa > 0 && bb > 0) cosines += ab / std::sqrt(aa * bb);
  }
  return inputs > 0 ? cosines / inputs : 1;
}

void check_probes(std::span<const float> a, std::string_view what, std::span<const float> b,
                  std::string_view other_what) {
  const double cosine = probe_cosine(a, b);
  if (cosine >= kSameModel) return;
  fail(ErrorCode::kInvalidArgument, "{} and {} are of models with other weights (their likeness is {:.3f})", what,
       other_what, cosine);
}

}  // namespace

std::string text_hash(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return format_text("{:016x}", hash);
}

void check_same_model(const StatisticsHeader& header, std::string_view what, const StatisticsHeader& other,
                      std::string_view other_what) {
  if (header.architecture != other.architecture) {
    fail(ErrorCode::kInvalidArgument, "{} is of the architecture {}, {} of {}", what, header.architecture, other_what,
         other.architecture);
  }
  if (header.kinds != other.kinds) {
    fail(ErrorCode::kInvalidArgument, "{} holds the statistics {}, {} {}", what, statistics_kinds_text(header.kinds),
         other_what, statistics_kinds_text(other.kinds));
  }
  const auto [here, there] = std::ranges::mismatch(header.inputs, other.inputs);
  if (here != header.inputs.end() && there != other.inputs.end()) {
    fail(ErrorCode::kInvalidArgument, "{} and {} are of models of other shapes: '{}' ({} x {}) and '{}' ({} x {})",
         what, other_what, here->name, here->matrices, here->cols, there->name, there->matrices, there->cols);
  }
  if (header.inputs.size() != other.inputs.size()) {
    fail(ErrorCode::kInvalidArgument, "{} has statistics of {} inputs, {} of {}", what, header.inputs.size(),
         other_what, other.inputs.size());
  }
  check_probes(header.probe, what, other.probe, other_what);
}

StatisticsWriter::StatisticsWriter(const std::filesystem::path& path, const StatisticsHeader& header)
    : kinds_(header.kinds), writer_(container::create_safetensors(path, to_metadata(header), planned_tensors(header))) {
  writer_->write(header.inputs.size() * tensors_per_input(kinds_), 0, bytes_of(std::span(header.probe)));
}

void StatisticsWriter::write_gram(std::size_t tensor, const InputMoments& moments) {
  const std::int64_t cols = moments.cols();
  std::vector<float> triangle(static_cast<std::size_t>(cols * (cols + 1) / 2));
  for (std::int64_t m = 0; m < moments.n_matrices(); ++m) {
    float* out = triangle.data();
    for (std::int64_t row = 0; row < cols; ++row) out = std::copy_n(moments.gram(m).data() + row * cols, row + 1, out);
    writer_->write(tensor, static_cast<std::uint64_t>(m) * triangle.size() * sizeof(float),
                   bytes_of(std::span<const float>(triangle)));
  }
}

void StatisticsWriter::write(std::size_t input, const InputMoments& train, const InputMoments& held_out) {
  std::size_t tensor = input * tensors_per_input(kinds_);
  const auto write_counts = [&](const InputMoments& moments) {
    std::vector<std::int64_t> counts;
    for (std::int64_t m = 0; m < moments.n_matrices(); ++m) counts.push_back(moments.count(m));
    writer_->write(tensor++, 0, bytes_of(std::span<const std::int64_t>(counts)));
  };
  write_counts(train);
  if (kinds_.gram) write_gram(tensor++, train);
  if (kinds_.held_out) {
    write_counts(held_out);
    write_gram(tensor++, held_out);
  }
  if (!kinds_.ranges) return;
  const auto write_lines = [&](auto line) {
    const auto cols = static_cast<std::uint64_t>(train.cols());
    for (std::int64_t m = 0; m < train.n_matrices(); ++m)
      writer_->write(tensor, static_cast<std::uint64_t>(m) * cols * sizeof(float), bytes_of((train.*line)(m)));
    ++tensor;
  };
  write_lines(&InputMoments::mean_square);
  write_lines(&InputMoments::mean_abs);
  write_lines(&InputMoments::max_abs);
}

StatisticsFile::StatisticsFile(const std::filesystem::path& path) : reader_(container::open(path)) {
  with_context(format_text("statistics '{}'", path.string()), [&] {
    if (reader_->kind() != container::Kind::kSafetensors)
      fail(ErrorCode::kFormat, "this is a {}; statistics are a safetensors file",
           container::kind_name(reader_->kind()));
    header_ = from_metadata(reader_->metadata());
    for (const container::PlannedTensor& planned : planned_tensors(header_)) {
      const container::TensorEntry* entry = reader_->find(planned.name);
      if (entry == nullptr) fail(ErrorCode::kFormat, "there is no tensor '{}'", planned.name);
      if (entry->view.encoding != planned.encoding || entry->view.shape != planned.shape) {
        fail(ErrorCode::kFormat, "tensor '{}' is {} {}, and should be {} {}", planned.name, entry->view.encoding->name,
             entry->view.shape.to_string(), planned.encoding->name, planned.shape.to_string());
      }
    }
  });
  header_.probe = floats("probe", true);
}

std::optional<std::size_t> StatisticsFile::find(std::string_view slot) const {
  for (std::size_t i = 0; i < header_.inputs.size(); ++i) {
    if (std::ranges::find(header_.inputs[i].slots, slot) != header_.inputs[i].slots.end()) return i;
  }
  return std::nullopt;
}

std::vector<float> StatisticsFile::floats(const std::string& tensor, bool negative) const {
  const container::TensorEntry& entry = reader_->at(tensor);
  std::vector<float> values(static_cast<std::size_t>(entry.view.shape.elements()));
  std::memcpy(values.data(), entry.view.data().data(), values.size() * sizeof(float));
  reader_->drop(entry);
  for (const float value : values) {
    if (std::isfinite(value) && (negative || value >= 0)) continue;
    fail(ErrorCode::kFormat, "statistics '{}': tensor '{}' holds {}", path().string(), tensor, value);
  }
  return values;
}

std::vector<std::int64_t> StatisticsFile::counts(const std::string& tensor) const {
  const container::TensorEntry& entry = reader_->at(tensor);
  std::vector<std::int64_t> values(static_cast<std::size_t>(entry.view.shape.elements()));
  std::memcpy(values.data(), entry.view.data().data(), values.size() * sizeof(std::int64_t));
  for (const std::int64_t value : values) {
    if (value >= 0 && value < (std::int64_t{1} << 48)) continue;
    fail(ErrorCode::kFormat, "statistics '{}': tensor '{}' counts {} tokens", path().string(), tensor, value);
  }
  return values;
}

AlignedBuffer StatisticsFile::gram(const std::string& tensor, std::int64_t matrices, std::int64_t cols) const {
  const std::vector<float> triangles = floats(tensor, true);
  AlignedBuffer out(static_cast<std::size_t>(matrices * cols * cols) * sizeof(float));
  const float* next = triangles.data();
  for (std::int64_t m = 0; m < matrices; ++m) {
    float* square = out.as<float>() + m * cols * cols;
    for (std::int64_t row = 0; row < cols; ++row) {
      for (std::int64_t col = 0; col <= row; ++col) square[row * cols + col] = square[col * cols + row] = *next++;
      if (square[row * cols + row] >= 0) continue;
      fail(ErrorCode::kFormat, "statistics '{}': tensor '{}' has {} for the mean square of column {}", path().string(),
           tensor, square[row * cols + row], row);
    }
  }
  return out;
}

InputMoments StatisticsFile::train(std::size_t input) const {
  const StatisticsInput& of = header_.inputs[input];
  InputMoments::Means means;
  if (header_.kinds.gram) means.gram = gram(of.name + ".gram", of.matrices, of.cols);
  if (header_.kinds.ranges) {
    means.mean_square = floats(of.name + ".mean_square", false);
    means.mean_abs = floats(of.name + ".mean_abs", false);
    means.max_abs = floats(of.name + ".max_abs", false);
  } else {
    for (std::int64_t i = 0; i < of.matrices * of.cols; ++i)
      means.mean_square.push_back(means.gram.as<float>()[i * of.cols + i % of.cols]);
  }
  return InputMoments::of_means(of.cols, counts(of.name + ".tokens"), std::move(means));
}

InputMoments StatisticsFile::held_out(std::size_t input) const {
  if (!header_.kinds.held_out) return {};
  const StatisticsInput& of = header_.inputs[input];
  InputMoments::Means means;
  means.gram = gram(of.name + ".held_out_gram", of.matrices, of.cols);
  return InputMoments::of_means(of.cols, counts(of.name + ".held_out_tokens"), std::move(means));
}

std::vector<float> probe_of(const model::ModelSource& source, const std::vector<StatisticsInput>& inputs) {
  const std::vector<model::WeightSlot>& weights = source.spec().weights;
  std::vector<float> probe(inputs.size() * kProbe);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto slot = std::ranges::find(weights, inputs[i].slots.at(0), &model::WeightSlot::gguf_name);
    if (slot == weights.end()) continue;
    std::vector<float> row(static_cast<std::size_t>(slot->shape.cols()));
    source.read_rows(static_cast<std::size_t>(slot - weights.begin()), 0, 1, row.data());
    std::copy_n(row.begin(), std::min<std::size_t>(row.size(), kProbe),
                probe.begin() + static_cast<std::ptrdiff_t>(i * kProbe));
  }
  return probe;
}

void check_source(const StatisticsFile& file, const model::ModelSource& source) {
  const std::string what = "statistics '" + file.path().string() + "'", model = source.reader().path().string();
  const StatisticsHeader& header = file.header();
  if (header.architecture != source.spec().arch) {
    fail(ErrorCode::kInvalidArgument, "{} are of the architecture {}, {} is of {}", what, header.architecture, model,
         source.spec().arch);
  }
  for (const StatisticsInput& input : header.inputs) {
    for (const std::string& name : input.slots) {
      const auto slot = std::ranges::find(source.spec().weights, name, &model::WeightSlot::gguf_name);
      if (slot == source.spec().weights.end())
        fail(ErrorCode::kInvalidArgument, "{} are of a model with '{}', which {} has not", what, name, model);
      const std::int64_t matrices = slot->shape.rank() == 3 ? slot->shape[0] : 1;
      if (matrices == input.matrices && slot->shape.cols() == input.cols) continue;
      fail(ErrorCode::kInvalidArgument, "{} are of a model whose '{}' has {} columns ({} matrices); in {} it is {}",
           what, name, input.cols, input.matrices, model, slot->shape.to_string());
    }
  }
  check_probes(header.probe, what, probe_of(source, header.inputs), model);
}

}  // namespace nibble::calib
