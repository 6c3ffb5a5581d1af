#include "cli/generation_options.h"

#include <charconv>

#include "base/error.h"
#include "cli/lora_option.h"
#include "pipeline/choices.h"

namespace nibble::cli {

namespace {

// "ID=BIAS": 1234=-2.5, 2=-inf.
std::pair<std::int32_t, float> parse_logit_bias(const std::string& text) {
  const std::size_t equals = text.find('=');
  std::pair<std::int32_t, float> bias{};
  const auto read = [&](std::size_t begin, std::size_t end, auto& value) {
    if (end > begin + 1 && text[begin] == '+') ++begin;
    const char* last = text.data() + end;
    const auto result = std::from_chars(text.data() + begin, last, value);
    return begin < end && result.ec == std::errc{} && result.ptr == last;
  };
  if (equals == std::string::npos || !read(0, equals, bias.first) || !read(equals + 1, text.size(), bias.second)) {
    throw CLI::ValidationError("--logit-bias", "expected ID=BIAS, as in 1234=-2.5 or 2=-inf, not '" + text + "'");
  }
  return bias;
}

}  // namespace

void add_generation_options(CLI::App& app, GenerationSettings& settings) {
  app.add_option("-c,--ctx", settings.context, "tokens of room (the trained context)");
  app.add_option("--temp", settings.temperature, "0: always the likeliest token")->capture_default_str();
  app.add_option("--seed", settings.seed, "of the sampling")->capture_default_str();
  app.add_option("--top-k", settings.top_k, "sample from the k likeliest tokens; 0: all")->capture_default_str();
  app.add_option("--top-p", settings.top_p, "from the likeliest that sum to p")->capture_default_str();
  app.add_option("--min-p", settings.min_p, "from those at least this share of the likeliest")->capture_default_str();
  app.add_option("--repeat-penalty", settings.repetition_penalty, "of tokens seen lately; 1: none")
      ->capture_default_str();
  app.add_option("--repeat-window", settings.repetition_window, "tokens that count as lately; 0: all")
      ->capture_default_str();
  app.add_option_function<std::vector<std::string>>(
         "--logit-bias",
         [&settings](const std::vector<std::string>& all) {
           for (const std::string& text : all) settings.logit_bias.push_back(parse_logit_bias(text));
         },
         "make a token likelier or less likely; -inf: never")
      ->type_name("ID=BIAS")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_flag("--exact", settings.exact, "decoded f32 weights and f32 math");
  add_lora_option(app, settings.adapters, "adapter to run with");
  app.add_option("--kv-cache", settings.kv_cache,
                 pipeline::kv_type_list() + " (the folder's, else f16; with --exact f32)")
      ->type_name("TYPE");
}

}  // namespace nibble::cli
