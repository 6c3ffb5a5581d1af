#include "token/text_normalizer.h"

#include "base/error.h"
#include "token/unicode.h"
#include "token/utf8.h"

namespace nibble::token {

namespace {

constexpr std::size_t kTextLimit = std::size_t{1} << 31;

void append(std::string& out, std::string_view text) {
  if (text.size() > kTextLimit - out.size())
    fail(ErrorCode::kUnsupported, "the normaliser makes more than 2 GiB of the text");
  out += text;
}

std::string replace(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  out.reserve(text.size());
  if (pattern.empty()) return std::string(text);
  for (std::size_t at = 0;;) {
    const std::size_t found = text.find(pattern, at);
    if (found == std::string_view::npos) {
      append(out, text.substr(at));
      return out;
    }
    append(out, text.substr(at, found - at));
    append(out, content);
    at = found + pattern.size();
  }
}

std::string replace(std::string_view text, const Regex& regex, std::string_view content) {
  Regex::Scratch scratch;
  std::vector<Span> matches;
  regex.find_all(text, scratch, matches);
  std::string out;
  std::size_t at = 0;
  for (const Span& match : matches) {
    append(out, text.substr(at, match.begin - at));
    append(out, content);
    at = match.end;
  }
  append(out, text.substr(at));
  return out;
}

// The tokenizers library looks precompiled rules up by grapheme cluster, and the shortest rule stands for the whole
// cluster.
std::string apply_charsmap(const Charsmap& rules, std::string_view text) {
  std::string out;
  std::string_view replacement;
  while (!text.empty()) {
    std::string_view cluster = text.substr(0, grapheme_length(text));
    text.remove_prefix(cluster.size());
    if (cluster.size() < 6 && rules.shortest(cluster, replacement)) {
      append(out, replacement);
      continue;
    }
    while (!cluster.empty()) {
      const std::string_view one = cluster.substr(0, announced_length(cluster));
      append(out, rules.shortest(one, replacement) ? replacement : one);
      cluster.remove_prefix(one.size());
    }
  }
  return out;
}

}  // namespace

TextNormalizer::TextNormalizer(const std::vector<NormalizerStep>& steps) {
  for (const NormalizerStep& rule : steps) {
    Step step{rule, {}, {}};
    if (rule.kind == NormalizerStep::Kind::kReplaceRegex) step.regex.emplace_back(rule.pattern);
    if (rule.kind == NormalizerStep::Kind::kCharsmap) step.charsmap.emplace_back(rule.pattern);
    steps_.push_back(std::move(step));
  }
}

std::string TextNormalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) out = apply_step(step, std::move(out));
  return is_valid_utf8(out) ? out : replace_malformed(out);
}

std::string TextNormalizer::apply_step(const Step& step, std::string text) {
  switch (step.rule.kind) {
    case NormalizerStep::Kind::kNfc:
      return normalize_unicode(text, NormalForm::kNfc);
    case NormalizerStep::Kind::kNfd:
      return normalize_unicode(text, NormalForm::kNfd);
    case NormalizerStep::Kind::kNfkc:
      return normalize_unicode(text, NormalForm::kNfkc);
    case NormalizerStep::Kind::kNfkd:
      return normalize_unicode(text, NormalForm::kNfkd);
    case NormalizerStep::Kind::kLowercase:
      return to_lower(text);
    case NormalizerStep::Kind::kReplace:
      return replace(text, step.rule.pattern, step.rule.content);
    case NormalizerStep::Kind::kReplaceRegex:
      return replace(text, step.regex[0], step.rule.content);
    case NormalizerStep::Kind::kPrepend:
      return text.empty() ? text : step.rule.content + text;
    case NormalizerStep::Kind::kStripLeft:
      return text.substr(leading_space(text));
    case NormalizerStep::Kind::kStripRight:
      return text.substr(0, text.size() - trailing_space(text));
    case NormalizerStep::Kind::kCharsmap:
      return apply_charsmap(step.charsmap[0], text);
  }
  return text;
}

}  // namespace nibble::token
