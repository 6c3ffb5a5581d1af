#include "pipeline/hf_folder.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "json/json.h"
#include "model/arch.h"
#include "token/spm_writer.h"
#include "token/tokenizer_json_writer.h"

namespace nibble::pipeline {

namespace {

namespace fs = std::filesystem;

// What a folder holds besides configuration and weights, where it has it.
constexpr std::string_view kCopied[] = {
    "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",      "vocab.json",     "merges.txt",      "chat_template.jinja",   "chat_template.json"};
constexpr std::string_view kQuantization = "quantization_config";
constexpr std::pair<std::string_view, std::string_view> kTorchNames[] = {
    {"f32", "float32"}, {"f16", "float16"}, {"bf16", "bfloat16"}};

std::string_view torch_name(const encoding::EncodingInfo& type) {
  for (const auto& [name, torch] : kTorchNames) {
    if (name == type.name) return torch;
  }
  fail(ErrorCode::kUnsupported, "a Hugging Face folder of plain weights cannot be {}", type.name);
}

void write_json(const fs::path& path, const json::Value& value) {
  write_file_atomically(path, json::dump(value) + "\n");
}

void copy_files(const model::ModelSource& source, const fs::path& folder) {
  for (const std::string_view name : kCopied) {
    const fs::path from = source.reader().folder() / name;
    if (fs::exists(from)) write_file_atomically(folder / name, read_file(from));
  }
  const fs::path templates = source.reader().folder() / "additional_chat_templates";
  if (fs::is_directory(templates)) fs::copy(templates, folder / templates.filename(), fs::copy_options::recursive);
}

}  // namespace

void write_hf_files(const model::ModelSource& source, const encoding::EncodingInfo& type,
                    const json::Value& quantization, const fs::path& folder) {
  const std::string_view torch = torch_name(type);
  if (source.reader().kind() == container::Kind::kHuggingFace) {
    copy_files(source, folder);
    json::Value config = source.reader().config();
    const bool larger = config.get("model_type", "") != model::text_config(config).get("model_type", "");
    if (larger) config = model::arch_of(source.spec()).to_hf(source.spec());  // the text model alone
    // The weights are no longer as they were.
    std::erase_if(config.as_object(), [](const auto& member) { return member.first == kQuantization; });
    if (!source.spec().tied && model::arch_of(source.spec()).from_hf(config).tied)
      config.set("tie_word_embeddings", false);
    config.set(config.find("dtype") != nullptr ? "dtype" : "torch_dtype", torch);
    if (!quantization.is_null()) config.set(kQuantization, quantization);
    write_json(folder / "config.json", config);
    return;
  }
  const token::Vocabulary vocabulary = source.vocabulary();
  json::Value config = model::arch_of(source.spec()).to_hf(source.spec());
  if (vocabulary.bos >= 0) config.set("bos_token_id", vocabulary.bos);
  if (vocabulary.eos >= 0) config.set("eos_token_id", vocabulary.eos);
  config.set("torch_dtype", torch);
  if (!quantization.is_null()) config.set(kQuantization, quantization);
  write_json(folder / "config.json", config);
  if (vocabulary.kind == token::TokenizerKind::kByteBpe) {
    write_file_atomically(folder / "tokenizer.json", token::write_tokenizer_json(vocabulary) + "\n");
  } else {
    write_file_atomically(folder / "tokenizer.model", token::write_spm_model(vocabulary));
  }
  write_file_atomically(folder / "tokenizer_config.json", token::write_tokenizer_config(vocabulary) + "\n");
}

std::uint64_t shard_bytes(std::uint64_t asked, const fs::path& output) {
  if (asked == 0) return container::kShardBytes;
  if (output.extension() == ".gguf") {
    fail(ErrorCode::kInvalidArgument, "a size of shards was given, but '{}' will be one file: name a folder instead",
         output.string());
  }
  return asked;
}

}  // namespace nibble::pipeline
