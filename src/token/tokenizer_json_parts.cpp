#include "token/tokenizer_json_parts.h"

#include <array>
#include <string_view>

#include "base/error.h"
#include "token/base64.h"
#include "token/pre_tokenizer.h"
#include "token/utf8.h"

namespace nibble::token {

namespace {

using Kind = NormalizerStep::Kind;

// What Digits and Punctuation cut out. Behind ByteLevel they see its alphabet, one character a byte: there only ASCII
// counts, because what they cut inside a longer character no merge joins again.
constexpr std::string_view kNumbers = R"(\p{N})", kNumbersOfBytes = "[0-9]";
constexpr std::string_view kPunctuation = R"([\p{P}!-/:-@\[-`{-~])", kPunctuationOfBytes = R"([!-/:-@\[-`{-~])";

std::string quote(std::string_view text) {
  std::string out;
  for (char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       static_cast<unsigned char>(c) >= 0x80;
    if (!plain) out += '\\';
    out += c;
  }
  return out;
}

// A pattern object, {"Regex": ...} or {"String": ...}, as a regex.
std::string regex_of(const json::Value& pattern) {
  if (const json::Value* regex = pattern.find("Regex")) return regex->as_string();
  return quote(pattern.at("String").as_string());
}

void check_isolated(const json::Value& part, bool invert) {
  const std::string behavior = part.get("behavior", "Isolated");
  const bool covered =
      behavior == "Removed" && invert;  // what stands between matches goes; the patterns in use match everything
  if (behavior != "Isolated" && !covered)
    fail(ErrorCode::kUnsupported, "pre-tokenizer '{}' with behavior '{}'", part.get("type", ""), behavior);
}

void read_split(const json::Value& part, Vocabulary& vocabulary) {
  const json::Value& pattern = part.at("pattern");
  if (vocabulary.kind != TokenizerKind::kByteBpe) {
    // Some files cut at spaces, which the normaliser has replaced already.
    const json::Value* text = pattern.find("String");
    if (text != nullptr && text->as_string() == " ") return;
    fail(ErrorCode::kUnsupported, "pre-tokenizer 'Split' before SentencePiece tokens");
  }
  check_isolated(part, part.get("invert", false));
  vocabulary.split_patterns.push_back(regex_of(pattern));
}

void read_byte_level(const json::Value& part, Vocabulary& vocabulary) {
  if (part.get("add_prefix_space", true)) {
    if (!vocabulary.split_patterns.empty())
      fail(ErrorCode::kUnsupported, "pre-tokenizer 'ByteLevel' that prefixes the words of another");
    vocabulary.add_space_prefix = true;
  }
  if (part.get("use_regex", true)) vocabulary.split_patterns.emplace_back(gpt2_pattern());
}

void read_metaspace(const json::Value& part, Vocabulary& vocabulary) {
  for (const char* key : {"replacement", "str_rep"}) {
    if (part.get(key, kSpaceSymbol) != kSpaceSymbol)
      fail(ErrorCode::kUnsupported, "pre-tokenizer 'Metaspace' with '{}'", part.get(key, ""));
  }
  WordRule& words = vocabulary.words;
  words.metaspace = true;
  std::string scheme = part.get("prepend_scheme", "");
  if (scheme.empty()) scheme = part.get("add_prefix_space", true) ? "always" : "never";
  if (scheme != "always" && scheme != "first" && scheme != "never")
    fail(ErrorCode::kFormat, "prepend_scheme '{}'", scheme);
  words.prefix = scheme == "always"  ? WordRule::Prefix::kAlways
                 : scheme == "first" ? WordRule::Prefix::kFirst
                                     : WordRule::Prefix::kNever;
  words.split = part.get("split", true);
}

void read_replace(const json::Value& part, Vocabulary& vocabulary) {
  const json::Value& pattern = part.at("pattern");
  const std::string& content = part.at("content").as_string();
  if (const json::Value* text = pattern.find("String")) {
    vocabulary.normalizer.push_back({Kind::kReplace, text->as_string(), content});
  } else {
    vocabulary.normalizer.push_back({Kind::kReplaceRegex, pattern.at("Regex").as_string(), content});
  }
}

const json::Array* sequence(const json::Value& part, const char* key) {
  return part.get("type", "") == "Sequence" ? &part.at(key).as_array() : nullptr;
}

// Id of a template's special token.
int template_id(const json::Value& part, const std::string& name, std::size_t n_tokens) {
  const json::Array& ids = part.at("special_tokens").at(name).at("ids").as_array();
  if (ids.size() != 1) fail(ErrorCode::kUnsupported, "template token '{}' of {} ids", name, ids.size());
  const std::int64_t id = ids[0].as_int();
  if (id < 0 || id >= static_cast<std::int64_t>(n_tokens))
    fail(ErrorCode::kFormat, "template token '{}' has the id {} of {}", name, id, n_tokens);
  return static_cast<int>(id);
}

void read_template(const json::Value& part, Vocabulary& vocabulary) {
  bool before = true;
  for (const json::Value& item : part.at("single").as_array()) {
    if (item.find("Sequence") != nullptr) {
      before = false;
      continue;
    }
    const std::string& name = item.at("SpecialToken").at("id").as_string();
    (before ? vocabulary.prefix_ids : vocabulary.suffix_ids)
        .push_back(template_id(part, name, vocabulary.tokens.size()));
  }
}

// ["</s>", 2] of RobertaProcessing and BertProcessing.
int pair_id(const json::Value& pair, std::size_t n_tokens) {
  if (pair.as_array().size() != 2) fail(ErrorCode::kFormat, "a token of {} parts", pair.as_array().size());
  const std::int64_t id = pair.as_array()[1].as_int();
  if (id < 0 || id >= static_cast<std::int64_t>(n_tokens)) fail(ErrorCode::kFormat, "token id {} of {}", id, n_tokens);
  return static_cast<int>(id);
}

// `bytes`: a ByteLevel came before.
void read_byte_level_part(const json::Value& part, const std::string& type, bool& bytes, Vocabulary& vocabulary) {
  const auto cut = [&](std::string_view one, bool runs) {
    vocabulary.split_patterns.emplace_back(std::string(one) + (runs ? "+" : ""));
  };
  if (type == "ByteLevel") {
    read_byte_level(part, vocabulary);
    bytes = true;
  } else if (type == "Digits") {
    cut(bytes ? kNumbersOfBytes : kNumbers, !part.get("individual_digits", false));
  } else if (type == "Punctuation") {
    const bool runs = part.get("behavior", "Isolated") == "Contiguous";
    if (!runs) check_isolated(part, false);
    cut(bytes ? kPunctuationOfBytes : kPunctuation, runs);
  } else {
    fail(ErrorCode::kUnsupported, "pre-tokenizer '{}' of a byte-level tokenizer", type);
  }
}

void read_pre_part(const json::Value& part, bool& bytes, Vocabulary& vocabulary) {
  if (const json::Array* parts = sequence(part, "pretokenizers")) {
    for (const json::Value& inner : *parts) read_pre_part(inner, bytes, vocabulary);
    return;
  }
  const std::string type = part.get("type", "");
  if (type == "Split") {
    read_split(part, vocabulary);
  } else if (vocabulary.kind == TokenizerKind::kByteBpe) {
    read_byte_level_part(part, type, bytes, vocabulary);
  } else if (type == "Metaspace") {
    read_metaspace(part, vocabulary);
  } else if (type == "WhitespaceSplit" && !vocabulary.words.metaspace) {
    vocabulary.words.drop_white_space = true;
  } else {
    fail(ErrorCode::kUnsupported, "pre-tokenizer '{}' of a SentencePiece tokenizer", type);
  }
}

}  // namespace

void read_normalizer(const json::Value& part, Vocabulary& vocabulary) {
  if (const json::Array* parts = sequence(part, "normalizers")) {
    for (const json::Value& inner : *parts) read_normalizer(inner, vocabulary);
    return;
  }
  struct Simple {
    std::string_view name;
    Kind kind;
  };
  constexpr std::array<Simple, 5> kSimple = {{{"NFC", Kind::kNfc},
                                              {"NFD", Kind::kNfd},
                                              {"NFKC", Kind::kNfkc},
                                              {"NFKD", Kind::kNfkd},
                                              {"Lowercase", Kind::kLowercase}}};
  const std::string type = part.get("type", "");
  for (const Simple& simple : kSimple) {
    if (simple.name == type) {
      vocabulary.normalizer.push_back({simple.kind, {}, {}});
      return;
    }
  }
  if (type == "Prepend") {
    vocabulary.normalizer.push_back({Kind::kPrepend, {}, part.at("prepend").as_string()});
  } else if (type == "Replace") {
    read_replace(part, vocabulary);
  } else if (type == "Strip") {
    if (part.get("strip_left", true)) vocabulary.normalizer.push_back({Kind::kStripLeft, {}, {}});
    if (part.get("strip_right", true)) vocabulary.normalizer.push_back({Kind::kStripRight, {}, {}});
  } else if (type == "Precompiled") {
    const json::Value* rules = part.find("precompiled_charsmap");
    if (rules == nullptr || rules->is_null() || rules->as_string().empty()) return;
    vocabulary.normalizer.push_back({Kind::kCharsmap, decode_base64(rules->as_string()), {}});
  } else {
    fail(ErrorCode::kUnsupported, "normaliser '{}'", type);
  }
}

void read_pre_tokenizer(const json::Value& part, Vocabulary& vocabulary) {
  bool bytes = false;
  read_pre_part(part, bytes, vocabulary);
}

void read_post_processor(const json::Value& part, Vocabulary& vocabulary) {
  if (const json::Array* parts = sequence(part, "processors")) {
    for (const json::Value& inner : *parts) read_post_processor(inner, vocabulary);
    return;
  }
  const std::string type = part.get("type", "");
  if (type == "ByteLevel") return;
  if (type == "TemplateProcessing") {
    read_template(part, vocabulary);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    vocabulary.prefix_ids.push_back(pair_id(part.at("cls"), vocabulary.tokens.size()));
    vocabulary.suffix_ids.push_back(pair_id(part.at("sep"), vocabulary.tokens.size()));
  } else {
    fail(ErrorCode::kUnsupported, "post-processor '{}'", type);
  }
}

void describe_for_gguf(Vocabulary& vocabulary) {
  vocabulary.add_space_prefix = vocabulary.words.metaspace && vocabulary.words.prefix != WordRule::Prefix::kNever;
  vocabulary.remove_extra_whitespaces = vocabulary.words.drop_white_space;
  for (const NormalizerStep& step : vocabulary.normalizer) {
    if (step.kind == Kind::kPrepend && step.content == kSpaceSymbol) vocabulary.add_space_prefix = true;
    if (step.kind == Kind::kCharsmap) vocabulary.precompiled_charsmap = step.pattern;
    if (step.kind == Kind::kReplaceRegex && step.pattern == " {2,}") vocabulary.remove_extra_whitespaces = true;
  }
}

}  // namespace nibble::token
