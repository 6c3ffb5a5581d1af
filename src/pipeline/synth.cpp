#include "nibble/synth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/atomic_folder.h"
#include "base/error.h"
#include "base/exec_context.h"
#include "base/near_names.h"
#include "container/gguf/vocabulary.h"
#include "model/arch.h"
#include "model/rope.h"
#include "pipeline/conversion.h"
#include "pipeline/embedded.h"
#include "pipeline/hf_folder.h"
#include "pipeline/random_weights.h"
#include "token/spm_writer.h"
#include "token/tokenizer_json_writer.h"

namespace nibble {

namespace {

using namespace pipeline;
namespace fs = std::filesystem;
using model::Role;
using model::WeightSlot;

constexpr std::int64_t kChunkWeights = std::int64_t{1} << 20;
constexpr int kByteTokens = 256;

json::Value read_shape(const std::string& name) {
  if (name.ends_with(".json")) return json::parse_file(name);
  std::vector<std::string_view> known;
  for (const EmbeddedFile& file : embedded_shapes()) {
    if (file.name == name) return json::parse(file.text);
    known.push_back(file.name);
  }
  fail(ErrorCode::kInvalidArgument, "unknown shape '{}'; near ones: {} ('nibble synth --help' lists all)", name,
       near_names(name, known));
}

json::Value load_shape(const SynthRequest& request) {
  json::Value config = model::text_config(read_shape(request.shape));
  if (request.layers < 0) fail(ErrorCode::kInvalidArgument, "{} layers", request.layers);
  if (request.layers == 0) return config;
  if (config.find("num_hidden_layers") == nullptr) {
    fail(ErrorCode::kInvalidArgument, "'{}' has no key 'num_hidden_layers' to set to {}", request.shape,
         request.layers);
  }
  config.set("num_hidden_layers", request.layers);
  return config;
}

// A SentencePiece vocabulary that can encode any text: bytes, printable ASCII, then words that are only ever printed.
token::Vocabulary dummy_vocabulary(std::int64_t size) {
  using token::TokenType;
  token::Vocabulary vocabulary;
  vocabulary.kind = token::TokenizerKind::kSpmBpe;
  vocabulary.byte_fallback = vocabulary.add_space_prefix = vocabulary.add_bos = true;
  vocabulary.pre = "default";
  vocabulary.unk = 0;
  vocabulary.bos = 1;
  vocabulary.eos = 2;
  const auto add = [&](std::string token, TokenType type) {
    vocabulary.scores.push_back(type == TokenType::kNormal ? -static_cast<float>(vocabulary.tokens.size()) : 0.0f);
    vocabulary.tokens.push_back(std::move(token));
    vocabulary.types.push_back(type);
  };
  add("<unk>", TokenType::kUnknown);
  add("<s>", TokenType::kControl);
  add("</s>", TokenType::kControl);
  for (int byte = 0; byte < kByteTokens; ++byte) add(format_text("<0x{:02X}>", byte), TokenType::kByte);
  add("\xE2\x96\x81", TokenType::kNormal);  // U+2581, the space
  for (char c = '!'; c <= '~'; ++c) add(std::string(1, c), TokenType::kNormal);
  if (static_cast<std::int64_t>(vocabulary.tokens.size()) > size) {
    fail(ErrorCode::kInvalidArgument, "a vocabulary of {} is too small: synth needs {}", size,
         vocabulary.tokens.size());
  }
  for (std::int64_t id = static_cast<std::int64_t>(vocabulary.tokens.size()); id < size; ++id) {
    add(format_text("\xE2\x96\x81w{}", id), TokenType::kNormal);
  }
  return vocabulary;
}

// Spread of a weight such that activations keep their size through the layers.
float deviation_of(const WeightSlot& slot, int n_layers) {
  if (!model::is_matrix(slot.role) || slot.bias) return slot.bias ? 0.02f : 0.1f;
  const bool table =
      slot.role == Role::kTokenEmbedding || slot.role == Role::kPositionEmbedding || slot.role == Role::kOutput;
  if (table) return 0.02f;
  const float spread = 0.8f / std::sqrt(static_cast<float>(slot.shape.cols()));
  const bool into_residual = slot.role == Role::kAttnOutput || slot.role == Role::kFfnDown ||
                             slot.role == Role::kExpertDown || slot.role == Role::kSharedDown;
  return into_residual ? spread / std::sqrt(2.0f * static_cast<float>(n_layers)) : spread;
}

// One tensor to be made: its plan and where its rows come from in canonical order.
struct Item {
  const WeightSlot* slot = nullptr;
  container::PlannedTensor plan;
  std::vector<std::int32_t> row_map;
  bool transposed = false;
  float add = 0;
  std::uint64_t stream = 0;
  std::int64_t first_row = 0;  // in the slot: of a part
};

struct Synthesis {
  model::ModelSpec spec;
  std::vector<Item> items;
  container::Metadata metadata;

