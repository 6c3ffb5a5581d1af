// Every kernel of the table on the largest numbers and on numbers that are none, and the choice of a kernel.
#include <limits>
#include <numeric>

#include "base/error.h"
#include "encoding/block_grid.h"
#include "kernel/linear_test.h"

namespace nibble::kernel {
namespace {

// Makes one number of row `row` infinite or no number: a scale, or a weight of dense ones.
void make_infinite(Tensor& tensor, std::int64_t row) {
  const encoding::EncodingInfo& info = *tensor.view().encoding;
  if (info.family == encoding::Family::kAffine) {
    const std::int64_t groups = encoding::groups_per_row(info.affine, tensor.view().cols());
    const float value = std::numeric_limits<float>::infinity();
    std::memcpy(tensor.mutable_part(PartRole::kScales).data() + row * groups * 4, &value, 4);
    return;
  }
  if (info.family == encoding::Family::kScaled) {
    const float value = std::numeric_limits<float>::quiet_NaN();
    const std::int64_t scales = encoding::scales_per_row(info.scaled, tensor.view().cols());
    if (dtype_bytes(info.scaled.scale_dtype) == 1) {
      tensor.mutable_part(PartRole::kScales)[static_cast<std::size_t>((row + 1) * scales - 1)] = std::byte{0xFF};
      return;
    }
    std::memcpy(tensor.mutable_part(PartRole::kScales).data() + (row + 1) * scales * 4 - 4, &value, 4);
    return;
  }
  if (info.family == encoding::Family::kCodebook) {
    const encoding::CodebookParams& params = info.codebook;
    const std::int64_t cols = tensor.view().cols();
    const float value = std::numeric_limits<float>::infinity();
    const std::uint16_t half = 0xFE00;  // NaN
    if (encoding::has_blocks(params)) {
      std::memcpy(tensor.mutable_part(PartRole::kScales).data() + row * cols / params.block * 4, &value, 4);
    } else {
      std::byte* table = tensor.mutable_part(PartRole::kCodebook).data() +
                         encoding::codebook_part_begin(params, tensor.view().shape, PartRole::kCodebook, row);
      std::memcpy(table, &half, 2);
    }
    return;
  }
  const std::uint64_t row_bytes = encoding::row_bytes(info, tensor.view().cols());
  auto* at = const_cast<std::byte*>(tensor.view().data().data()) + static_cast<std::uint64_t>(row) * row_bytes;
  if (info.grid != nullptr) {
    encoding::BlockFields fields;
    info.grid->unpack(at, fields);
    fields.d = std::numeric_limits<float>::infinity();
    info.grid->pack(fields, at);
  } else if (info.name == "mxfp4") {
    *at = std::byte{0xFF};
  } else {
    const float value = -std::numeric_limits<float>::infinity();
    info.encode(&value, at, 1);
  }
}

TEST(Kernels, PackingNamesTheRowOfANumberThatIsNotFinite) {
  for (const LinearKernel* kernel : all_entries()) {
    for (const char* name : {"q4_0",
                             "q4_1",
                             "q8_0",
                             "iq4_nl",
                             "q2_k",
                             "q4_k",
                             "q6_k",
                             "iq4_xs",
                             "f32",
                             "f16",
                             "bf16",
                             "int4-g128",
                             "int8-channel-asym",
                             "fp8-block1x128",
                             "fp8-channel",
                             "mxfp8-e5m2",
                             "nvfp4-hf",
                             "mxfp4",
                             "mxfp4-hf",
                             "nf4",
                             "kmeans4-channel",
                             "kmeans3-g256"}) {
      const encoding::EncodingInfo& info = encoding::get(name);
      if (!kernel->accepts(info, 512)) continue;
      Tensor tensor = make_weights(info, 21, 512, 8);
      EXPECT_NO_THROW(pack_all(*kernel, tensor.view())) << kernel->name << " " << name;
      make_infinite(tensor, 18);
      try {
        pack_all(*kernel, tensor.view());
        FAIL() << kernel->name << " " << name;
      } catch (const Error& error) {
        EXPECT_EQ(error.message().find("row 18"), 0u) << error.message();
      }
    }
  }
}

// The extreme codes: no sum on the way may overflow or saturate.
TEST(LinearExtremes, LargestProductsAreExact) {
  for (const LinearKernel* kernel : all_entries()) {
    if (kernel->isa > machine_isa()) continue;
    for (const encoding::EncodingInfo* info : encoding::all_entries()) {
      if (info->family != encoding::Family::kBlock || !kernel->accepts(*info, 256)) continue;
      for (const int fill : {0x00, 0x80, 0x7F, 0xFF}) {
        std::vector<std::byte> bytes(static_cast<std::size_t>(info->block_bytes * 16 * 256 / info->block_elements),
                                     static_cast<std::byte>(fill));
        const TensorView view = make_view(*info, Shape{16, 256}, bytes);
        std::vector<float> weights(16 * 256);
        // Bytes of 7F and FF would make the scales NaN or too large: give f16 scales one that is 1.
        for (std::size_t at = 0; info->grid != nullptr && at < bytes.size();
             at += static_cast<std::size_t>(info->block_bytes)) {
          encoding::BlockFields fields;
          info->grid->unpack(bytes.data() + at, fields);
          fields.d = 1;
          fields.dmin = 1;
          info->grid->pack(fields, bytes.data() + at);
        }
        encoding::decode_rows(view, 0, 16, weights.data());
        if (!all_finite(weights.data(), 16 * 256)) continue;
        std::vector<float> x(7 * 256);
        for (std::size_t i = 0; i < x.size(); ++i)
          x[i] = i < 256 * 3 ? 127.0f : i < 256 * 5 ? -127.0f : i % 2 == 0 ? 127.0f : -127.0f;
        const auto out = compute(*kernel, pack_all(*kernel, view), x, 7);
        for (std::size_t t = 0; t < 7; ++t) {
          double sum = 0;
          double magnitude = 0;
          for (std::size_t c = 0; c < 256; ++c) {
            sum += static_cast<double>(weights[c]) * static_cast<double>(x[t * 256 + c]);
            magnitude += std::fabs(static_cast<double>(weights[c]) * static_cast<double>(x[t * 256 + c]));
          }
          const double tolerance = in_tiles(*kernel) ? 1.0 / 128 : 1e-5;
          ASSERT_NEAR(out[t * 16], sum, tolerance * magnitude + 1e-30)
              << kernel->name << " " << info->name << " bytes " << fill;
        }
      }
    }
  }
}

// Row r: a block with the scale first + r and the code c % 16 (or `code` in all) in column c.
Tensor make_powers_of_two(const encoding::EncodingInfo& info, std::int64_t rows, int first, int code = -1) {
  Tensor tensor = encoding::allocate(info, Shape{rows, 32});
  const bool apart = info.family == encoding::Family::kScaled;  // the scales, and neighbours share a byte
  std::byte* codes = tensor.mutable_part(PartRole::kCodes).data();
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto scale = static_cast<std::byte>(first + r);
    apart ? tensor.mutable_part(PartRole::kScales)[static_cast<std::size_t>(r)] = scale : * codes++ = scale;
    for (int i = 0; i < 16; ++i) {
      const int low = code >= 0 ? code : (apart ? 2 * i : i) % 16;
      const int high = code >= 0 ? code : (apart ? 2 * i + 1 : i) % 16;
      *codes++ = static_cast<std::byte>(low | high << 4);
    }
  }
  return tensor;
}

// Every power of two that scales codes, however far from those of f16, and every code: the products are exact.
TEST(LinearExtremes, EveryScaleOfMxfp4IsExact) {
  constexpr std::int64_t kRows = 253;
  std::vector<float> x(16 * 32);
  for (std::size_t t = 0; t < 16; ++t) x[t * 32 + t] = 127.0f;  // column t
  for (const char* name : {"mxfp4", "mxfp4-hf"}) {
    const Tensor tensor = make_powers_of_two(encoding::get(name), kRows, 0);
    std::vector<float> weights(kRows * 32);
    encoding::decode_rows(tensor.view(), 0, kRows, weights.data());
    for (const LinearKernel* kernel : all_entries()) {
      if (kernel->isa > machine_isa() || !kernel->accepts(encoding::get(name), 32)) continue;
      const Packed packed = pack_all(*kernel, tensor.view());
      const auto out = compute(*kernel, packed, x, 16);
      std::vector<float> row(32);
      for (std::size_t r = 0; r < kRows; ++r) {
        for (std::size_t t = 0; t < 16; ++t) {
          const float weight = weights[r * 32 + t];
          if (in_tiles(*kernel) && std::fabs(weight) < std::numeric_limits<float>::min())
            continue;  // tiles take it for 0
          ASSERT_EQ(out[t * kRows + r], 127.0f * weight) << kernel->name << " " << name << " scale " << r;
        }
        kernel->layout.unpack_row(packed.matrix, packed.buffer.data(), static_cast<std::int64_t>(r), row.data());
        ASSERT_EQ(0, std::memcmp(row.data(), &weights[r * 32], 32 * sizeof(float))) << kernel->name << " " << name;
      }
    }
  }
}

TEST(Kernels, PackBothOrdersOfMxfp4IntoOneLayout) {
  const Tensor apart = make_weights(encoding::get("mxfp4-hf"), 21, 288, 3);
  Tensor blocks = encoding::allocate(encoding::get("mxfp4"), Shape{21, 288});
  for (std::int64_t r = 0; r < 21; ++r) {
    encoding::repack_row(apart.view(), r, blocks.mutable_part(PartRole::kCodes).data() + r * 288 / 32 * 17);
  }
  const LinearKernel& kernel = choose_linear(encoding::get("mxfp4"), 288, Isa::kScalar);
  const Packed a = pack_all(kernel, apart.view());
  const Packed b = pack_all(kernel, blocks.view());
  ASSERT_EQ(a.buffer.size(), b.buffer.size());
  EXPECT_EQ(0, std::memcmp(a.buffer.data(), b.buffer.data(), a.buffer.size()));
}

TEST(LinearExtremes, RefusesWeightsOfMxfp4BeyondF32) {
  for (const char* name : {"mxfp4", "mxfp4-hf"}) {
    for (const LinearKernel* kernel : all_entries()) {
      const encoding::EncodingInfo& info = encoding::get(name);
      if (!kernel->accepts(info, 32)) continue;
      EXPECT_NO_THROW(pack_all(*kernel, make_powers_of_two(info, 1, 252, 15).view())) << kernel->name << " " << name;
      EXPECT_NO_THROW(pack_all(*kernel, make_powers_of_two(info, 1, 254, 9).view())) << kernel->name << " " << name;
      EXPECT_THROW(pack_all(*kernel, make_powers_of_two(info, 1, 253, 15).view()), Error)
          << kernel->name << " " << name;
      EXPECT_THROW(pack_all(*kernel, make_powers_of_two(info, 1, 255, 15).view()), Error)
          << kernel->name << " " << name;
    }
  }
}

// Weights with every byte of the codes `fill`, scales of 1 and, if asymmetric, zeros of 255 - fill.
Tensor make_extreme(const encoding::EncodingInfo& info, std::int64_t rows, std::int64_t cols, int fill) {
  Tensor tensor = encoding::allocate(info, Shape{rows, cols});
  const auto codes = tensor.mutable_part(PartRole::kCodes);
  std::memset(codes.data(), fill, codes.size());
  std::byte* scales = tensor.mutable_part(PartRole::kScales).data();
  std::byte* zeros = info.affine.symmetric ? nullptr : tensor.mutable_part(PartRole::kZeros).data();
  for (std::int64_t i = 0; i < encoding::scales_shape(info.affine, Shape{rows, cols}).elements(); ++i) {
    encoding::store_scale_zero(info.affine, {1, 255 - fill}, scales, zeros, i);
  }
  return tensor;
}

// The sums are whole numbers that f32 holds, so every product is exact.
TEST(LinearExtremes, LargestAffineProductsAreExact) {
  std::vector<float> x(7 * 256);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = i < 256 * 2 || (i >= 256 * 4 && i % 2 == 0) ? 127.0f : -127.0f;
  for (const LinearKernel* kernel : all_entries()) {
    if (kernel->isa > machine_isa()) continue;
    for (const char* name : {"int2-g64", "int3-g64-asym", "int4-g64", "int4-g64-asym", "int5-g64", "int5-g64-asym",
                             "int6-g64", "int6-g64-asym", "int7-g64-asym", "int8-g64", "int8-g64-asym"}) {
      const encoding::EncodingInfo& info = encoding::get(name);
      if (!kernel->accepts(info, 256)) continue;
      for (const int fill : {0x00, 0xFF, 0x0F}) {
        const Tensor tensor = make_extreme(info, 16, 256, fill);
        std::vector<float> weights(16 * 256);
        encoding::decode_rows(tensor.view(), 0, 16, weights.data());
        const auto out = compute(*kernel, pack_all(*kernel, tensor.view()), x, 7);
        for (std::int64_t t = 0; t < 7; ++t) {
          const float sum = std::inner_product(weights.begin(), weights.begin() + 256, x.begin() + t * 256, 0.0f);
          ASSERT_EQ(out[static_cast<std::size_t>(t * 16)], sum)
              << kernel->name << " " << name << " bytes " << fill << " token " << t;
        }
      }
    }
  }
}

TEST(ChooseLinear, TakesTheIntegerKernelForAffineGroupsOfWholeBlocks) {
  for (const char* name : {"int2-g32", "int4-g128-asym", "int7-channel", "int8-tensor"}) {
    EXPECT_TRUE(choose_linear(encoding::get(name), 512, Isa::kAvx512).name.starts_with("affine/")) << name;
  }
  EXPECT_TRUE(choose_linear(encoding::get("int4-g48"), 480, Isa::kAvx512).name.starts_with("generic/"));
  EXPECT_TRUE(choose_linear(encoding::get("int8-channel"), 40, Isa::kAvx512).name.starts_with("generic/"));
}

// Listed groups are sorted where that makes them even, and taken one by one elsewhere.
TEST(ChooseLinear, TakesTheIntegerKernelForListedGroupsThatAreEven) {
  constexpr std::int64_t kRows = 37, kCols = 288, kTokens = 33;
  for (const char* name : {"int4-g128-gidx", "int4-g96-gidx-asym-f16"}) {
    const encoding::EncodingInfo& info = encoding::get(name);
    Tensor tensor = make_weights(info, kRows, kCols, 4);
    ASSERT_TRUE(encoding::has_even_groups(tensor.view()));
    const LinearKernel& even = choose_linear(info, kCols, machine_isa(), true);
    EXPECT_TRUE(even.name.starts_with("affine/")) << name;
    const LinearKernel& any = choose_linear(info, kCols, machine_isa(), false);
    EXPECT_TRUE(any.name.starts_with("generic/")) << name;
    const Packed packed = pack_all(even, tensor.view());
    const auto x = sort_columns(even, packed, make_activations(kTokens, kCols, 5), true);
    const auto a = compute(even, packed, x, kTokens), b = compute(any, pack_all(any, tensor.view()), x, kTokens);
    double square = 0, largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      square += static_cast<double>(b[i]) * static_cast<double>(b[i]);
      largest = std::max(largest, static_cast<double>(std::fabs(a[i] - b[i])));
    }
    EXPECT_LT(largest, 1e-5 * std::sqrt(square / static_cast<double>(a.size()))) << name;

    const auto list = tensor.mutable_part(PartRole::kGroupIndex);
    std::int32_t moved = 0;
    std::memcpy(&moved, list.data() + 40, 4);
    moved = (moved + 1) % 2;
    std::memcpy(list.data() + 40, &moved, 4);
    EXPECT_FALSE(encoding::has_even_groups(tensor.view())) << name;
    std::vector<float> weights(kRows * kCols);
    encoding::decode_rows(tensor.view(), 0, kRows, weights.data());
    const auto out = compute(any, pack_all(any, tensor.view()), x, kTokens);
    for (std::int64_t i = 0; i < kTokens * kRows; ++i) {
      const float* row = weights.data() + i % kRows * kCols;
      const double sum = std::inner_product(row, row + kCols, x.begin() + i / kRows * kCols, 0.0);
      ASSERT_NEAR(out[static_cast<std::size_t>(i)], sum, 1e-2) << name;
    }
  }
}

