// Which instruction set the kernels use: decided once, by cpuid and the environment variable RECSPARSE_CPU_ISA.
#pragma once

namespace recsparse {

enum class CpuIsa { portable, avx2, avx512 };

// The best level that this CPU has, or the one that RECSPARSE_CPU_ISA (avx512 | avx2 | portable) asks for. Throws
// std::runtime_error when the variable names a level that is unknown or that the CPU lacks.
CpuIsa cpu_isa();

const char* cpu_isa_name();

}  // namespace recsparse

// Declares the variants of a kernel, one object in the namespace of each instruction set, and `name()`: the one to use.
#define RS_CPU_VARIANTS(Kernel, name)           \
  namespace portable {                          \
  extern const Kernel name;                     \
  }                                             \
  namespace avx2 {                              \
  extern const Kernel name;                     \
  }                                             \
  namespace avx512 {                            \
  extern const Kernel name;                     \
  }                                             \
  static const Kernel& name() {                 \
    switch (cpu_isa()) {                        \
      case CpuIsa::avx512: return avx512::name; \
      case CpuIsa::avx2: return avx2::name;     \
      default: return portable::name;           \
    }                                           \
  }                                             \
  static_assert(true, "takes the semicolon")
