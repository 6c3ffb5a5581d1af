// nf4 and fp4 as bitsandbytes makes them (testdata/codebook.bin, made by dev/golden/codebook.py), for tests.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "encoding/encoding.h"

namespace nibble::encoding {

struct CodebookGolden {
  std::string name;  // "nf4-dq/9x96"
  const EncodingInfo* info = nullptr;
  Shape shape;
  std::vector<float> weights;
  std::vector<float> decoded;  // empty of large ones
  std::vector<std::byte> parts;

  // A tensor of those parts.
  Tensor tensor() const {
    Tensor made = allocate(*info, shape);
    std::size_t at = 0;
    for (int i = 0; i < made.view().n_parts; ++i) {
      const std::span<std::byte> part = made.mutable_part(made.view().parts[static_cast<std::size_t>(i)].role);
      std::memcpy(part.data(), parts.data() + at, part.size());
      at += part.size();
    }
    return made;
  }
};

inline std::vector<CodebookGolden> codebook_golden() {
  const std::string file = read_file(NIBBLE_SOURCE_DIR "/src/encoding/testdata/codebook.bin");
  std::vector<CodebookGolden> all;
  for (std::size_t at = 0; at < file.size();) {
    const auto take = [&](void* dst, std::size_t n) {
      if (at + n > file.size()) throw std::runtime_error("codebook.bin ends early");
      if (n > 0) std::memcpy(dst, file.data() + at, n);
      at += n;
    };
    CodebookGolden golden;
    std::uint8_t length = 0;
    std::uint32_t counts[2] = {};
    take(&length, 1);
    golden.name.resize(length);
    take(golden.name.data(), length);
    take(counts, sizeof counts);
    const std::size_t slash = golden.name.find('/'), cross = golden.name.find('x', slash);
    golden.info = &get(golden.name.substr(0, slash));
    golden.shape = {std::stoll(golden.name.substr(slash + 1)), std::stoll(golden.name.substr(cross + 1))};
    golden.weights.resize(static_cast<std::size_t>(golden.shape.elements()));
    golden.decoded.resize(counts[0] - golden.weights.size());
    golden.parts.resize(counts[1]);
    take(golden.weights.data(), golden.weights.size() * 4);
    take(golden.decoded.data(), golden.decoded.size() * 4);
    take(golden.parts.data(), golden.parts.size());
    all.push_back(std::move(golden));
  }
  return all;
}

}  // namespace nibble::encoding
