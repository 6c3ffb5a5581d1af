#include "token/pre_tokenizer.h"

// The regexes are those of the models' own tokenizer.json files; the names are tokenizer.ggml.pre values.
namespace nibble::token {

namespace {

using Patterns = std::vector<std::string>;

constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kYoutuWords =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kKimi =
    R"([\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kBailing =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr const char* kSeedCoder =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kExaoneMoe =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr const char* kMiniCpm5Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kJais2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|)"
    R"(\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})";
constexpr const char* kDeepSeekWords =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kDeepSeekLetters =
    "\\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF\u0370-\u0373"
    "\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F"
    "\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79"
    "-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-"
    "\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-"
    "\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139\u213C-"
    "\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-"
    "\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A"
    "\U00010400-\U0001044F\U000104B0-\U000104D3\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-\U00010CF2"
    "\U000118A0-\U000118DF\U0001E900-\U0001E943]+";
constexpr const char* kAsianScripts =
    "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+";
constexpr const char* kYoutuScripts =
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+";
constexpr const char* kBloom = R"( ?[^(\s|[.,!?…。，、।۔،])]+)";
constexpr const char* kPunctuationRuns = R"([\p{P}!-/:-@\[-`{-~]+)";
constexpr const char* kThousands = R"(\d{1,3}(?=(?:\d{3})*\b))";

std::vector<PreTokenizer> make_table() {
  std::vector<PreTokenizer> table;
  const auto add = [&](std::initializer_list<std::string_view> names, const Patterns& patterns,
                       bool ignore_merges = false, bool add_bos = false) {
    for (std::string_view name : names) table.push_back({name, patterns, ignore_merges, add_bos});
  };
  // The first name of a row is the one that is written.
  add({"gpt-2", "phi-2", "mpt", "olmo", "jais", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en",
       "jina-v2-code", "roberta-bpe", "gigachat", "a.x-4.0", "mellum", "modern-bert", "exaone4", "trillion",
       "granite-docling"},
      {kGpt2});
  add({"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"},
      {kLlama3}, true, true);
  add({"smaug-bpe", "dbrx", "chatglm-bpe", "glm4"}, {kLlama3});
  add({"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"},
      {kQwen2});
  add({"qwen35"}, {kQwen35});
  add({"tekken"}, {kTekken}, true, true);
  add({"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, {kGpt4o});
  add({"granite-embed-multi-97m"}, {kGpt4o}, true);
  add({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"},
      {R"(\p{N})", kGpt2});
  add({"deepseek-v3", "hunyuan-dense", "joyai-llm"}, {R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+", kDeepSeekWords});
  add({"deepseek-llm"}, {"[\\r\\n]", kDeepSeekLetters, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$",
                         "[一-龥ࠀ-一가-퟿]+", R"(\p{N}+)"});
  add({"deepseek-coder"}, {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", R"(\p{N})"});
  add({"falcon"}, {kPunctuationRuns, kGpt2, "[0-9]+", "[0-9][0-9][0-9]"});
  add({"default"}, {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"});
  add({"bloom", "poro-chat", "gpt3-finnish"}, {kBloom});
  add({"viking"}, {kBloom, R"(\p{N})"});
  add({"kimi-k2"}, {kKimi});
  add({"bailingmoe", "bailingmoe2", "llada-moe"}, {kBailing});
  add({"seed-coder"}, {kSeedCoder});
  add({"exaone-moe"}, {kExaoneMoe});
  add({"minicpm5"}, {R"(\p{N}{1,3})", kMiniCpm5Words}, true);
  add({"jais-2"}, {kJais2});
  add({"tiny_aya", "cohere2moe"}, {kThousands, kGpt4o});
  add({"superbpe"}, {R"(\p{N}+)", R"((?=(\d{3})+(?!\d)))"});
  add({"afmoe"}, {kThousands, kAsianScripts, kDeepSeekWords});
  add({"youtu"}, {kYoutuScripts, kYoutuWords}, true);
  add({"laguna"}, {R"([^\n]+|[\n]+)", kQwen2});
  add({"chameleon"},
      {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", R"(\p{N})",
       R"([\p{P}!-/:-@\[-`{-~])", kGpt2},
      false, true);
  return table;
}

const std::vector<PreTokenizer>& table() {
  static const std::vector<PreTokenizer> entries = make_table();
  return entries;
}

// clang-format off
constexpr std::string_view kProbe =
    "Hello world,  it's WE'LL they'Ve don’t \t\n\n x\r\n  end   \n1 12 123 1234 12345678 3.14 ½² ٣٤٥ 一二三\n"
    "漢字かな交じりカタカナ 한국어 ｱｲｳ 中文，标点！ foo_bar FooBar camelCase HTTPServer iOS9 a/b//c\n/d e\u0301 "
    "Z\u0308o नमस्ते สวัสดี\n"
    "Привет мир שלום مرحبا 😀👍🏽 ... !!! ({[<>]}) `code` $x^2|y~z + = <tag/> don't;'s 'tis  !\n\n?\r\r a  \n "
    "b\u00A0c\u3000d";
// clang-format on

std::vector<std::size_t> cuts(const Patterns& patterns) {
  const Splitter splitter(patterns);
  Splitter::Scratch scratch;
  std::vector<std::size_t> ends;
  for (const Span& piece : splitter.split(kProbe, scratch)) ends.push_back(piece.end);
  return ends;
}

template <typename Same>
std::string_view first_name(bool ignore_merges, Same&& same) {
  std::string_view other;
  const Patterns* last = nullptr;
  bool last_same = false;
  for (const PreTokenizer& entry : table()) {
    if (last == nullptr || *last != entry.patterns)
      last_same = same(entry.patterns);  // names of a row share their patterns
    last = &entry.patterns;
    if (!last_same) continue;
    if (entry.ignore_merges == ignore_merges) return entry.name;
    if (other.empty()) other = entry.name;
  }
  return other;
}

}  // namespace

std::string_view gpt2_pattern() { return kGpt2; }

const PreTokenizer* find_pre_tokenizer(std::string_view name) {
  for (const PreTokenizer& entry : table()) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

std::string_view match_pre_tokenizer(std::span<const std::string> patterns, bool ignore_merges) {
  const Patterns wanted(patterns.begin(), patterns.end());
  const std::string_view exact = first_name(ignore_merges, [&](const Patterns& known) { return known == wanted; });
  if (!exact.empty()) return exact;
  const std::vector<std::size_t> wanted_cuts = cuts(wanted);
  return first_name(ignore_merges, [&](const Patterns& known) { return cuts(known) == wanted_cuts; });
}

}  // namespace nibble::token
