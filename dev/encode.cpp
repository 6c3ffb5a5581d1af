// nibble_encode FOLDER|GGUF TEXT IDS [plain]: token ids of a file as i32, with the time to load and to encode. For
// comparisons (dev/golden/tokenizer_kinds.py, dev/compare_tokens.py); "plain" adds no begin and end tokens and reads
// control tokens as text.
#include <cstdio>
#include <ctime>
#include <string>
#include <string_view>

#include "base/atomic_file.h"
#include "base/error.h"
#include "container/gguf/reader.h"
#include "container/gguf/vocabulary.h"
#include "token/tokenizer.h"

namespace {

nibble::token::Vocabulary vocabulary_of(const std::string& path) {
  using namespace nibble;
  if (!path.ends_with(".gguf")) return token::load_vocabulary(path);
  return container::gguf::read_vocabulary(container::gguf::open(path)->metadata());
}

double seconds() {
  return static_cast<double>(std::clock()) /
         CLOCKS_PER_SEC;  // of the processor: other work on the machine does not count
}

int run(int argc, char** argv) {
  using namespace nibble;
  if (argc < 4) fail(ErrorCode::kInvalidArgument, "usage: nibble_encode FOLDER|GGUF TEXT IDS [plain]");
  const double start = seconds();
  token::Vocabulary vocabulary = vocabulary_of(argv[1]);
  const double loaded = seconds();
  const auto tokenizer = token::make_tokenizer(std::move(vocabulary));
  const double built = seconds();
  const std::string text = read_file(argv[2]);
  const bool plain = argc > 4 && std::string_view(argv[4]) == "plain";
  const double begin = seconds();
  const auto ids = tokenizer->encode(text, {.add_special = !plain, .parse_special = !plain});
  const double end = seconds();
  write_file_atomically(argv[3], {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(ids[0])});
  std::printf("load %.1f ms, build %.1f ms, encode %.2f MB/s, %zu ids, pre '%s'\n", (loaded - start) * 1e3,
              (built - loaded) * 1e3, static_cast<double>(text.size()) / (end - begin) / 1e6, ids.size(),
              tokenizer->vocabulary().pre.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const nibble::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
