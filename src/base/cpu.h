// What this processor can do, and what the user allows it to use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nibble {

// Instruction sets code is written for, each including the ones before it.
enum class Isa : std::uint8_t {
  kScalar,  // plain x86-64
  kAvx2,    // AVX2, FMA, F16C, BMI2
  kAvx512,  // AVX-512 F BW DQ VL CD, VNNI and VBMI
  kAmx,     // AVX-512 BF16, and AMX tiles of bf16
};

std::string_view isa_name(Isa isa);  // "scalar", "avx2", "avx512", "amx"
std::optional<Isa> parse_isa(std::string_view name);
// The best set this machine has, lowered by the environment variable NIBBLE_ISA (scalar|avx2|avx512|amx). Throws
// Error{kInvalidArgument} when NIBBLE_ISA names an unknown set or one that the machine lacks.
Isa best_isa();
// What the machine has, without regard to NIBBLE_ISA. The first call asks Linux for the use of tiles, where there are
// any.
Isa machine_isa();
int cpu_count();  // processors this process may run on
std::uint64_t physical_memory_bytes();
std::string cpu_name();  // as /proc/cpuinfo gives it

}  // namespace nibble
