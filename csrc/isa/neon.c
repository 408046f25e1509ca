/* NEON, of every AArch64 machine: bytes are counted by an instruction. */
#include "../bnn.h"
#include "target.h"

#if BNN_NEON
#include <arm_neon.h>

#define BNN_TABLE bnn_neon
#define BNN_LEVEL "neon"
#include "simd_neon.h"

#include "../kernels/table.h"
#endif
