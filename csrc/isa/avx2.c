/* AVX2: words are counted by tables of nibbles. */
#include "../bnn.h"
#include "target.h"

#if BNN_X86
#include <immintrin.h>

BNN_TARGET_BEGIN("avx2,fma,bmi,bmi2,popcnt")
#define BNN_TABLE bnn_avx2
#define BNN_LEVEL "avx2"
#include "simd_avx2.h"

#include "../kernels/table.h"
BNN_TARGET_END
#endif
