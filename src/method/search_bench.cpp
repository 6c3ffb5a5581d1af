// Speed of a method, and its bytes for a raw matrix, for bench/search.py to compare with another quantizer.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include "base/rng.h"
#include "method/quantizer.h"

namespace nibble::method {
namespace {

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::vector<float> read_floats(const char* path, std::size_t n) {
  std::vector<float> out(n);
  std::ifstream file(path, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(n * 4))) {
    fail(ErrorCode::kIo, "'{}' has no {} floats", path, n);
  }
  return out;
}

struct Run {
  std::string type, method = "search";
  std::int64_t rows = 0, cols = 0;
  Isa isa = best_isa();
};

// Bytes of the matrix, and the processor seconds it took.
std::vector<std::byte> quantize(const Run& run, const std::vector<float>& weights, const std::vector<float>& importance,
                                double& seconds) {
  const encoding::EncodingInfo& target = encoding::get(run.type);
  Job job{
      .tensor = "matrix", .target = &target, .shape = {run.rows, run.cols}, .statistics = {importance}, .options = {}};
  job.options.isa = run.isa;
  const auto quantizer = get(run.method).make(job);
  const std::uint64_t row_bytes = encoding::row_bytes(target, run.cols);
  std::vector<std::byte> out(row_bytes * static_cast<std::uint64_t>(run.rows));
  const double start = cpu_seconds();
  constexpr std::int64_t kRows = 16;
  for (std::int64_t row = 0; row < run.rows; row += kRows) {
    RowsOut rows;
    rows.parts[0] = out.data() + row_bytes * static_cast<std::uint64_t>(row);
    quantizer->quantize_rows(weights.data() + row * run.cols, row, std::min(kRows, run.rows - row), rows);
  }
  seconds = cpu_seconds() - start;
  return out;
}

void speed(int argc, char** argv) {
  const std::int64_t rows = 1024, cols = 4096;
  std::vector<float> weights(static_cast<std::size_t>(rows * cols)), importance(static_cast<std::size_t>(cols));
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = 0.02f * random_normal(1, 0, i);
  for (std::size_t i = 0; i < importance.size(); ++i) importance[i] = std::exp(random_normal(1, 1, i));
  std::vector<std::string> types(argv, argv + argc);
  if (types.empty())
    types = {"q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "iq4_xs"};
  for (const std::string& type : types) {
    std::printf("%-7s", type.c_str());
    for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
      if (isa > best_isa()) continue;
      double best = 1e9, seconds = 0;
      for (int i = 0; i < 3; ++i) {
        quantize({.type = type, .rows = rows, .cols = cols, .isa = isa}, weights, importance, seconds);
        best = std::min(best, seconds);
      }
      std::printf("  %s %6.1f", std::string(isa_name(isa)).c_str(), static_cast<double>(rows * cols) / best / 1e6);
    }
    std::printf("  million weights per processor second\n");
  }
}

void encode(char** argv) {
  const Run run{.type = argv[0], .method = argv[1], .rows = std::atoll(argv[2]), .cols = std::atoll(argv[3])};
  const auto weights = read_floats(argv[4], static_cast<std::size_t>(run.rows * run.cols));
  const bool weighted = std::strcmp(argv[5], "-") != 0;
  const auto importance = weighted ? read_floats(argv[5], static_cast<std::size_t>(run.cols)) : std::vector<float>{};
  double seconds = 0;
  const auto bytes = quantize(run, weights, importance, seconds);
  std::ofstream(argv[6], std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  std::printf("%.6f\n", seconds);
}

}  // namespace
}  // namespace nibble::method

int main(int argc, char** argv) {
  try {
    if (argc >= 2 && std::strcmp(argv[1], "speed") == 0) {
      nibble::method::speed(argc - 2, argv + 2);
    } else if (argc == 9 && std::strcmp(argv[1], "encode") == 0) {
      nibble::method::encode(argv + 2);
    } else {
      std::fprintf(stderr,
                   "usage: %s speed [TYPE...] | encode TYPE METHOD ROWS COLS WEIGHTS.f32 IMPORTANCE.f32|- OUT\n",
                   argv[0]);
      return 2;
    }
  } catch (const nibble::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
