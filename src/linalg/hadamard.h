// Orthonormal matrices of any size that mix all numbers of a vector at little cost: Hadamard's wherever one is known.
#pragma once

#include <cstdint>
#include <vector>

namespace nibble::linalg {

// H (n, n) of +1 and -1 with H Hᵀ = n I, by Paley's constructions over the integers modulo a prime p (J. Math. Phys.
// 12, 1933): n = p + 1 of p = 3 mod 4, n = 2 (p + 1) of p = 1 mod 4. The first column is all +1. Empty for other n.
std::vector<float> paley_hadamard(std::int64_t n);

// Q (n, n) with Q Qᵀ = I whose first column is constant, the others random: uniform among all such matrices.
std::vector<float> random_orthogonal(std::int64_t n, std::uint64_t seed);

// M (n, n) = B ⊗ S with M Mᵀ = I: S of Sylvester's construction, the largest power of two that leaves a B of Paley's;
// where there is none, B is random and of the odd part of n. The first column of M is constant.
class Mixer {
 public:
  // Throws Error{kUnsupported} when the odd part of n is beyond kMostOdd.
  static constexpr std::int64_t kMostOdd = 8192;
  Mixer(std::int64_t n, std::uint64_t seed);

  std::int64_t size() const { return base_ * powers_; }
  bool is_hadamard() const { return hadamard_; }  // all numbers of M have one magnitude
  // x (n, width) = M x and Mᵀ x, in place; from any thread. n (log2 n + |B|) operations per column.
  void multiply(float* x, std::int64_t width) const { apply(base_matrix_, x, width); }
  void multiply_transposed(float* x, std::int64_t width) const { apply(base_transposed_, x, width); }

 private:
  void apply(const std::vector<float>& base, float* x, std::int64_t width) const;
  std::int64_t base_ = 1, powers_ = 1;
  bool hadamard_ = true;
  std::vector<float> base_matrix_, base_transposed_;  // (base, base), orthonormal; empty: of one number
};

}  // namespace nibble::linalg