  std::vector<container::PlannedTensor> plan() const {
    std::vector<container::PlannedTensor> tensors;
    for (const Item& item : items) tensors.push_back(item.plan);
    return tensors;
  }
};

Synthesis describe(const json::Value& config, const std::string& shape, const encoding::EncodingInfo& type, bool gguf) {
  Synthesis synthesis;
  synthesis.spec = model::arch_by_model_type(config.at("model_type").as_string()).from_hf(config);
  model::ModelSpec& spec = synthesis.spec;
  spec.name = fs::path(shape).stem() == "config" ? fs::path(shape).parent_path().filename().string() : shape;
  model::validate(spec);
  const encoding::EncodingInfo& f32 = encoding::get("f32");
  for (std::size_t i = 0; i < spec.weights.size(); ++i) {
    const WeightSlot& slot = spec.weights[i];
    const std::string& name = gguf ? slot.gguf_name : slot.hf_name;
    if (name.empty()) continue;
    Item item;
    item.slot = &slot;
    // What several slots share is random numbers like any.
    if (!gguf && !slot.hf_strides.empty() && i > 0 && spec.weights[i - 1].hf_name == name) continue;
    const bool small = !model::is_matrix(slot.role) || slot.bias;
    item.transposed = !gguf && slot.hf_transposed && !slot.bias;
    item.plan = {name, gguf && small ? &f32 : &type, model::file_shape(slot, gguf)};
    item.row_map = model::canonical_rows(gguf ? slot.gguf_rows : slot.hf_rows, slot.shape.dims()[0]);
    item.add = gguf ? slot.gguf_add : 0;
    item.stream = i;
    const int parts = gguf ? 0 : slot.hf_parts;
    for (int part = 0; part < parts; ++part) {
      item.plan.name = model::hf_part_name(slot, part);
      item.first_row = part * item.plan.shape.rows();
      synthesis.items.push_back(item);
    }
    if (parts == 0) synthesis.items.push_back(std::move(item));
  }
  if (gguf) {
    synthesis.metadata.set("general.architecture", spec.arch);
    synthesis.metadata.set("general.type", std::string("model"));
    synthesis.metadata.set("general.name", spec.name + " (random weights)");
    synthesis.metadata.set("general.file_type", std::uint32_t{type.name == "f16"    ? 1u
                                                              : type.name == "bf16" ? 32u
                                                                                    : 0u});
    synthesis.metadata.set("general.quantization_version", std::uint32_t{2});
    model::write_gguf_keys(spec, synthesis.metadata);
    container::gguf::write_vocabulary(dummy_vocabulary(spec.vocab), synthesis.metadata);
  } else {
    synthesis.metadata.set("format", std::string("pt"));
  }
  return synthesis;
}

// Rows [begin, end) of a tensor, bytes as written.
void fill_rows(const Item& item, const RandomWeights& weights, std::int64_t begin, std::int64_t end, std::byte* out) {
  const std::int64_t cols = item.plan.shape.cols();
  if (item.transposed) {
    const std::int64_t inner = item.slot->shape.cols();
    const std::size_t size = encoding::row_bytes(*item.plan.encoding, 1);
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t col = 0; col < cols; ++col, out += size) weights.fill(col * inner + row, 1, out);
    }
    return;
  }
  if (item.row_map.empty()) {
    weights.fill((item.first_row + begin) * cols, (end - begin) * cols, out);
    return;
  }
  const auto row_bytes = static_cast<std::int64_t>(encoding::row_bytes(*item.plan.encoding, cols));
  for (std::int64_t row = begin; row < end; ++row, out += row_bytes) {
    weights.fill(std::int64_t{item.row_map[static_cast<std::size_t>(row)]} * cols, cols, out);
  }
}

