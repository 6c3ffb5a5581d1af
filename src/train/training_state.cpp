#include "train/training_state.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/checksum.h"
#include "base/error.h"
#include "base/format.h"
#include "container/safetensors/reader.h"
#include "encoding/encoding.h"

namespace nibble::train {

namespace {

constexpr std::string_view kFormat = "nibble-training-state", kVersion = "1";
constexpr std::uint64_t kTile = std::uint64_t{16} << 20;  // bytes written between two looks at the cancel token

std::string hexadecimal(std::uint64_t sum) { return format_text("{:016x}", sum); }

std::string sum_of(std::string_view text) { return hexadecimal(checksum(std::as_bytes(std::span(text)))); }

std::uint64_t count_of(std::span<const std::byte> bytes, const encoding::EncodingInfo& info) {
  return bytes.size() / static_cast<std::uint64_t>(info.block_bytes);
}

json::Value describe(const RunState& run) {
  return json::Object{
      {"step", run.step}, {"epoch", run.position.epoch}, {"index", run.position.index}, {"tokens", run.tokens},
      {"seed", run.seed}, {"settings", run.settings}};
}

std::int64_t count_at(const json::Value& object, std::string_view key) {
  const std::int64_t value = object.at(key).as_int();
  if (value < 0) fail(ErrorCode::kFormat, "'{}' is {}", key, value);
  return value;
}

RunState parse_run(const json::Value& object) {
  RunState run;
  run.step = count_at(object, "step");
  run.position = {count_at(object, "epoch"), count_at(object, "index")};
  run.tokens = count_at(object, "tokens");
  run.seed = static_cast<std::uint64_t>(object.at("seed").as_int());
  run.settings = object.at("settings").as_object();
  return run;
}

const json::Value* find(const json::Object& object, std::string_view key) {
  const auto it = std::ranges::find(object, key, [](const auto& member) { return std::string_view(member.first); });
  return it == object.end() ? nullptr : &it->second;
}

std::string shown(const json::Value* value) { return value == nullptr ? "unset" : json::dump(*value, 0); }

}  // namespace

void StateWriter::add(std::string name, std::span<const std::byte> bytes) {
  parts_.push_back({std::move(name), "u8", bytes});
}

void StateWriter::add(std::string name, std::span<const float> values) {
  parts_.push_back({std::move(name), "f32", std::as_bytes(values)});
}

void StateWriter::add_text(std::string_view name, std::string_view text) { texts_.emplace_back(name, text); }

void StateWriter::write(ExecContext& context, const std::filesystem::path& path, const RunState& run) const {
  std::vector<std::string> sums(parts_.size());
  context.pool.parallel_dynamic(static_cast<std::int64_t>(parts_.size()), [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    sums[at] = hexadecimal(checksum(parts_[at].bytes));
  });
  context.check_cancelled();
  json::Object sum_by_name;
  std::vector<container::PlannedTensor> plan;
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const encoding::EncodingInfo& info = encoding::get(parts_[i].dtype);
    sum_by_name.emplace_back(parts_[i].name, sums[i]);
    plan.push_back({parts_[i].name, &info, Shape{static_cast<std::int64_t>(count_of(parts_[i].bytes, info))}});
  }
  const std::string header =
      json::dump(json::Object{{"run", describe(run)}, {"texts", texts_}, {"sums", std::move(sum_by_name)}}, 0);
  container::Metadata metadata;
  metadata.append("format", std::string(kFormat));
  metadata.append("version", std::string(kVersion));
  metadata.append("header", header);
  metadata.append("header_sum", sum_of(header));
  const auto writer = container::create_safetensors(path, metadata, std::move(plan));
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const std::span<const std::byte> bytes = parts_[i].bytes;
    for (std::uint64_t at = 0; at < bytes.size(); at += kTile) {
      context.check_cancelled();
      writer->write(i, at, bytes.subspan(at, std::min<std::uint64_t>(kTile, bytes.size() - at)));
    }
  }
  writer->commit();
}

StateReader::StateReader(ExecContext& context, const std::filesystem::path& path)
    : path_(path), file_(container::safetensors::open(path)) {
  with_context(format_text("'{}'", path.string()), [&] {
    read_header();
    check_sums(context, sums_.as_object());
  });
}

