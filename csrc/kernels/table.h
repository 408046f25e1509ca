/* Every generic kernel of one level, and their table. Included by isa/<level>.c inside its target region. */

#define BNN_PANEL 32 /* columns of a right operand that are laid out together */

#include "strip.h"

#define REAL float
#define VREAL vf32
#define OF(name) name##_f32
#include "quantize.h"

#include "bits.h"
#undef REAL
#undef VREAL
#undef OF

#define REAL double
#define VREAL vf64
#define OF(name) name##_f64
#include "quantize.h"

#include "bits.h"
#undef REAL
#undef VREAL
#undef OF

#include "prepare.h"

#include "signed.h"

#ifdef BNN_TILES
#include "tiles_reduce.h"
#define BNN_SIGNED_REDUCE \
  { tiles_reduce_items, tiles_reduce_scratch, tiles_reduce_run, tiles_reduce_parts }
#else
#define BNN_SIGNED_REDUCE \
  { signed_reduce_items, signed_reduce_scratch, signed_reduce_run, NULL }
#endif

#include "halves.h"
#include "runs.h"

#include "depthwise.h"
#include "direct.h"
#include "xnor.h"

#include "network.h"
#include "update.h"

extern const bnn_kernels BNN_TABLE;
const bnn_kernels BNN_TABLE = {
    .level = BNN_LEVEL,
#define BNN_OP(name, inputs, signature, doc) loop_##name##_f32,
    .loops_f32 =
        {
#include "../ops.def"
        },
#undef BNN_OP
#define BNN_OP(name, inputs, signature, doc) loop_##name##_f64,
    .loops_f64 =
        {
#include "../ops.def"
        },
#undef BNN_OP
    .pack_f32 = pack_f32,
    .pack_f64 = pack_f64,
    .unpack_f32 = unpack_f32,
    .unpack_f64 = unpack_f64,
    .split_groups = split_groups,
    .all_set = all_set,
    .prepared_size = prepared_size,
    .prepare = prepare,
    .xnor = {xnor_items, xnor_scratch, xnor_run, NULL},
#ifdef BNN_TILES
    .signed_right = {tiles_rows_items, tiles_rows_scratch, tiles_rows_run, NULL},
#else
    .signed_right = {signed_right_items, signed_right_scratch, signed_right_run, NULL},
#endif
    .signed_left = {signed_left_items, signed_left_scratch, signed_left_run, NULL},
    .signed_reduce = BNN_SIGNED_REDUCE,
    .direct = {positions_of, direct_scratch, direct_run, NULL},
    .direct_reduce = {position_parts, direct_scratch, direct_reduce_run, position_parts},
    .depthwise_xnor = {positions_of, depthwise_xnor_scratch, depthwise_xnor_run, NULL},
    .depthwise_right = {positions_of, depthwise_right_scratch, depthwise_right_run, NULL},
    .depthwise_left = {positions_of, depthwise_left_scratch, depthwise_left_run, NULL},
    .depthwise_float = {positions_of, depthwise_both_scratch, depthwise_both_run, NULL},
    .depthwise_reduce = {position_parts, depthwise_left_scratch, depthwise_reduce_run, position_parts},
    .depthwise_float_reduce = {position_parts, depthwise_both_scratch, depthwise_reduce_both_run, position_parts},
    .sum_parts = depthwise_sum,
    .norm_rows = norm_rows,
    .norm_blocks = norm_blocks,
    .norm_moments = norm_moments,
    .norm_moments_total = norm_moments_total,
    .norm_sums = norm_sums,
    .norm_sums_total = norm_sums_total,
    .normalize = normalize,
    .normalize_sign = normalize_sign,
    .normalize_grad = normalize_grad,
    .max_pool = max_pool,
    .max_pool_grad = max_pool_grad,
    .average_pool = average_pool,
    .average_pool_grad = average_pool_grad,
    .rectify = rectify,
    .update = update,
};
