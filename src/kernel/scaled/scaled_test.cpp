// Scaled floats on every kernel that takes them: all codes, those that are no numbers, and the choice of a kernel.
#include "base/error.h"
#include "kernel/linear_test.h"

namespace nibble::kernel {
namespace {

TEST(Kernels, PackingNamesTheRowOfACodeThatIsNotFinite) {
  for (const LinearKernel* kernel : all_entries()) {
    for (const auto& [name, code] : {std::pair{"fp8-tensor", 0x7F}, {"mxfp8", 0xFF}, {"fp8-channel-e5m2", 0x7C}}) {
      const encoding::EncodingInfo& info = encoding::get(name);
      if (!kernel->accepts(info, 64)) continue;
      Tensor tensor = make_weights(info, 21, 64, 8);
      tensor.mutable_part(PartRole::kCodes)[18 * 64 + 63] = static_cast<std::byte>(code);
      try {
        pack_all(*kernel, tensor.view());
        FAIL() << kernel->name << " " << name;
      } catch (const Error& error) {
        EXPECT_EQ(error.message().find("row 18"), 0u) << error.message();
      }
    }
  }
}

// Every code, each in a row and column of its own, those without a leading bit and zeros of either sign, too.
TEST(LinearExtremes, EveryCodeOfScaledFloatsIsExact) {
  constexpr std::int64_t kCols = 256;
  for (const char* name : {"fp8-tensor", "fp8-channel-e5m2", "mxfp8", "mxfp4-hf", "nvfp4-hf"}) {
    const encoding::EncodingInfo& info = encoding::get(name);
    Tensor tensor = make_weights(info, 16, kCols, 4);
    const auto codes = tensor.mutable_part(PartRole::kCodes);
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const auto code = static_cast<std::uint8_t>(i * 17);
      const std::uint8_t largest = info.scaled.code == encoding::FloatCode::kE5m2 ? 0x7B : 0x7E;
      const bool finite = info.scaled.code == encoding::FloatCode::kE2m1 || (code & 0x7F) <= largest;
      codes[i] = static_cast<std::byte>(finite ? code : 1);
    }
    const std::span<std::byte> scales = tensor.mutable_part(PartRole::kScales);
    const encoding::EncodingInfo& dtype = encoding::get(dtype_name(info.scaled.scale_dtype));
    const float one = 1;
    for (std::size_t at = 0; at < scales.size(); at += static_cast<std::size_t>(dtype.block_bytes))
      dtype.encode(&one, scales.data() + at, 1);
    if (info.scaled.global_scale) std::memcpy(tensor.mutable_part(PartRole::kGlobalScale).data(), &one, 4);
    std::vector<float> weights(16 * kCols), x(kCols * kCols);
    encoding::decode_rows(tensor.view(), 0, 16, weights.data());
    for (std::size_t t = 0; t < kCols; ++t) x[t * kCols + t] = 1;  // column t
    for (const LinearKernel* kernel : all_entries()) {
      if (kernel->isa > machine_isa() || !kernel->accepts(info, kCols)) continue;
      const auto out = compute(*kernel, pack_all(*kernel, tensor.view()), x, kCols);
      for (std::size_t i = 0; i < out.size(); ++i)
        ASSERT_EQ(out[i], weights[i % 16 * kCols + i / 16]) << kernel->name << " " << name << " " << i;
    }
  }
}

// Every byte that a scale of GGUF's blocks may be, those with a sign and GGML's zero, beside every code.
TEST(LinearExtremes, EveryScaleOfGgufsNvfp4IsExact) {
  constexpr std::int64_t kCols = 256;
  const encoding::EncodingInfo& info = encoding::get("nvfp4");
  Tensor tensor = encoding::allocate(info, Shape{16, kCols});
  const std::span<std::byte> bytes = tensor.mutable_part(PartRole::kCodes);
  for (std::size_t block = 0; block < bytes.size() / 36; ++block) {
    for (std::size_t i = 0; i < 36; ++i)
      bytes[block * 36 + i] = static_cast<std::byte>(i < 4 ? 4 * block + i : block * 32 + i * 37);
  }
  std::vector<float> weights(16 * kCols), x(kCols * kCols), row(kCols);
  encoding::decode_rows(tensor.view(), 0, 16, weights.data());
  for (std::size_t t = 0; t < kCols; ++t) x[t * kCols + t] = 1;  // column t
  for (const LinearKernel* kernel : all_entries()) {
    if (kernel->isa > machine_isa() || !kernel->accepts(info, kCols)) continue;
    const Packed packed = pack_all(*kernel, tensor.view());
    const auto out = compute(*kernel, packed, x, kCols);
    for (std::size_t i = 0; i < out.size(); ++i)
      ASSERT_EQ(out[i], weights[i % 16 * kCols + i / 16]) << kernel->name << " " << i;
    for (std::size_t r = 0; r < 16; ++r) {
      kernel->layout.unpack_row(packed.matrix, packed.buffer.data(), static_cast<std::int64_t>(r), row.data());
      EXPECT_TRUE(std::equal(row.begin(), row.end(), &weights[r * kCols])) << kernel->name << " " << r;
    }
  }
}

TEST(ChooseLinear, TakesTheFloatKernelForScaledFloats) {
  const encoding::ActivationInfo& token = encoding::get_activation("fp8-token");
  for (const char* name :
       {"fp8-tensor", "fp8-channel-bf16", "fp8-block128x128", "fp8-block1x48", "mxfp8", "nvfp4-hf"}) {
    const encoding::EncodingInfo& info = encoding::get(name);
    for (const encoding::ActivationInfo* inputs : {static_cast<const encoding::ActivationInfo*>(nullptr), &token}) {
      EXPECT_EQ(choose_linear(info, 96, Isa::kAvx512, true, inputs).name, "scaled/avx512") << name;
      EXPECT_EQ(choose_linear(info, 96, Isa::kAvx2, true, inputs).name, "scaled/avx2") << name;
      EXPECT_EQ(choose_linear(info, 96, Isa::kScalar, true, inputs).name, "generic/scalar") << name;
      EXPECT_EQ(choose_wide(info, 96, Isa::kAmx, true, inputs).name, inputs == nullptr ? "scaled/amx" : "scaled/avx512")
          << name;
      EXPECT_EQ(choose_linear(info, 48, Isa::kAvx512, true, inputs).name, "generic/scalar") << name;
    }
  }
  EXPECT_EQ(choose_linear(encoding::get("nvfp4"), 192, Isa::kAvx512).name, "scaled/avx512");
  EXPECT_EQ(choose_linear(encoding::get("nvfp4"), 192, Isa::kAvx2).name, "scaled/avx2");
  EXPECT_EQ(choose_linear(encoding::get("fp8-block16x40"), 96, Isa::kAvx512).name, "generic/scalar");
}

}  // namespace
}  // namespace nibble::kernel