void StateReader::read_header() {
  const container::Metadata& metadata = file_->metadata();
  if (metadata.get_string("format", "") != kFormat) fail(ErrorCode::kFormat, "is not the state of a training run");
  const std::string version = metadata.get_string("version", "");
  if (version != kVersion) {
    fail(ErrorCode::kUnsupported, "is a training state of version '{}', only '{}' is known", version, kVersion);
  }
  const std::string& header = metadata.get_string("header");
  if (sum_of(header) != metadata.get_string("header_sum")) {
    fail(ErrorCode::kFormat, "the header is damaged: its checksum is {}, the file says {}", sum_of(header),
         metadata.get_string("header_sum"));
  }
  with_context("header", [&] {
    const json::Value root = json::parse(header);
    run_ = parse_run(root.at("run"));
    texts_ = root.at("texts").as_object();
    sums_ = root.at("sums").as_object();
  });
}

void StateReader::check_sums(ExecContext& context, const json::Object& sums) const {
  const auto tensors = file_->tensors();
  std::vector<std::string> found(tensors.size());
  context.pool.parallel_dynamic(static_cast<std::int64_t>(tensors.size()), [&](std::int64_t i) {
    found[static_cast<std::size_t>(i)] = hexadecimal(checksum(tensors[static_cast<std::size_t>(i)].view.data()));
  });
  std::map<std::string_view, std::string_view> expected;
  for (const auto& [name, sum] : sums) expected.emplace(name, sum.as_string());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto it = expected.find(tensors[i].name);
    if (it == expected.end()) fail(ErrorCode::kFormat, "part '{}': the header knows no such part", tensors[i].name);
    if (it->second != found[i]) {
      fail(ErrorCode::kFormat, "part '{}' at offset {} is damaged: its checksum is {}, the header says {}",
           tensors[i].name, tensors[i].offset, found[i], it->second);
    }
  }
  for (const auto& [name, sum] : expected) {
    if (file_->find(name) == nullptr) fail(ErrorCode::kFormat, "part '{}' of the header is missing", name);
  }
}

std::vector<std::string_view> StateReader::names() const {
  std::vector<std::string_view> names;
  for (const container::TensorEntry& entry : file_->tensors()) names.push_back(entry.name);
  return names;
}

bool StateReader::contains(std::string_view name) const { return file_->find(name) != nullptr; }

std::span<const std::byte> StateReader::bytes(std::string_view name) const {
  const container::TensorEntry* entry = file_->find(name);
  if (entry == nullptr) fail(ErrorCode::kFormat, "'{}': there is no part '{}'", path_.string(), name);
  return entry->view.data();
}

void StateReader::read(std::string_view name, std::span<std::byte> out) const {
  const std::span<const std::byte> found = bytes(name);
  if (found.size() != out.size()) {
    fail(ErrorCode::kFormat, "'{}': part '{}' at offset {} has {} bytes where {} are needed", path_.string(), name,
         file_->find(name)->offset, found.size(), out.size());
  }
  if (!out.empty()) std::memcpy(out.data(), found.data(), out.size());
}

const std::string& StateReader::text(std::string_view name) const {
  return with_context(format_text("'{}'", path_.string()),
                      [&]() -> const std::string& { return texts_.at(name).as_string(); });
}

std::int64_t StateReader::count(std::string_view name) const {
  const std::string& digits = text(name);
  std::int64_t value = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value < 0) {
    fail(ErrorCode::kFormat, "'{}': '{}' is '{}', no count", path_.string(), name, digits);
  }
  return value;
}

void StateReader::check_settings(const json::Object& settings) const {
  const auto differs = [&](std::string_view name) {
    const json::Value *saved = find(run_.settings, name), *wanted = find(settings, name);
    if (saved != nullptr && wanted != nullptr && json::dump(*saved, 0) == json::dump(*wanted, 0)) return;
    fail(ErrorCode::kInvalidArgument, "'{}' is of another run: {} is {} there and {} here", path_.string(), name,
         shown(saved), shown(wanted));
  };
  for (const auto& [name, value] : settings) differs(name);
  for (const auto& [name, value] : run_.settings) differs(name);
}

}  // namespace nibble::train
