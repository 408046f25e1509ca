#include "run.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "../threads.h"

/* Waking a thread costs microseconds; a range below this many word operations or multiply-adds is not worth it. */
static const double RANGE_WORK = 1 << 17;

/* Of a product that reads its right operand once: rows, the work of a megabyte of it, and in how many steps it turns
 * back. */
static const int64_t FEW_ROWS = 4, STEPS = 16;
static const double LARGE_WORK = 1 << 18;

void *run_alloc(int64_t bytes) {
  if (bytes < 0 || bytes > PTRDIFF_MAX - BNN_ALIGN) return NULL;
  return aligned_alloc(BNN_ALIGN, ((size_t)bytes / BNN_ALIGN + 1) * BNN_ALIGN);
}

int64_t run_grain(int64_t items, double work) {
  if (work < RANGE_WORK) return items;
  int64_t grain = (int64_t)(RANGE_WORK / (work / (double)items));
  return grain < 1 ? 1 : grain;
}

int run_threads(int64_t items, double work) {
  if (items < 2 || work < 2 * RANGE_WORK) return 1;
  int threads = bnn_get_threads();
  return items < threads ? (int)items : threads;
}

/* ---- products -------------------------------------------------------------------------------------------------- */

typedef struct {
  const bnn_kernel *kernel;
  const bnn_product *product;
  char *scratch;
  size_t stride;
  int64_t items, step; /* backwards, so many at a time; or 0 */
} product_range;

static void product_run(void *context, int thread, int64_t begin, int64_t end) {
  const product_range *range = context;
  char *scratch = range->scratch + (size_t)thread * range->stride;
  if (!range->step) {
    range->kernel->run(range->product, begin, end, scratch);
    return;
  }
  for (int64_t stop = range->items - begin, last = range->items - end; stop > last; stop -= range->step)
    range->kernel->run(range->product, stop - range->step < last ? last : stop - range->step, stop, scratch);
}

/* Whether this call is to begin at the end. Where few rows meet a large right operand, that is read once, and the end
 * of it is what a cache holds when the next call comes: so every other one turns back. */
static int run_backwards(const bnn_product *product, double work) {
  static atomic_uint calls;
  if (product->images * product->schedule->pixels > FEW_ROWS || work < LARGE_WORK) return 0;
  return atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) % 2;
}

int run_product(const bnn_kernel *kernel, const bnn_product *whole, double work) {
  bnn_product shared = *whole;
  const bnn_product *product = &shared;
  shared.threads = run_threads(INT_MAX, work);
  int64_t items = kernel->items(product);
  int threads = run_threads(items, work);
  size_t stride = (kernel->scratch(product) + BNN_ALIGN - 1) / BNN_ALIGN * BNN_ALIGN;
  int64_t bytes;
  if (stride > PTRDIFF_MAX || __builtin_mul_overflow((int64_t)stride, (int64_t)threads, &bytes)) return -1;
  /* Not aligned_alloc, which leaves a hole in front that no later call fits into. */
  char *scratch = bytes < PTRDIFF_MAX - BNN_ALIGN ? malloc((size_t)bytes + BNN_ALIGN) : NULL;
  if (!scratch) return -1;
  product_range range = {kernel, product, scratch + (BNN_ALIGN - (uintptr_t)scratch % BNN_ALIGN),
                         stride, items,   run_backwards(product, work) ? items / STEPS + 1 : 0};
  bnn_parallel(threads, items, run_grain(items, work), product_run, &range);
  free(scratch);
  return 0;
}

typedef struct {
  const bnn_kernels *kernels;
  const float *parts;
  int64_t count, length;
  float *out;
} sum_range;

static void sum_run(void *context, int thread, int64_t begin, int64_t end) {
  (void)thread;
  const sum_range *range = context;
  range->kernels->sum_parts(range->parts, range->count, range->length, range->out, begin, end);
}

void run_sum_parts(const bnn_kernels *kernels, const float *parts, int64_t count, int64_t length, float *out) {
  sum_range range = {kernels, parts, count, length, out};
  double work = (double)count * (double)length;
  bnn_parallel(run_threads(length, work), length, run_grain(length, work), sum_run, &range);
}

/* ---- passes ---------------------------------------------------------------------------------------------------- */

typedef struct {
  bnn_pass pass;
  const void *what;
} pass_range;

static void pass_run(void *context, int thread, int64_t begin, int64_t end) {
  (void)thread;
  const pass_range *range = context;
  range->pass(range->what, begin, end);
}

void run_pass(bnn_pass pass, const void *what, int64_t items, double work) {
  pass_range range = {pass, what};
  bnn_parallel(run_threads(items, work), items, run_grain(items, work), pass_run, &range);
}

/* ---- packing --------------------------------------------------------------------------------------------------- */

typedef struct {
  const bnn_kernels *kernels;
  const bnn_pack *pack;
  int wide;
  atomic_int nan;
} pack_range;

static void pack_run(void *context, int thread, int64_t begin, int64_t end) {
  (void)thread;
  pack_range *range = context;
  if ((range->wide ? range->kernels->pack_f64 : range->kernels->pack_f32)(range->pack, begin, end))
    atomic_store_explicit(&range->nan, 1, memory_order_relaxed);
}

int run_pack(const bnn_kernels *kernels, int wide, const bnn_pack *pack) {
  pack_range range = {.kernels = kernels, .pack = pack, .wide = wide};
  int64_t items = pack->outer * pack->inner;
  double work = (double)items * (double)pack->count;
  if (work > 0) bnn_parallel(run_threads(items, work), items, run_grain(items, work), pack_run, &range);
  return atomic_load(&range.nan);
}

typedef struct {
  const bnn_kernels *kernels;
  const bnn_unpack *unpack;
  int wide;
} unpack_range;

static void unpack_run(void *context, int thread, int64_t begin, int64_t end) {
  (void)thread;
  const unpack_range *range = context;
  (range->wide ? range->kernels->unpack_f64 : range->kernels->unpack_f32)(range->unpack, begin, end);
}

void run_unpack(const bnn_kernels *kernels, int wide, const bnn_unpack *unpack) {
  unpack_range range = {kernels, unpack, wide};
  int64_t items = unpack->outer * unpack->inner;
  double work = (double)items * (double)unpack->count;
  if (work > 0) bnn_parallel(run_threads(items, work), items, run_grain(items, work), unpack_run, &range);
}

typedef struct {
  const bnn_kernels *kernels;
  const uint32_t *words;
  int64_t channels, groups;
  uint32_t *out;
} split_range;

static void split_run(void *context, int thread, int64_t begin, int64_t end) {
  (void)thread;
  const split_range *range = context;
  range->kernels->split_groups(range->words + begin * bnn_words(range->channels), end - begin, range->channels,
                               range->groups,
                               range->out + begin * range->groups * bnn_words(range->channels / range->groups));
}

void run_split_groups(const bnn_kernels *kernels, const uint32_t *words, int64_t rows, int64_t channels, int64_t groups,
                      uint32_t *out) {
  split_range range = {kernels, words, channels, groups, out};
  double work = (double)rows * (double)channels;
  if (work > 0) bnn_parallel(run_threads(rows, work), rows, run_grain(rows, work), split_run, &range);
}
