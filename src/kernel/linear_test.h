// Weights and activations for the tests of kernels, and one call of a kernel on them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "encoding/activation.h"
#include "encoding/affine.h"
#include "encoding/codebook.h"
#include "encoding/scaled.h"
#include "kernel/linear.h"
#include "tensor/half.h"

namespace nibble::kernel {

inline bool all_finite(const float* values, std::int64_t n) {
  return std::all_of(values, values + n, [](float v) { return std::isfinite(v) && std::fabs(v) < 1e6f; });
}

// Random bytes for one block of a type that is only read, such that they decode to finite numbers.
inline void random_block(const encoding::EncodingInfo& info, std::uint64_t seed, std::uint64_t& draw, std::byte* dst) {
  std::vector<float> decoded(static_cast<std::size_t>(info.block_elements));
  do {
    for (int i = 0; i < info.block_bytes; ++i) dst[i] = static_cast<std::byte>(random_bits(seed, 1, draw++));
    info.decode(dst, decoded.data(), info.block_elements);
  } while (!all_finite(decoded.data(), info.block_elements));
}

// A list of the groups of columns in no order, each group as large as without a list.
inline void list_groups(const encoding::AffineParams& params, std::int64_t cols, std::uint64_t seed,
                        std::span<std::byte> list) {
  std::vector<std::int32_t> groups(static_cast<std::size_t>(cols));
  for (std::size_t c = 0; c < groups.size(); ++c) {
    groups[c] = static_cast<std::int32_t>(static_cast<std::int64_t>(c) / params.group);
    std::swap(groups[c], groups[random_bits(seed, 6, c) % (c + 1)]);
  }
  std::memcpy(list.data(), groups.data(), list.size());
}

inline Tensor make_affine(const encoding::EncodingInfo& info, std::int64_t rows, std::int64_t cols,
                          std::uint64_t seed) {
  const encoding::AffineParams& params = info.affine;
  Tensor tensor(info, Shape{rows, cols});
  const auto row_bytes = static_cast<std::int64_t>(encoding::row_code_bytes(params, cols));
  const Shape scales_shape = encoding::scales_shape(params, Shape{rows, cols});
  const auto codes = tensor.add_part(PartRole::kCodes, Dtype::kU8, Shape{rows, row_bytes});
  const auto scales = tensor.add_part(PartRole::kScales, params.scale_dtype, scales_shape);
  std::span<std::byte> zeros;
  if (!params.symmetric) zeros = tensor.add_part(PartRole::kZeros, Dtype::kU8, scales_shape);
  if (params.group_index)
    list_groups(params, cols, seed, tensor.add_part(PartRole::kGroupIndex, Dtype::kI32, Shape{cols}));
  if (params.kept > 0) {
    const auto values = tensor.add_part(PartRole::kOutliers, Dtype::kF16, Shape{rows, params.kept});
    const auto columns = tensor.add_part(PartRole::kOutlierColumns, Dtype::kI32, Shape{params.kept});
    for (std::int64_t i = 0; i < rows * params.kept; ++i) {
      const float value = 0.05f * random_normal(seed, 7, static_cast<std::uint64_t>(i));
      convert_f32_to_f16(&value, values.data() + i * 2, 1);
    }
    for (std::int64_t i = 0; i < params.kept; ++i) {
      const auto column = static_cast<std::int32_t>(3 + i * (cols - 4) / params.kept);
      std::memcpy(columns.data() + i * 4, &column, 4);
    }
  }
  std::vector<std::uint8_t> stored(static_cast<std::size_t>(cols));
  std::uint64_t draw = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::uint8_t& code : stored)
      code = static_cast<std::uint8_t>(random_bits(seed, 4, draw++) & ((1u << params.bits) - 1));
    encoding::pack_codes(params.bits, stored.data(), cols, codes.data() + r * row_bytes);
  }
  for (std::int64_t i = 0; i < scales_shape.elements(); ++i) {
    const encoding::ScaleZero at{0.01f + 0.01f * random_uniform(seed, 5, static_cast<std::uint64_t>(i)),
                                 params.symmetric ? 0 : static_cast<int>(i % (1 << params.bits))};
    encoding::store_scale_zero(params, at, scales.data(), zeros.data(), i);
  }
  return tensor;
}

