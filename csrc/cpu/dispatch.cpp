#include "cpu/dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace recsparse {

static bool has_avx512() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vpopcntdq") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

static CpuIsa choose() {
  const char* wish = std::getenv("RECSPARSE_CPU_ISA");
  const std::string name = wish ? wish : "";
  if (name.empty()) return has_avx512() ? CpuIsa::avx512 : CpuIsa::portable;
  if (name == "portable") return CpuIsa::portable;
  if (name != "avx512") {
    throw std::runtime_error("RECSPARSE_CPU_ISA=" + name + ": expected avx512 or portable");
  }
  if (!has_avx512()) {
    throw std::runtime_error(
        "RECSPARSE_CPU_ISA=avx512: this CPU lacks AVX-512 F+BW+DQ+VL+VBMI2+VPOPCNTDQ; unset it or use portable");
  }
  return CpuIsa::avx512;
}

CpuIsa cpu_isa() {
  static const CpuIsa isa = choose();
  return isa;
}

const char* cpu_isa_name() { return cpu_isa() == CpuIsa::avx512 ? "avx512" : "portable"; }

}  // namespace recsparse