TEST(ChooseLinear, TakesTheIntegerKernelForCodebooksInRowsOfWholeBlocks) {
  for (const char* name : {"nf4", "nf4-dq-b4096", "fp4", "kmeans4-channel", "kmeans2-tensor", "kmeans3-g64"}) {
    EXPECT_TRUE(choose_linear(encoding::get(name), 96, Isa::kAvx512).name.starts_with("codebook/")) << name;
    EXPECT_TRUE(choose_linear(encoding::get(name), 40, Isa::kAvx512).name.starts_with("generic/")) << name;
  }
  EXPECT_TRUE(choose_linear(encoding::get("kmeans4-g48"), 96, Isa::kAvx512).name.starts_with("generic/"));
}

// Rows that no kernel but the generic one takes, by values.
TEST(Kernels, CodebooksOfAnyLengthOfRows) {
  for (const char* name : {"nf4", "nf4-b4096", "fp4-dq-b32", "kmeans4-channel", "kmeans3-g40", "kmeans2-g700"}) {
    const encoding::EncodingInfo& info = encoding::get(name);
    for (const std::int64_t cols : {1, 2, 7, 31, 33, 100, 257, 515}) {
      const LinearKernel& kernel = choose_linear(info, cols, Isa::kAvx512);
      const Tensor tensor = make_weights(info, 21, cols, 3);
      std::vector<float> weights(static_cast<std::size_t>(21 * cols)), row(static_cast<std::size_t>(cols));
      encoding::decode_rows(tensor.view(), 0, 21, weights.data());
      const Packed packed = pack_all(kernel, tensor.view());
      for (std::int64_t r = 0; r < 21; ++r) {
        kernel.layout.unpack_row(packed.matrix, packed.buffer.data(), r, row.data());
        ASSERT_EQ(0, std::memcmp(row.data(), weights.data() + r * cols, row.size() * sizeof(float)))
            << name << " " << cols << " row " << r;
      }
      const std::vector<float> x(row.size(), 1.0f);
      const auto out = compute(kernel, packed, x, 1);
      for (std::int64_t r = 0; r < 21; ++r) {
        const double sum = std::accumulate(weights.begin() + r * cols, weights.begin() + (r + 1) * cols, 0.0);
        EXPECT_NEAR(out[static_cast<std::size_t>(r)], sum, 1e-5) << name << " " << cols;
      }
    }
  }
}