inline Tensor make_scaled(const encoding::EncodingInfo& info, std::int64_t rows, std::int64_t cols,
                          std::uint64_t seed) {
  Tensor tensor = encoding::allocate(info, {rows, cols});
  std::uint64_t draw = 0;
  // 1.875 is the largest of the E4M3 codes that are drawn, 1.75 of E5M2.
  for (std::byte& code : tensor.mutable_part(PartRole::kCodes)) {
    code = static_cast<std::byte>(random_bits(seed, 4, draw++));
    if (info.scaled.code != encoding::FloatCode::kE2m1) code &= std::byte{0xBF};
  }
  const encoding::EncodingInfo& dtype = encoding::get(dtype_name(info.scaled.scale_dtype));
  const auto scales = tensor.mutable_part(PartRole::kScales);
  for (std::size_t at = 0; at < scales.size(); at += static_cast<std::size_t>(dtype.block_bytes)) {
    const float scale = 0.01f + 0.01f * random_uniform(seed, 5, at);
    dtype.encode(&scale, scales.data() + at, 1);
  }
  const float global = 1.5f;
  if (info.scaled.global_scale) std::memcpy(tensor.mutable_part(PartRole::kGlobalScale).data(), &global, 4);
  return tensor;
}

// Random codes, centroids and scales; of double quantization about as large.
inline Tensor make_codebook(const encoding::EncodingInfo& info, std::int64_t rows, std::int64_t cols,
                            std::uint64_t seed) {
  Tensor tensor = encoding::allocate(info, {rows, cols});
  std::uint64_t draw = 0;
  const TensorView view = tensor.view();
  for (int i = 0; i < view.n_parts; ++i) {
    const Part& part = view.parts[static_cast<std::size_t>(i)];
    const std::span<std::byte> bytes = tensor.mutable_part(part.role);
    if (part.dtype == Dtype::kU8) {
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_bits(seed, 4, draw++));
      continue;
    }
    const encoding::EncodingInfo& dtype = encoding::get(dtype_name(part.dtype));
    for (std::size_t at = 0; at < bytes.size(); at += static_cast<std::size_t>(dtype.block_bytes)) {
      const bool centroid = part.role == PartRole::kCodebook;
      const float value = centroid ? 0.05f * random_normal(seed, 5, at) : 0.01f + 0.01f * random_uniform(seed, 5, at);
      dtype.encode(&value, bytes.data() + at, 1);
    }
  }
  if (encoding::has_blocks(info.codebook)) return tensor;
  // What lies behind the last code of a row is zero.
  const std::int64_t row_bytes = static_cast<std::int64_t>(encoding::codebook_row_bytes(info.codebook, cols));
  const int used = static_cast<int>(cols * info.codebook.bits % 8);
  for (std::int64_t r = 0; r < rows && used != 0; ++r)
    tensor.mutable_part(PartRole::kCodes)[static_cast<std::size_t>((r + 1) * row_bytes - 1)] &=
        static_cast<std::byte>((1 << used) - 1);
  return tensor;
}

// Weights of any encoding: rounded from a normal distribution, or random codes of those that are only read.
inline Tensor make_weights(const encoding::EncodingInfo& info, std::int64_t rows, std::int64_t cols,
                           std::uint64_t seed) {
  if (info.family == encoding::Family::kAffine) return make_affine(info, rows, cols, seed);
  if (info.family == encoding::Family::kScaled) return make_scaled(info, rows, cols, seed);
  if (info.family == encoding::Family::kCodebook) return make_codebook(info, rows, cols, seed);
  const auto row_bytes = static_cast<std::int64_t>(encoding::row_bytes(info, cols));
  Tensor tensor(info, Shape{rows, cols});
  const auto bytes = tensor.add_part(PartRole::kCodes, Dtype::kU8, Shape{rows, row_bytes});
  if (info.encode != nullptr) {
    std::vector<float> values(static_cast<std::size_t>(rows * cols));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.05f * random_normal(seed, 0, i);
    info.encode(values.data(), bytes.data(), rows * cols);
    return tensor;
  }
  std::uint64_t draw = 0;
  for (std::size_t at = 0; at < bytes.size(); at += static_cast<std::size_t>(info.block_bytes)) {
    random_block(info, seed, draw, bytes.data() + at);
  }
  return tensor;
}

