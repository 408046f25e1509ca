/* AVX-512 with VPOPCNTDQ: words are counted by an instruction, after a carry-save sum. */
#include "../bnn.h"
#include "target.h"

#if BNN_X86
#include <immintrin.h>

BNN_TARGET_BEGIN("avx2,fma,bmi,bmi2,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vpopcntdq")
#define BNN_TABLE bnn_avx512vpopcnt
#define BNN_LEVEL "avx512vpopcnt"
#include "simd_avx512.h"
#include "simd_avx512vpopcnt.h"

#include "../kernels/table.h"
BNN_TARGET_END
#endif
