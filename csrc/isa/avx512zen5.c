/* AVX-512 with VPOPCNTDQ on cores with four ports of 512 bits, two of which count: adders before a count cost more than
 * the counts they save. */
#include "../bnn.h"
#include "target.h"

#if BNN_X86
#include <immintrin.h>

BNN_TARGET_BEGIN("avx2,fma,bmi,bmi2,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vpopcntdq")
#define BNN_TABLE bnn_avx512zen5
#define BNN_LEVEL "avx512zen5"
#define BNN_CARRY_LEVELS 0
#include "simd_avx512.h"
#include "simd_avx512vpopcnt.h"

#include "../kernels/table.h"
BNN_TARGET_END
#endif