// Activations that int8 with one scale per 32 columns holds exactly: whole numbers up to 127 times a power of two.
inline std::vector<float> make_activations(std::int64_t n, std::int64_t cols, std::uint64_t seed) {
  std::vector<float> x(static_cast<std::size_t>(n * cols));
  for (std::int64_t i = 0; i < n * cols; ++i) {
    const std::uint64_t bits = random_bits(seed, 2, static_cast<std::uint64_t>(i));
    const int whole = i % cols % 32 == 5 ? 127 : static_cast<int>(bits % 255) - 127;
    const int exponent =
        -static_cast<int>(random_bits(seed, 3, static_cast<std::uint64_t>(i / cols * 1000 + i % cols / 32)) % 6);
    x[static_cast<std::size_t>(i)] = std::ldexp(static_cast<float>(whole), exponent);
  }
  return x;
}

// Are weights and activations rounded to bf16?
inline bool in_tiles(const LinearKernel& kernel) { return kernel.activation->name.starts_with("bf16"); }

// How the tests have a kernel round its inputs: without a type where it takes any.
inline InputRounding test_inputs(const LinearKernel& kernel) {
  if (!kernel.activation->needs_type) return {};
  const encoding::ActivationInfo& token = encoding::get_activation("int8-token");
  return {kernel.activation->rounds(token) ? &token : &encoding::get_activation("int8-token-over100"), 0, 0, {}};
}
inline std::string_view family_of(const LinearKernel& kernel) { return kernel.name.substr(0, kernel.name.find('/')); }

struct Packed {
  MatrixInfo matrix;
  AlignedBuffer buffer;
  std::vector<std::byte> kept;  // columns that it keeps in f16
};
inline InputRounding test_inputs(const LinearKernel& kernel, const Packed& packed) {
  InputRounding inputs = test_inputs(kernel);
  inputs.kept = {packed.kept};
  return inputs;
}

inline Packed pack_all(const LinearKernel& kernel, const TensorView& view, const std::int32_t* row_map = nullptr) {
  Packed packed{{view.encoding, view.rows(), view.cols()}, {}, {}};
  if (const Part* kept = view.find(PartRole::kOutlierColumns))
    packed.kept.assign(kept->bytes.begin(), kept->bytes.end());
  packed.buffer = AlignedBuffer(kernel.layout.bytes(packed.matrix));
  std::memset(packed.buffer.data(), 0xA5, packed.buffer.size());
  const std::int64_t middle = view.rows() / 2 / kernel.layout.row_block * kernel.layout.row_block;
  kernel.layout.pack(view, row_map, middle, view.rows(), packed.buffer.data());
  kernel.layout.pack(view, row_map, 0, middle, packed.buffer.data());
  return packed;
}

inline AlignedBuffer quantize(const LinearKernel& kernel, const std::vector<float>& x, std::int64_t n,
                              std::int64_t cols, const InputRounding& inputs) {
  AlignedBuffer out(kernel.activation->row_bytes(cols) * static_cast<std::uint64_t>(n));
  std::memset(out.data(), 0, out.size());
  kernel.activation->quantize(inputs, x.data(), cols, n, cols, out.data());
  return out;
}
inline AlignedBuffer quantize(const LinearKernel& kernel, const std::vector<float>& x, std::int64_t n,
                              std::int64_t cols) {
  return quantize(kernel, x, n, cols, test_inputs(kernel));
}

