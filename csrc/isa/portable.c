#include "../bnn.h"
#include "target.h"

#define BNN_TABLE bnn_portable
#define BNN_LEVEL "portable"
#include "simd_portable.h"

#include "../kernels/table.h"
