#include "dispatch.h"

#include <atomic>
#include <cstdlib>

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lamina {
namespace {

#if defined(__x86_64__) || defined(_M_X64)
struct Leaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
};
Leaf cpuid(unsigned leaf, unsigned sub) {
  Leaf l;
  if (__get_cpuid_max(leaf & 0x80000000u, nullptr) >= leaf)
    __cpuid_count(leaf, sub, l.a, l.b, l.c, l.d);
  return l;
}
// Which register states the operating system saves; a feature bit alone does not promise that.
unsigned long long saved_states() {
  if (!(cpuid(1, 0).c & (1u << 27))) return 0;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}
#endif

struct Features {
  bool avx2 = false, fma = false, avx512f = false, avx512_bf16 = false, avx512_vnni = false;
  bool amx_tile = false, amx_bf16 = false, amx_int8 = false, neon = false;
};

Features probe() {
  Features f;
#if defined(__x86_64__) || defined(_M_X64)
  const unsigned long long states = saved_states();
  const bool ymm = (states & 0x6) == 0x6, zmm = ymm && (states & 0xe0) == 0xe0;
  const bool tiles = (states & 0x60000) == 0x60000;
  const Leaf l1 = cpuid(1, 0), l7 = cpuid(7, 0), l71 = cpuid(7, 1);
  f.fma = ymm && (l1.c & (1u << 12));
  f.avx2 = ymm && f.fma && (l7.b & (1u << 5)) && (l7.b & (1u << 8)) &&
           (l1.c & (1u << 29));                                             // + BMI2, F16C
  const unsigned need = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F, DQ, BW, VL
  f.avx512f = zmm && f.avx2 && (l7.b & need) == need;
  f.avx512_vnni = f.avx512f && (l7.c & (1u << 11));
  f.avx512_bf16 = f.avx512f && (l71.a & (1u << 5));
  f.amx_tile = tiles && (l7.d & (1u << 24));
  f.amx_bf16 = f.amx_tile && (l7.d & (1u << 22));
  f.amx_int8 = f.amx_tile && (l7.d & (1u << 25));
#elif defined(__aarch64__)
  f.neon = true;
#endif
  return f;
}

const Features& features() {
  static const Features f = probe();
  return f;
}

std::vector<const KernelSet*> usable() {
  std::vector<const KernelSet*> sets = {&kernels_scalar};
#if defined(LAMINA_ISA_NEON)
  if (features().neon) sets.push_back(&kernels_neon);
#endif
#if defined(LAMINA_ISA_AVX2)
  if (features().avx2) sets.push_back(&kernels_avx2);
#endif
#if defined(LAMINA_ISA_AVX512)
  if (features().avx512f) sets.push_back(&kernels_avx512);
#endif
  return sets;
}

const KernelSet* find(const std::string& name) {
  for (const KernelSet* set : usable())
    if (name == set->name) return set;
  return nullptr;
}

std::string environment_isa() {
  const char* value = std::getenv("LAMINA_ISA");
  return value ? value : "";
}

std::atomic<const KernelSet*> chosen{nullptr};

#if defined(LAMINA_ISA_AMX)
// Linux hands out the tiles' 8 KiB of register state only to processes that ask for it.
bool tiles_permitted() {
#if defined(LAMINA_EMULATE_AMX)
  return features().avx512_bf16;
#elif defined(__linux__) && defined(__x86_64__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool granted = features().amx_bf16 && features().avx512_bf16 &&
                              syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}
#endif

std::vector<const HalfKernels*> usable_half() {
  std::vector<const HalfKernels*> sets;
#if defined(LAMINA_ISA_AVX512_BF16)
  if (features().avx512_bf16) sets.push_back(&kernels_avx512_bf16);
#endif
#if defined(LAMINA_ISA_AMX)
  if (tiles_permitted()) sets.push_back(&kernels_amx);
#endif
  return sets;
}

std::atomic<const HalfKernels*> chosen_half{nullptr};

std::vector<const ByteKernels*> usable_byte() {
  std::vector<const ByteKernels*> sets = {&kernels_byte_plain};
#if defined(LAMINA_ISA_AVX512_VNNI)
  if (features().avx512_vnni && current_isa() == "avx512") sets.push_back(&kernels_avx512_vnni);
#endif
  return sets;
}

std::atomic<const ByteKernels*> chosen_byte{nullptr};

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const KernelSet* set : usable()) names.emplace_back(set->name);
  return names;
}

const KernelSet& current_kernels() {
  const KernelSet* set = chosen.load();
  if (set == nullptr) {
    set = find(environment_isa());
    if (set == nullptr) set = usable().back();
    chosen.store(set);
  }
  return *set;
}

std::string current_isa() { return current_kernels().name; }

bool choose_isa(const std::string& name) {
  const KernelSet* set = find(name);
  if (set != nullptr) chosen.store(set);
  return set != nullptr;
}

std::vector<std::string> available_half_isas() {
  std::vector<std::string> names;
  if (current_isa() == "avx512")
    for (const HalfKernels* set : usable_half()) names.emplace_back(set->name);
  return names;
}

const HalfKernels* half_kernels() {
  if (current_isa() != "avx512") return nullptr;
  const HalfKernels* set = chosen_half.load();
  if (set == nullptr) {
    const auto sets = usable_half();
    if (sets.empty()) return nullptr;
    set = sets.back();
    chosen_half.store(set);
  }
  return set;
}

bool choose_half_isa(const std::string& name) {
  for (const HalfKernels* set : usable_half())
    if (name == set->name) {
      chosen_half.store(set);
      return true;
    }
  return false;
}

std::vector<std::string> available_byte_isas() {
  std::vector<std::string> names;
  for (const ByteKernels* set : usable_byte()) names.emplace_back(set->name);
  return names;
}

const ByteKernels& byte_kernels() {
  const auto sets = usable_byte();
  const ByteKernels* wanted = chosen_byte.load();
  for (const ByteKernels* set : sets)
    if (set == wanted) return *set;
  return *sets.back();
}

bool choose_byte_isa(const std::string& name) {
  for (const ByteKernels* set : usable_byte())
    if (name == set->name) {
      chosen_byte.store(set);
      return true;
    }
  return false;
}

std::string requested_isa() {
  const std::string name = environment_isa();
  return name.empty() || find(name) ? "" : name;
}

std::vector<std::pair<std::string, bool>> cpu_features() {
  const Features& f = features();
  return {{"avx2", f.avx2},
          {"fma", f.fma},
          {"avx512f", f.avx512f},
          {"avx512_vnni", f.avx512_vnni},
          {"avx512_bf16", f.avx512_bf16},
          {"amx_tile", f.amx_tile},
          {"amx_bf16", f.amx_bf16},
          {"amx_int8", f.amx_int8},
          {"neon", f.neon}};
}

}  // namespace lamina
