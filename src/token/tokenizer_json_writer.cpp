#include "token/tokenizer_json_writer.h"

#include <utility>

#include "base/error.h"

namespace nibble::token {

namespace {

json::Value object(std::initializer_list<std::pair<std::string, json::Value>> members) {
  return json::Object(members.begin(), members.end());
}

bool is_added(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUserDefined || type == TokenType::kUnknown;
}

json::Array added_tokens(const Vocabulary& vocabulary) {
  json::Array added;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (!is_added(vocabulary.types[id])) continue;
    AddedToken flags;
    flags.special = vocabulary.types[id] != TokenType::kUserDefined;
    for (const AddedToken& token : vocabulary.added) {
      if (token.id == static_cast<int>(id)) flags = token;
    }
    added.push_back(object({{"id", static_cast<std::int64_t>(id)},
                            {"content", vocabulary.tokens[id]},
                            {"single_word", flags.single_word},
                            {"lstrip", flags.lstrip},
                            {"rstrip", flags.rstrip},
                            {"normalized", flags.normalized},
                            {"special", flags.special}}));
  }
  return added;
}

json::Value byte_level(bool add_prefix_space, bool use_regex) {
  return object({{"type", "ByteLevel"},
                 {"add_prefix_space", add_prefix_space},
                 {"trim_offsets", true},
                 {"use_regex", use_regex}});
}

json::Value pre_tokenizer(const Vocabulary& vocabulary) {
  json::Array steps;
  for (const std::string& pattern : vocabulary.split_patterns) {
    steps.push_back(object(
        {{"type", "Split"}, {"pattern", object({{"Regex", pattern}})}, {"behavior", "Isolated"}, {"invert", false}}));
  }
  steps.push_back(byte_level(vocabulary.add_space_prefix, false));
  return object({{"type", "Sequence"}, {"pretokenizers", std::move(steps)}});
}

json::Value normalizer(const Vocabulary& vocabulary) {
  json::Array steps;
  for (const NormalizerStep& step : vocabulary.normalizer) {
    switch (step.kind) {
      case NormalizerStep::Kind::kNfc:
        steps.push_back(object({{"type", "NFC"}}));
        break;
      case NormalizerStep::Kind::kNfd:
        steps.push_back(object({{"type", "NFD"}}));
        break;
      case NormalizerStep::Kind::kNfkc:
        steps.push_back(object({{"type", "NFKC"}}));
        break;
      case NormalizerStep::Kind::kNfkd:
        steps.push_back(object({{"type", "NFKD"}}));
        break;
      case NormalizerStep::Kind::kLowercase:
        steps.push_back(object({{"type", "Lowercase"}}));
        break;
      default:
        fail(ErrorCode::kUnsupported, "a normaliser of this tokenizer is not written to tokenizer.json");
    }
  }
  if (steps.empty()) return nullptr;
  return object({{"type", "Sequence"}, {"normalizers", std::move(steps)}});
}

// What stands around every text: begin and end tokens.
json::Value post_processor(const Vocabulary& vocabulary) {
  json::Array single;
  json::Object specials;
  const auto add = [&](bool wanted, int id) {
    if (!wanted || id < 0) return;
    const std::string& token = vocabulary.tokens[static_cast<std::size_t>(id)];
    single.push_back(object({{"SpecialToken", object({{"id", token}, {"type_id", 0}})}}));
    specials.emplace_back(token, object({{"id", token}, {"ids", json::Array{id}}, {"tokens", json::Array{token}}}));
  };
  add(vocabulary.add_bos, vocabulary.bos);
  single.push_back(object({{"Sequence", object({{"id", "A"}, {"type_id", 0}})}}));
  add(vocabulary.add_eos, vocabulary.eos);
  if (specials.empty()) return byte_level(false, true);
  json::Array pair = single;
  pair.push_back(object({{"Sequence", object({{"id", "B"}, {"type_id", 1}})}}));
  return object({{"type", "TemplateProcessing"},
                 {"single", std::move(single)},
                 {"pair", std::move(pair)},
                 {"special_tokens", std::move(specials)}});
}

}  // namespace

std::string write_tokenizer_json(const Vocabulary& vocabulary) {
  if (vocabulary.kind != TokenizerKind::kByteBpe) {
    fail(ErrorCode::kUnsupported, "a SentencePiece vocabulary is written as tokenizer.model");
  }
  json::Object vocab;
  std::size_t n_used = vocabulary.tokens.size();  // without the padding that fills a GGUF vocabulary up
  while (n_used > 0 && vocabulary.types[n_used - 1] == TokenType::kUnused) --n_used;
  for (std::size_t id = 0; id < n_used; ++id) {
    if (!is_added(vocabulary.types[id])) vocab.emplace_back(vocabulary.tokens[id], static_cast<std::int64_t>(id));
  }
  json::Array merges;
  for (const auto& [left, right] : vocabulary.merges) merges.push_back(json::Array{left, right});
  return json::dump(object({
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added_tokens(vocabulary)},
      {"normalizer", normalizer(vocabulary)},
      {"pre_tokenizer", pre_tokenizer(vocabulary)},
      {"post_processor", post_processor(vocabulary)},
      {"decoder", byte_level(true, true)},
      {"model", object({{"type", "BPE"},
                        {"dropout", nullptr},
                        {"unk_token", nullptr},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", false},
                        {"byte_fallback", false},
                        {"ignore_merges", vocabulary.ignore_merges},
                        {"vocab", std::move(vocab)},
                        {"merges", std::move(merges)}})},
  }));
}

std::string write_tokenizer_config(const Vocabulary& vocabulary) {
  const bool bytes = vocabulary.kind == TokenizerKind::kByteBpe;
  json::Value config;
  config.set("tokenizer_class", bytes ? "PreTrainedTokenizerFast" : "LlamaTokenizer");
  const std::pair<const char*, int> specials[] = {{"bos_token", vocabulary.bos},
                                                  {"eos_token", vocabulary.eos},
                                                  {"unk_token", vocabulary.unk},
                                                  {"pad_token", vocabulary.pad}};
  for (const auto& [key, id] : specials) {
    if (id >= 0) config.set(key, vocabulary.tokens.at(static_cast<std::size_t>(id)));
  }
  config.set("add_bos_token", vocabulary.add_bos);
  config.set("add_eos_token", vocabulary.add_eos);
  if (!bytes) config.set("legacy", false);
  if (!vocabulary.named_chat_templates.empty()) {
    json::Array templates;
    const auto add = [&](const std::string& name, const std::string& text) {
      templates.push_back(json::Object{{"name", name}, {"template", text}});
    };
    if (!vocabulary.chat_template.empty()) add("default", vocabulary.chat_template);
    for (const auto& [name, text] : vocabulary.named_chat_templates) add(name, text);
    config.set("chat_template", std::move(templates));
  } else if (!vocabulary.chat_template.empty()) {
    config.set("chat_template", vocabulary.chat_template);
  }
  return json::dump(config);
}

}  // namespace nibble::token
