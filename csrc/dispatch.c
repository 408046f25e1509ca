#include "bnn.h"
#include "isa/target.h"

#include <stdlib.h>
#include <string.h>

extern const bnn_kernels bnn_portable;
#if BNN_X86
extern const bnn_kernels bnn_avx2, bnn_avx512, bnn_avx512vpopcnt;
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
#endif

static int always(void) { return 1; }

/* Best first. Every level includes those below it, so what a machine runs is a tail of this list. */
static const bnn_kernels *const levels[] = {
#if BNN_X86
    &bnn_avx512vpopcnt, &bnn_avx512, &bnn_avx2,
#endif
#if BNN_NEON
    &bnn_neon,
#endif
    &bnn_portable,      NULL,
};

static int (*const runs[])(void) = {
#if BNN_X86
    has_avx512vpopcnt,
    has_avx512,
    has_avx2,
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