// Rows of activations in the order in which the packed matrix takes their columns; or, with `back`, out of it.
inline std::vector<float> sort_columns(const LinearKernel& kernel, const Packed& packed, const std::vector<float>& x,
                                       bool back = false) {
  const auto column_order = kernel.layout.column_order;
  const std::int32_t* order = column_order != nullptr ? column_order(packed.matrix, packed.buffer.data()) : nullptr;
  if (order == nullptr) return x;
  std::vector<float> out(x.size());
  const auto cols = static_cast<std::size_t>(packed.matrix.cols);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t other = i / cols * cols + static_cast<std::size_t>(order[i % cols]);
    back ? out[other] = x[i] : out[i] = x[other];
  }
  return out;
}

inline std::vector<float> compute(const LinearKernel& kernel, const Packed& packed, const std::vector<float>& x,
                                  std::int64_t n, const InputRounding& inputs) {
  const MatrixInfo& matrix = packed.matrix;
  const AlignedBuffer activations = quantize(kernel, sort_columns(kernel, packed, x), n, matrix.cols, inputs);
  const std::int64_t ldo = matrix.rows + 3;
  std::vector<float> out(static_cast<std::size_t>(n * ldo), -1.0f);
  const std::int64_t block = kernel.layout.row_block;
  const std::int64_t middle = (matrix.rows / 2 + block - 1) / block * block;
  kernel.compute(matrix, packed.buffer.data(), activations.data(), n, 0, std::min(middle, matrix.rows), out.data(),
                 ldo);
  if (middle < matrix.rows) {
    kernel.compute(matrix, packed.buffer.data(), activations.data(), n, middle, matrix.rows, out.data(), ldo);
  }
  for (std::int64_t t = 0; t < n; ++t) {  // nothing is written beside the rows
    for (std::int64_t r = matrix.rows; r < ldo; ++r) EXPECT_EQ(out[static_cast<std::size_t>(t * ldo + r)], -1.0f);
  }
  std::vector<float> dense;
  for (std::int64_t t = 0; t < n; ++t)
    dense.insert(dense.end(), out.begin() + t * ldo, out.begin() + t * ldo + matrix.rows);
  return dense;
}

inline std::vector<float> compute(const LinearKernel& kernel, const Packed& packed, const std::vector<float>& x,
                                  std::int64_t n) {
  return compute(kernel, packed, x, n, test_inputs(kernel, packed));
}

// The fixed encodings and some of the parameterised families: every width, grain and scale type.
inline std::vector<const encoding::EncodingInfo*> encodings() {
  std::vector<const encoding::EncodingInfo*> all(encoding::all_entries().begin(), encoding::all_entries().end());
  for (const char* name : {"int2-g16-asym",
                           "int2-g64-asym",
                           "int3-g32",
                           "int4-g2048-asym",
                           "int7-tensor-asym",
                           "int4-g32-asym-f16",
                           "int4-g128",
                           "int4-g128-asym-bf16",
                           "int4-g48",
                           "int5-g64-asym",
                           "int6-channel",
                           "int7-g96",
                           "int8-channel",
                           "int8-channel-asym",
                           "int8-tensor",
                           "int8-g256-restricted",
                           "int4-g128-gidx",
                           "int3-g64-gidx-asym",
                           "int8-g32-gidx-f16",
                           "int4-g48-gidx",
                           "int8-channel-kept8",
                           "int4-g48-kept3-asym",
                           "fp8-tensor",
                           "fp8-channel-bf16",
                           "fp8-block128x128",
                           "fp8-block16x48-f16",
                           "fp8-channel-e5m2",
                           "mxfp8",
                           "nvfp4-hf",
                           "mxfp8-e5m2",
                           "mxfp4-hf",
                           "nf4",
                           "nf4-dq-b128",
                           "nf4-b4096",
                           "fp4-b32",
                           "fp4-dq",
                           "kmeans4-channel",
                           "kmeans4-g512",
                           "kmeans4-g96",
                           "kmeans4-tensor",
                           "kmeans3-channel",
                           "kmeans3-g64",
                           "kmeans3-g40",
                           "kmeans2-g256",
                           "kmeans2-tensor",
                           "fp8-block64x32",
                           "fp8-block1x128-e8m0",
                           "fp8-block24x80-bf16",
                           "fp8-block16x40"}) {
    all.push_back(&encoding::get(name));
  }
  return all;
}

}  // namespace nibble::kernel
