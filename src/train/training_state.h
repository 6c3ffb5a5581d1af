// A training run's state in one file, exact to the bit: what it stands at, what it was asked for, parameters,
// optimizer.
//
// The file is a safetensors file. Its __metadata__ holds "format" "nibble-training-state", "version" "1", "header", a
// JSON object {run, texts, sums} (sums: of each tensor, in hexadecimal), and "header_sum", the checksum of that text.
// Checksums are XXH64.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/exec_context.h"
#include "container/checkpoint.h"
#include "json/json.h"
#include "train/stream_position.h"

namespace nibble::train {

struct RunState {
  std::int64_t step = 0;         // steps taken
  StreamPosition position = {};  // of the example that comes next
  std::int64_t tokens = 0;       // seen so far
  std::uint64_t seed = 0;        // of everything random
  json::Object settings = {};    // what decides about the numbers of the run: name -> number, text or boolean
};

// Collects parts, then writes them. Names are unique; bytes are borrowed until write() has returned.
class StateWriter {
 public:
  void add(std::string name, std::span<const std::byte> bytes);  // u8 in the file
  void add(std::string name, std::span<const float> values);     // f32 in the file
  void add_text(std::string_view name, std::string_view text);   // a short one
  // Under its name only when it is complete and on disk; until then, and after a kill, what was there before stays.
  // Throws Error{kIo}, Error{kCancelled}.
  void write(ExecContext& context, const std::filesystem::path& path, const RunState& run) const;

 private:
  struct Part {
    std::string name;
    std::string_view dtype;  // an encoding's name
    std::span<const std::byte> bytes;
  };
  std::vector<Part> parts_;
  json::Object texts_;
};

// An opened state: everything in it has been checked against its checksums. Errors name file, part and offset.
class StateReader {
 public:
  // Throws Error{kNotFound, kIo}, Error{kFormat} for a file that is none, cut off or damaged, Error{kUnsupported} for a
  // version that is not known.
  StateReader(ExecContext& context, const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const RunState& run() const { return run_; }
  std::vector<std::string_view> names() const;  // of the parts
  bool contains(std::string_view name) const;
  // The bytes of a part, valid as long as the reader; throws Error{kFormat} when there is none.
  std::span<const std::byte> bytes(std::string_view name) const;
  // A copy into `out`; throws Error{kFormat} when the part is missing or has another size.
  void read(std::string_view name, std::span<std::byte> out) const;
  void read(std::string_view name, std::span<float> out) const { read(name, std::as_writable_bytes(out)); }
  const std::string& text(std::string_view name) const;
  std::int64_t count(std::string_view name) const;  // a text that is a number >= 0
  // Throws Error{kInvalidArgument} naming the first setting in which a run with `settings` is another one.
  void check_settings(const json::Object& settings) const;

 private:
  void read_header();
  void check_sums(ExecContext& context, const json::Object& sums) const;

  std::filesystem::path path_;
  std::unique_ptr<container::CheckpointReader> file_;
  RunState run_;
  json::Value sums_, texts_;
};

}  // namespace nibble::train
