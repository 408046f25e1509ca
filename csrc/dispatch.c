/* Which levels of the instruction set this machine runs, best first. */
#define _DEFAULT_SOURCE /* syscall */
#include "bnn.h"
#include "isa/target.h"

#include <stdlib.h>
#include <string.h>

#if BNN_X86
#include <cpuid.h>
#endif
#if BNN_X86 && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const bnn_kernels bnn_portable;
#if BNN_X86
extern const bnn_kernels bnn_avx2, bnn_avx512, bnn_avx512vpopcnt, bnn_avx512zen5, bnn_amx;
#endif
#if BNN_NEON
extern const bnn_kernels bnn_neon;
#endif

/* A level counts only as a whole; the compiler's run time also asks whether the system saves the registers. */
#if BNN_X86
static int has_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}

static int has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static int has_avx512vpopcnt(void) { return has_avx512() && __builtin_cpu_supports("avx512vpopcntdq"); }

/* The instructions are those of the level below, only that the loop suits these cores; others run it when asked to. */
static int has_avx512zen5(void) {
  enum { ZEN5 = 0x1a };
  unsigned a, b, c, d;
  const char *cap = getenv("BNNLAYERS_ISA");
  if (!has_avx512vpopcnt() || !__get_cpuid(0, &a, &b, &c, &d)) return 0;
  int amd = b == signature_AMD_ebx && c == signature_AMD_ecx && d == signature_AMD_edx;
  int zen5 = amd && __get_cpuid(1, &a, &b, &c, &d) && (a >> 8 & 15) + (a >> 20 & 255) >= ZEN5;
  return zen5 || (cap && strcmp(cap, "avx512zen5") == 0);
}

/* The system lends tiles to a process that asks for them; Linux is the one that says how. Thereafter each thread has
 * them, and pays for their state only while it uses it. */
static int may_use_tiles(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
  enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return 0;
#endif
}

static int has_amx(void) {
  unsigned a, b, c, d;
  if (!has_avx512vpopcnt() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  int vbmi = c >> 1 & 1, gfni = c >> 8 & 1, tile = d >> 24 & 1, int8 = d >> 25 & 1;
  return vbmi && gfni && tile && int8 && may_use_tiles();
}
#endif

static int always(void) { return 1; }

/* Best first. Every level includes those below it, so what a machine runs is a tail of this list. */
static const bnn_kernels *const levels[] = {
#if BNN_X86
    &bnn_amx,           &bnn_avx512zen5,
    &bnn_avx512vpopcnt, &bnn_avx512,
    &bnn_avx2,
#endif
#if BNN_NEON
    &bnn_neon,
#endif
    &bnn_portable,      NULL,
};

static int (*const runs[])(void) = {
#if BNN_X86
    has_amx, has_avx512zen5, has_avx512vpopcnt, has_avx512, has_avx2,
#endif
#if BNN_NEON
    always,
#endif
    always,
};

const bnn_kernels *const *bnn_supported(void) {
  const char *cap = getenv("BNNLAYERS_ISA");
  size_t first = 0;
#if BNN_X86
  __builtin_cpu_init();
#endif
  for (size_t i = 0; cap && levels[i]; i++)
    if (strcmp(cap, levels[i]->level) == 0) first = i;
  while (!runs[first]()) first++;
  return levels + first;
}
