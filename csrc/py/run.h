/* Kernels over threads, with the memory they need. Nothing here touches Python: call it without the GIL. */
#ifndef BNN_RUN_H
#define BNN_RUN_H

#include "../bnn.h"

/* Memory on a BNN_ALIGN boundary, freed with free(); NULL only when memory is short. */
void *run_alloc(int64_t bytes);

/* -1 when memory is short. `work` is in word operations or multiply-adds; little of it stays on the calling thread. */
int run_product(const bnn_kernel *kernel, const bnn_product *product, double work);

/* Pack a float (or, with `wide`, a double) array; whether it holds a NaN. */
int run_pack(const bnn_kernels *kernels, int wide, const bnn_pack *pack);
void run_unpack(const bnn_kernels *kernels, int wide, const bnn_unpack *unpack);
void run_split_groups(const bnn_kernels *kernels, const uint32_t *words, int64_t rows, int64_t channels, int64_t groups,
                      uint32_t *out);

/* out = the sum of `count` parts of `length` floats. */
void run_sum_parts(const bnn_kernels *kernels, const float *parts, int64_t count, int64_t length, float *out);

/* One pass over memory; `work` counts its elements. */
void run_pass(bnn_pass pass, const void *what, int64_t items, double work);

/* Threads for `items` independent items of `work` in all. */
int run_threads(int64_t items, double work);

/* Items for one range, so that a range is worth handing to a thread. */
int64_t run_grain(int64_t items, double work);

#endif
