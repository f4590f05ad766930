// Which instruction set the kernels use: decided once, by cpuid and the environment variable RECSPARSE_CPU_ISA.
#pragma once

namespace recsparse {

enum class CpuIsa { portable, avx512 };

// The best level that this CPU has, or the one that RECSPARSE_CPU_ISA (avx512 | portable) asks for. Throws
// std::runtime_error when the variable names a level that is unknown or that the CPU lacks.
CpuIsa cpu_isa();

const char* cpu_isa_name();

}  // namespace recsparse
