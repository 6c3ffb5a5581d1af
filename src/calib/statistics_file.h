// Statistics of what flows into the linears of a model, in a safetensors file: written input by input, merged, read
// again one input at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "calib/input_moments.h"
#include "container/checkpoint.h"
#include "model/source.h"

namespace nibble::calib {

// What is kept of each input.
struct StatisticsKinds {
  bool gram = false;      // mean of x xᵀ
  bool held_out = false;  // the same of sequences kept apart, to judge by
  bool ranges = false;    // mean x², mean |x|, max |x|

  bool operator==(const StatisticsKinds&) const = default;
};
// "gram,held-out,ranges" in any order. Throws Error{kInvalidArgument} for another word, none at all, or held-out
// without gram.
StatisticsKinds parse_statistics_kinds(std::string_view text);
std::string statistics_kinds_text(const StatisticsKinds& kinds);

// What linears that share an input multiply.
struct StatisticsInput {
  std::string name;           // of its tensors in the file: the first linear's, in Hugging Face's names
  int layer = -1;             // -1: the head
  std::int64_t matrices = 1;  // of a stack of experts or heads
  std::int64_t cols = 0;
  std::vector<std::string> weights;  // of the linears: Hugging Face's names
  std::vector<std::string> slots;    // and GGUF's, which tell them all apart

  bool operator==(const StatisticsInput&) const = default;
};

struct StatisticsText {
  std::string name, hash;  // text_hash() of its bytes
  std::int64_t tokens = 0, context = 0;

  bool operator==(const StatisticsText&) const = default;
};

inline constexpr std::int64_t kProbe = 8;  // weights of each input that tell one model from another

struct StatisticsHeader {
  std::string architecture, model;
  StatisticsKinds kinds;
  std::vector<StatisticsInput> inputs;  // in order of evaluation
  std::vector<StatisticsText> texts;
  std::vector<float> probe;  // (inputs, kProbe): the first weights of the first linear of each

  std::int64_t tokens() const;
  std::uint64_t data_bytes() const;  // of all tensors in the file
};

// FNV-1a of 64 bits as 16 hexadecimal digits.
std::string text_hash(std::string_view text);

// Throws Error{kInvalidArgument}, naming both, where the statistics are not of the same inputs, of the same kinds, or
// of another model's weights. `what` and `other_what` are the names for messages.
void check_same_model(const StatisticsHeader& header, std::string_view what, const StatisticsHeader& other,
                      std::string_view other_what);

// The file appears whole in commit() or not at all.
class StatisticsWriter {
 public:
  StatisticsWriter(const std::filesystem::path& path, const StatisticsHeader& header);
  // Each input once. `held_out` may be without matrices where its kind is not kept.
  void write(std::size_t input, const InputMoments& train, const InputMoments& held_out);
  std::uint64_t file_bytes() const { return writer_->file_bytes(); }
  void commit() { writer_->commit(); }

 private:
  void write_gram(std::size_t tensor, const InputMoments& moments);
  StatisticsKinds kinds_;
  std::unique_ptr<container::CheckpointWriter> writer_;
};

// Immutable; data is mapped and read as it is asked for.
class StatisticsFile {
 public:
  // Throws Error naming the file for one that is no such file, and for tensors that are missing or of another shape.
  explicit StatisticsFile(const std::filesystem::path& path);
  const std::filesystem::path& path() const { return reader_->path(); }
  const StatisticsHeader& header() const { return header_; }
  std::optional<std::size_t> find(std::string_view slot) const;  // the input of that linear, by GGUF's name
  // These throw Error{kFormat} naming file and tensor for counts that are negative and numbers that are NaN, infinite
  // or, where they cannot be, negative. Without `ranges` the mean squares are the gram's diagonal.
  InputMoments train(std::size_t input) const;
  InputMoments held_out(std::size_t input) const;  // without matrices where its kind is not kept

 private:
  std::vector<float> floats(const std::string& tensor, bool negative) const;
  std::vector<std::int64_t> counts(const std::string& tensor) const;
  AlignedBuffer gram(const std::string& tensor, std::int64_t matrices, std::int64_t cols) const;
  std::unique_ptr<container::CheckpointReader> reader_;
  StatisticsHeader header_;
};

// Throws as check_same_model() does where the statistics are of another model than `source`.
void check_source(const StatisticsFile& file, const model::ModelSource& source);
// The probe of a model for such inputs.
std::vector<float> probe_of(const model::ModelSource& source, const std::vector<StatisticsInput>& inputs);

}  // namespace nibble::calib