std::vector<float> small_values(const Item& item, const Synthesis& synthesis, std::uint64_t seed) {
  const WeightSlot& slot = *item.slot;
  if (slot.role == Role::kRopeFactorsLong) return synthesis.spec.rope.long_factors;
  if (model::is_rope_factors(slot.role)) return model::rope_factors(synthesis.spec.rope);
  const auto n = static_cast<std::size_t>(slot.shape.elements());
  std::vector<float> canonical(n), values(n);
  const RandomWeights weights(encoding::get("f32"), slot.bias || synthesis.spec.norm_add_one ? 0.0f : 1.0f,
                              deviation_of(slot, synthesis.spec.n_layers()), seed, item.stream);
  weights.fill(0, slot.shape.elements(), reinterpret_cast<std::byte*>(canonical.data()));
  for (std::size_t i = 0; i < n; ++i)
    values[i] = (item.row_map.empty() ? canonical[i] : canonical[static_cast<std::size_t>(item.row_map[i])]) + item.add;
  return values;
}

void write_small(const Item& item, std::size_t index, const Synthesis& synthesis, std::uint64_t seed,
                 container::CheckpointWriter& writer) {
  const std::vector<float> values = small_values(item, synthesis, seed);
  std::vector<std::byte> bytes(encoding::tensor_bytes(*item.plan.encoding, item.plan.shape));
  const std::int64_t n = item.plan.shape.elements();  // of a part: fewer than the slot's
  item.plan.encoding->encode(values.data() + item.first_row * n, bytes.data(), n);
  writer.write(index, 0, bytes);
}

void write_matrix(ExecContext& context, const Item& item, std::size_t index, const Synthesis& synthesis,
                  std::uint64_t seed, container::CheckpointWriter& writer, std::uint64_t bytes_before) {
  const RandomWeights weights(*item.plan.encoding, 0, deviation_of(*item.slot, synthesis.spec.n_layers()), seed,
                              item.stream);
  const std::int64_t rows = item.plan.shape.rows();
  const std::int64_t chunk_rows = std::max<std::int64_t>(1, kChunkWeights / item.plan.shape.cols());
  const std::uint64_t row_bytes = encoding::row_bytes(*item.plan.encoding, item.plan.shape.cols());
  std::atomic<std::int64_t> next = 0;
  context.pool.run([&](int thread) {
    std::vector<std::byte> buffer(static_cast<std::size_t>(chunk_rows) * row_bytes);
    for (;;) {
      const std::int64_t begin = next.fetch_add(chunk_rows, std::memory_order_relaxed);
      if (begin >= rows) return;
      context.check_cancelled();
      const std::int64_t end = std::min(rows, begin + chunk_rows);
      fill_rows(item, weights, begin, end, buffer.data());
      const auto n_bytes = static_cast<std::size_t>(end - begin) * row_bytes;
      writer.write(index, static_cast<std::uint64_t>(begin) * row_bytes, std::span(buffer).first(n_bytes));
      if (thread == 0) context.progress.update(bytes_before + static_cast<std::uint64_t>(end) * row_bytes);
    }
  });
}

