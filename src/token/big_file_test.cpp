// A tokenizer.json as large as those of today's models: 128 000 tokens, 280 000 merges, 11 MB.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/format.h"
#include "base/rng.h"
#include "token/byte_alphabet.h"
#include "token/tokenizer.h"
#include "token/tokenizer_json.h"

namespace nibble::token {
namespace {

constexpr std::size_t kTokens = 128000;
constexpr std::size_t kMerges = 280000;

// Words joined from two others, then more ways to make the same ones.
std::string make_file() {
  std::vector<std::string> tokens;
  for (unsigned byte = 33; byte < 127; ++byte) {
    if (byte != '"' && byte != '\\') tokens.push_back(byte_alphabet()[byte]);
  }
  std::unordered_set<std::string> known(tokens.begin(), tokens.end());
  std::vector<std::pair<std::string, std::string>> merges;
  for (std::uint64_t i = 0; tokens.size() < kTokens; ++i) {
    const std::string& left = tokens[random_bits(1, 0, i) % tokens.size()];
    const std::string& right = tokens[random_bits(1, 1, i) % std::min<std::size_t>(tokens.size(), 4000)];
    if (left.size() + right.size() > 14 || !known.insert(left + right).second) continue;
    merges.emplace_back(left, right);
    tokens.push_back(left + right);
  }
  for (std::size_t i = 0; merges.size() < kMerges; i = (i + 1) % tokens.size()) {
    const std::string& token = tokens[i];
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      if (known.contains(token.substr(0, cut)) && known.contains(token.substr(cut)))
        merges.emplace_back(token.substr(0, cut), token.substr(cut));
    }
  }
  std::string file =
      R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"model":{"type":"BPE","vocab":{)";
  for (std::size_t i = 0; i < tokens.size(); ++i)
    file += format_text("{}\n      \"{}\": {}", i > 0 ? "," : "", tokens[i], i);
  file += "},\"merges\":[";
  for (std::size_t i = 0; i < merges.size(); ++i)
    file += format_text("{}[\n\"{}\",\n\"{}\"]", i > 0 ? "," : "", merges[i].first, merges[i].second);
  return file + "]}}";
}

TEST(BigFileSlow, IsReadyInATenthOfASecond) {
  const std::string file = make_file();
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const std::clock_t start = std::clock();
    const auto tokenizer = make_tokenizer(parse_tokenizer_json(file));
    best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    ASSERT_EQ(tokenizer->size(), static_cast<int>(kTokens));
    ASSERT_EQ(tokenizer->decode(tokenizer->encode("Some-text,12!")), "Some-text,12!");
  }
  std::printf("%.1f MB, %.0f ms\n", static_cast<double>(file.size()) / 1e6, best * 1e3);
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(best, 0.2);  // a tenth on the machines this is written on; processor time
#endif
}

}  // namespace
}  // namespace nibble::token