// Levels of 16 bits times activations of 8: no sum on the way overflows.
TEST(LinearExtremes, LargestCodebookProductsAreExact) {
  std::vector<float> x(5 * 256);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = i < 256 * 2 || (i >= 256 * 4 && i % 2 == 0) ? 127.0f : -127.0f;
  for (const LinearKernel* kernel : all_entries()) {
    if (kernel->isa > machine_isa()) continue;
    for (const char* name : {"fp4", "kmeans4-channel", "kmeans3-g64", "kmeans2-tensor"}) {
      const encoding::EncodingInfo& info = encoding::get(name);
      if (!kernel->accepts(info, 256)) continue;
      for (const bool negative : {false, true}) {
        Tensor tensor = encoding::allocate(info, Shape{16, 256});
        std::memset(tensor.mutable_part(PartRole::kCodes).data(), negative ? 0xBB : 0x33, tensor.view().data().size());
        for (int i = 1; i < tensor.view().n_parts; ++i) {
          const Part& part = tensor.view().parts[static_cast<std::size_t>(i)];
          const encoding::EncodingInfo& dtype = encoding::get(dtype_name(part.dtype));
          const float value = part.role == PartRole::kCodebook && negative ? -65504.0f : 1.0f;
          for (std::size_t at = 0; at < part.bytes.size(); at += static_cast<std::size_t>(dtype.block_bytes))
            dtype.encode(&value, tensor.mutable_part(part.role).data() + at, 1);
        }
        std::vector<float> weights(16 * 256);
        encoding::decode_rows(tensor.view(), 0, 16, weights.data());
        const auto out = compute(*kernel, pack_all(*kernel, tensor.view()), x, 5);
        for (std::int64_t t = 0; t < 5; ++t) {
          const double sum = std::inner_product(weights.begin(), weights.begin() + 256, x.begin() + t * 256, 0.0);
          const double tolerance = in_tiles(*kernel) ? 1.0 / 256 : 1e-6;
          ASSERT_NEAR(out[static_cast<std::size_t>(t * 16)], sum, tolerance * std::fabs(sum))
              << kernel->name << " " << name;
        }
      }
    }
  }
}

TEST(ChooseLinear, TakesTheIntegerKernelForMxfp4InEitherOrder) {
  for (const char* name : {"mxfp4", "mxfp4-hf"}) {
    EXPECT_TRUE(choose_linear(encoding::get(name), 96, Isa::kAvx512).name.starts_with("blocks/")) << name;
  }
}

TEST(ChooseLinear, AlwaysFindsAKernelWithinTheInstructionSet) {
  for (const encoding::EncodingInfo* info : encodings()) {
    for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
      const LinearKernel& kernel = choose_linear(*info, 512, isa);
      EXPECT_LE(kernel.isa, isa);
      EXPECT_TRUE(kernel.accepts(*info, 512));
    }
  }
}

TEST(ChooseLinear, SaysWhichWeightsItCannotTake) {
  try {
    choose_linear(encoding::get("q4_k"), 96, Isa::kScalar);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(error.message().find("q4_k"), std::string::npos);
  }
}

}  // namespace
}  // namespace nibble::kernel
