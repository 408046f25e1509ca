/* The one place that knows threads, and their absence. */
#ifndef BNN_THREADS_H
#define BNN_THREADS_H

#include <stdint.h>

/* Threads a parallel call uses: OMP_NUM_THREADS or the processors at first, 1 in a forked child, 1 without threads. */
int bnn_get_threads(void);
void bnn_set_threads(int count);

/* `thread` is in [0, threads) of the call: it picks the caller's scratch. */
typedef void (*bnn_range)(void *context, int thread, int64_t begin, int64_t end);

/* Call `run` on disjoint ranges of at least `grain` items that cover [0, items), on up to `threads` threads at once.
 * May be called from several threads at the same time. */
void bnn_parallel(int threads, int64_t items, int64_t grain, bnn_range run, void *context);

/* For what all threads of the process share; free in a forked child. */
void bnn_lock(void);
void bnn_unlock(void);

#endif
