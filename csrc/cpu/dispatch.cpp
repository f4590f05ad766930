#include "cpu/dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace recsparse {

#if defined(__x86_64__)
static bool has_avx2() {
  __builtin_cpu_init();
  unsigned eax, ebx, ecx, edx;
  const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);  // g++ 9 and 10 know no name for it
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
         __builtin_cpu_supports("popcnt");
}
static bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vpopcntdq") &&
         __builtin_cpu_supports("avx512vnni");
}
#else
static bool has_avx2() { return false; }
static bool has_avx512() { return false; }
#endif

struct Level {
  CpuIsa isa;
  const char* name;
  const char* needs;
  bool (*available)();
};

// Best first.
static const Level kLevels[] = {
    {CpuIsa::avx512, "avx512", "AVX-512 F+BW+DQ+VL+VBMI2+VPOPCNTDQ+VNNI", has_avx512},
    {CpuIsa::avx2, "avx2", "AVX2+FMA+BMI2+F16C+POPCNT", has_avx2},
    {CpuIsa::portable, "portable", "nothing", [] { return true; }},
};

static const Level& choose() {
  const char* wish = std::getenv("RECSPARSE_CPU_ISA");
  const std::string name = wish ? wish : "";
  std::string available;
  const Level* chosen = nullptr;
  const Level* best = nullptr;
  for (const Level& level : kLevels) {
    if (level.name == name) chosen = &level;
    if (!level.available()) continue;
    if (!best) best = &level;
    available += (available.empty() ? "" : " or ") + std::string(level.name);
  }
  if (name.empty()) return *best;
  if (!chosen) throw std::runtime_error("RECSPARSE_CPU_ISA=" + name + ": expected avx512, avx2 or portable");
  if (!chosen->available()) {
    throw std::runtime_error("RECSPARSE_CPU_ISA=" + name + ": this CPU lacks " + chosen->needs + "; unset it or use " +
                             available);
  }
  return *chosen;
}

static const Level& level() {
  static const Level& chosen = choose();
  return chosen;
}

CpuIsa cpu_isa() { return level().isa; }

const char* cpu_isa_name() { return level().name; }

}  // namespace recsparse
