#include "threads.h"

#include <stdatomic.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

#ifndef _OPENMP

int bnn_get_threads(void) { return 1; }
void bnn_set_threads(int count) { (void)count; }
void bnn_parallel(int threads, int64_t items, int64_t grain, bnn_range run, void *context) {
  (void)threads, (void)grain;
  if (items > 0) run(context, 0, 0, items);
}

#else

/* omp_set_num_threads reaches the calling thread only, so the count is ours and every region is told it. */
static atomic_int thread_count; /* 0: not asked for yet */
static atomic_int alone;        /* a forked child, which stays at one thread */

#if defined(__unix__) || defined(__APPLE__)
/* The workers of the parent do not exist in a forked child, and its next region would wait for them for ever. */
static void alone_after_fork(void) {
  atomic_store(&alone, 1);
  atomic_store(&thread_count, 1);
}
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, alone_after_fork); }
#endif

int bnn_get_threads(void) {
  int count = atomic_load(&thread_count);
  if (count) return count;
  int expected = 0;
  count = omp_get_max_threads();
  return atomic_compare_exchange_strong(&thread_count, &expected, count) ? count : expected;
}

void bnn_set_threads(int count) { atomic_store(&thread_count, count < 1 || atomic_load(&alone) ? 1 : count); }

void bnn_parallel(int threads, int64_t items, int64_t grain, bnn_range run, void *context) {
  if (items <= 0) return;
  if (grain < 1) grain = 1;
  int64_t ranges = (items - 1) / grain + 1;
  if (ranges < threads) threads = (int)ranges;
  if (threads <= 1) {
    run(context, 0, 0, items);
    return;
  }
  /* Cores are not equally fast at every moment: a few ranges each, handed out as they are asked for. */
  if (ranges > 8 * (int64_t)threads) {
    grain = (items - 1) / (8 * (int64_t)threads) + 1;
    ranges = (items - 1) / grain + 1;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < ranges; i++) {
    int64_t begin = i * grain, end = items - begin < grain ? items : begin + grain;
    run(context, omp_get_thread_num(), begin, end);
  }
}

#endif
