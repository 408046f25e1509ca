/* Four lanes in C that any compiler of vector types takes, for machines without a level of their own. */
#include "../bnn.h"
#include "target.h"

#define BNN_TABLE bnn_portable
#define BNN_LEVEL "portable"
#include "simd_portable.h"

#include "../kernels/table.h"