void write_weights(ExecContext& context, const Synthesis& synthesis, std::uint64_t seed,
                   container::CheckpointWriter& writer) {
  ProgressTask progress(context.progress, "synth", writer.data_bytes(), "bytes");
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < synthesis.items.size(); ++i) {
    const Item& item = synthesis.items[i];
    if (item.slot->shape.rank() < 2) {
      write_small(item, i, synthesis, seed, writer);
    } else {
      write_matrix(context, item, i, synthesis, seed, writer, bytes);
    }
    const std::uint64_t n_bytes = encoding::tensor_bytes(*item.plan.encoding, item.plan.shape);
    bytes += n_bytes;
    progress.add(n_bytes);
  }
}

void write_folder(ExecContext& context, const Synthesis& synthesis, json::Value config, const SynthRequest& request,
                  SynthReport& report) {
  AtomicFolder folder(request.output);
  const auto writer = container::create_hf_weights(folder.staging(), synthesis.metadata, synthesis.plan(),
                                                   shard_bytes(request.shard_bytes, request.output));
  write_weights(context, synthesis, request.seed, *writer);
  report.file_bytes = writer->file_bytes();
  writer->commit();
  const token::Vocabulary vocabulary = dummy_vocabulary(synthesis.spec.vocab);
  config.set("bos_token_id", vocabulary.bos);
  config.set("eos_token_id", vocabulary.eos);
  config.set("torch_dtype", request.dtype == "f16" ? "float16" : request.dtype == "bf16" ? "bfloat16" : "float32");
  write_file_atomically(folder.staging() / "config.json", json::dump(config) + "\n");
  write_file_atomically(folder.staging() / "tokenizer.model", token::write_spm_model(vocabulary));
  write_file_atomically(folder.staging() / "tokenizer_config.json", token::write_tokenizer_config(vocabulary) + "\n");
  folder.commit();
}

const encoding::EncodingInfo& synth_type(const std::string& name) {
  if (name != "f16" && name != "bf16" && name != "f32")
    fail(ErrorCode::kInvalidArgument, "synth makes f16, bf16 and f32, not '{}'", name);
  return encoding::get(name);
}

}  // namespace

SynthReport synthesize_model(const SynthRequest& request, const RunContext& run) {
  const auto start = std::chrono::steady_clock::now();
  const bool gguf = fs::path(request.output).extension() == ".gguf";
  shard_bytes(request.shard_bytes, request.output);
  const encoding::EncodingInfo& type = synth_type(request.dtype);
  const json::Value config = load_shape(request);
  const Synthesis synthesis = describe(config, request.shape, type, gguf);
  SynthReport report;
  report.shape = request.shape;
  report.architecture = synthesis.spec.arch;
  report.output = request.output;
  report.dtype = request.dtype;
  report.parameters = synthesis.spec.parameters();
  report.dry_run = request.dry_run;
  if (request.dry_run) {
    for (const Item& item : synthesis.items)
      report.file_bytes += encoding::tensor_bytes(*item.plan.encoding, item.plan.shape);
    return report;
  }
  OwnedExecContext context(run);
  if (gguf) {
    const auto writer = container::create_gguf(request.output, synthesis.metadata, synthesis.plan());
    write_weights(*context, synthesis, request.seed, *writer);
    report.file_bytes = writer->file_bytes();
    writer->commit();
  } else {
    write_folder(*context, synthesis, config, request, report);
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

std::string to_json(const SynthReport& report) {
  json::Value value;
  value.set("shape", report.shape);
  value.set("architecture", report.architecture);
  value.set("output", report.output);
  value.set("dtype", report.dtype);
  value.set("parameters", report.parameters);
  value.set("file_bytes", report.file_bytes);
  value.set("seconds", report.seconds);
  value.set("dry_run", report.dry_run);
  return json::dump(value);
}

std::string to_text(const SynthReport& report) {
  return format_text("{} {} ({} parameters of {}, {}, {})\n", report.dry_run ? "would write" : "wrote", report.output,
                     format_count(report.parameters), report.shape, report.dtype, format_bytes(report.file_bytes));
}

std::vector<std::string> list_shapes() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : embedded_shapes()) names.emplace_back(file.name);
  return names;
}

}  // namespace nibble
