#include "train/jsonl_data.h"

#include <optional>
#include <string_view>

#include "base/atomic_file.h"
#include "base/progress.h"
#include "train/chat_example.h"
#include "train/rounds.h"

namespace nibble::train {

namespace {

using token::TokenId;

constexpr std::size_t kLinesEach = 64;  // that a thread makes between two signs of progress
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

struct Maker {
  const token::Tokenizer& tokenizer;
  const JsonlOptions& options;
  std::optional<jinja::Template> chat_template;
};

const std::string& text_at(const json::Value& line, std::string_view key) {
  return with_context(format_text("'{}'", key), [&]() -> const std::string& { return line.at(key).as_string(); });
}

// With the beginning token, once.
std::vector<TokenId> encode(const token::Tokenizer& tokenizer, std::string_view text) {
  std::vector<TokenId> tokens = tokenizer.encode(text, {.add_special = true, .parse_special = true});
  const token::Vocabulary& vocabulary = tokenizer.vocabulary();
  if (vocabulary.add_bos && tokens.size() > 1 && tokens[0] == vocabulary.bos && tokens[1] == vocabulary.bos) {
    tokens.erase(tokens.begin());
  }
  return tokens;
}

// All tokens from `begin` on are learned, and the end token, which is added where it is missing.
Example ended(const token::Tokenizer& tokenizer, std::vector<TokenId> tokens, std::size_t begin) {
  const TokenId eos = tokenizer.vocabulary().eos;
  if (eos >= 0 && (tokens.empty() || tokens.back() != eos)) tokens.push_back(eos);
  Example example{std::move(tokens), {}};
  example.learned.assign(example.tokens.size(), 1);
  std::fill_n(example.learned.begin(), std::min(std::max<std::size_t>(begin, 1), example.learned.size()),
              std::uint8_t{0});
  return example;
}

Example from_text(const Maker& maker, const json::Value& line) {
  const std::string& text = text_at(line, "text");
  if (text.empty()) fail(ErrorCode::kInvalidArgument, "'text' is empty");
  return ended(maker.tokenizer, encode(maker.tokenizer, text), 0);
}

Example from_prompt(const Maker& maker, const json::Value& line) {
  const std::string &prompt = text_at(line, "prompt"), &completion = text_at(line, "completion");
  std::vector<TokenId> tokens = encode(maker.tokenizer, prompt + completion);
  std::vector<TokenId> before = encode(maker.tokenizer, prompt);
  const token::Vocabulary& vocabulary = maker.tokenizer.vocabulary();
  if (vocabulary.add_eos && !before.empty() && before.back() == vocabulary.eos) before.pop_back();
  const auto begin = static_cast<std::size_t>(std::ranges::mismatch(tokens, before).in1 - tokens.begin());
  return ended(maker.tokenizer, std::move(tokens), begin);
}

Example from_messages(const Maker& maker, const json::Value& line) {
  const json::Array& messages =
      with_context("'messages'", [&]() -> const json::Array& { return line.at("messages").as_array(); });
  if (!maker.chat_template) {
    fail(ErrorCode::kInvalidArgument, "'messages' need a chat template, and the model has none");
  }
  json::Object others;
  if (const json::Value* tools = line.find("tools")) others.emplace_back("tools", *tools);
  return chat_example(maker.tokenizer, *maker.chat_template, messages, others, maker.options.now);
}

struct Form {
  std::string_view member;
  Example (*make)(const Maker&, const json::Value&);
};
constexpr Form kForms[] = {{"messages", from_messages}, {"prompt", from_prompt}, {"text", from_text}};

Example make_example(const Maker& maker, std::string_view text) {
  const json::Value line = json::parse(text);
  line.as_object();
  for (const Form& form : kForms) {
    if (line.find(form.member) == nullptr) continue;
    Example example = form.make(maker, line);
    const auto end = std::min(example.learned.size(), static_cast<std::size_t>(maker.options.context));
    if (std::find(example.learned.begin(), example.learned.begin() + static_cast<std::ptrdiff_t>(end),
                  std::uint8_t{1}) == example.learned.begin() + static_cast<std::ptrdiff_t>(end)) {
      fail(ErrorCode::kInvalidArgument, "none of the first {} of {} tokens is to be learned", end,
           example.tokens.size());
    }
    return example;
  }
  fail(ErrorCode::kFormat, "there is neither 'messages' nor 'prompt' and 'completion' nor 'text'");
}

struct Line {
  std::int64_t number;  // from 1
  std::string_view text;
};

std::vector<Line> lines_of(std::string_view content) {
  if (content.starts_with(kByteOrderMark)) content.remove_prefix(kByteOrderMark.size());
  std::vector<Line> lines;
  for (std::int64_t number = 1; !content.empty(); ++number) {
    const std::size_t end = std::min(content.find('\n'), content.size());
    const std::string_view text = content.substr(0, end);
    if (text.find_first_not_of(" \t\r") != std::string_view::npos) lines.push_back({number, text});
    content.remove_prefix(std::min(end + 1, content.size()));
  }
  if (lines.empty()) fail(ErrorCode::kInvalidArgument, "the file is empty");
  return lines;
}

void add_cut(ExampleSet& set, Example example, std::int64_t context) {
  const auto n = static_cast<std::int64_t>(example.tokens.size());
  if (n > context) {
    ++set.truncated;
    set.dropped_tokens += n - context;
    example.tokens.resize(static_cast<std::size_t>(context));
    example.learned.resize(static_cast<std::size_t>(context));
  }
  set.add(std::move(example));
}

}  // namespace

ExampleSet read_jsonl(ExecContext& context, const token::Tokenizer& tokenizer,
                      std::span<const std::filesystem::path> files, const JsonlOptions& options) {
  if (options.context < 2) fail(ErrorCode::kInvalidArgument, "a context of {} tokens", options.context);
  if (files.empty()) fail(ErrorCode::kInvalidArgument, "no file to train on");
  Maker maker{tokenizer, options, {}};
  const std::string& source =
      options.chat_template.empty() ? tokenizer.vocabulary().chat_template : options.chat_template;
  if (!source.empty())
    maker.chat_template.emplace(with_context("chat template", [&] { return jinja::Template(source); }));
  ExampleSet set;
  for (const std::filesystem::path& file : files) {
    with_context(format_text("'{}'", file.string()), [&] {
      const std::string content = read_file(file);
      const std::vector<Line> lines = lines_of(content);
      std::vector<Example> made(lines.size());
      ProgressTask progress(context.progress, format_text("reading {}", file.filename().string()), lines.size(),
                            "lines");
      const auto make = [&](std::size_t i) {
        with_context(format_text("line {}", lines[i].number), [&] { made[i] = make_example(maker, lines[i].text); });
      };
      in_rounds(context, lines.size(), kLinesEach, make, [&](std::size_t first, std::size_t n) {
        for (std::size_t i = first; i < first + n; ++i) add_cut(set, std::move(made[i]), options.context);
        progress.add(n);
      });
    });
  }
  return set;
}

}  // namespace nibble::train
