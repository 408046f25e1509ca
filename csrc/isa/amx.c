/* AVX-512 with VPOPCNTDQ, and AMX: gradients are products of tiles of bytes. */
#include "../bnn.h"
#include "target.h"

#if BNN_X86
#include <immintrin.h>

BNN_TARGET_BEGIN(
    "avx2,fma,bmi,bmi2,popcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vpopcntdq,avx512vbmi,gfni,amx-tile,amx-"
    "int8")
#define BNN_TABLE bnn_amx
#define BNN_LEVEL "amx"
#include "simd_avx512.h"
#include "simd_avx512vpopcnt.h"

#include "simd_amx.h"

#include "../kernels/table.h"
BNN_TARGET_END
#endif
