/* A pool of helpers that join a caller's work if they wake in time.
 *
 * The caller takes ranges like everyone else, and when none is left it waits only for helpers that are inside of one. A
 * barrier, as OpenMP has it, would wait for every member of the team to be scheduled, which on a machine with other
 * work takes many times longer than the call itself. Helpers look for the next call for a moment before they sleep,
 * since a step of training makes hundreds of short ones.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "threads.h"

#include <stdatomic.h>
#include <stddef.h>

static void run_alone(int64_t items, bnn_range run, void *context) {
  if (items > 0) run(context, 0, 0, items);
}

#if !defined(__unix__) && !defined(__APPLE__)

int bnn_get_threads(void) { return 1; }
void bnn_set_threads(int count) { (void)count; }
void bnn_parallel(int threads, int64_t items, int64_t grain, bnn_range run, void *context) {
  (void)threads, (void)grain;
  run_alone(items, run, context);
}
void bnn_lock(void) {}
void bnn_unlock(void) {}

#else

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define MOST_THREADS 256
#define LOOKS 4000 /* about 50 microseconds */

static pthread_mutex_t shared = PTHREAD_MUTEX_INITIALIZER;

void bnn_lock(void) { pthread_mutex_lock(&shared); }
void bnn_unlock(void) { pthread_mutex_unlock(&shared); }

/* ---- how many threads ------------------------------------------------------------------------------------------ */

static atomic_int thread_count; /* 0: not asked for yet */

static int first_count(void) {
  const char *wanted = getenv("OMP_NUM_THREADS");
  long count = wanted ? strtol(wanted, NULL, 10) : 0;
#ifdef CPU_COUNT
  cpu_set_t usable;
  if (count < 1 && sched_getaffinity(0, sizeof usable, &usable) == 0) count = CPU_COUNT(&usable);
#endif
  if (count < 1) count = sysconf(_SC_NPROCESSORS_ONLN);
  return count < 1 ? 1 : count > MOST_THREADS ? MOST_THREADS : (int)count;
}

int bnn_get_threads(void) {
  int count = atomic_load(&thread_count), expected = 0;
  if (count) return count;
  count = first_count();
  return atomic_compare_exchange_strong(&thread_count, &expected, count) ? count : expected;
}

void bnn_set_threads(int count) {
  atomic_store(&thread_count, count < 1 ? 1 : count > MOST_THREADS ? MOST_THREADS : count);
}

/* ---- the pool -------------------------------------------------------------------------------------------------- */

/* A call that wants help. It lives on its caller's stack, so a helper touches it only while counted in `inside`. */
typedef struct call {
  bnn_range run;
  void *context;
  int64_t items, grain;
  _Atomic int64_t next;
  int threads, joined;
  atomic_int inside;
  struct call *after;
} call;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wanted = PTHREAD_COND_INITIALIZER, left = PTHREAD_COND_INITIALIZER;
static call *calls;         /* that still may be joined */
static int helpers;         /* threads of the pool */
static int sleeping;        /* of them, waiting for `wanted` */
static atomic_uint arrived; /* counts calls, so that a helper can look without the lock */

static void pause_a_little(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void take_ranges(call *c, int thread) {
  for (;;) {
    int64_t begin = atomic_fetch_add(&c->next, c->grain);
    if (begin >= c->items) return;
    c->run(c->context, thread, begin, c->items - begin < c->grain ? c->items : begin + c->grain);
  }
}

static call *joinable(void) {
  for (call *c = calls; c; c = c->after)
    if (c->joined < c->threads && atomic_load(&c->next) < c->items) return c;
  return NULL;
}

static void *help(void *unused) {
  (void)unused;
  pthread_mutex_lock(&lock);
  for (;;) {
    call *c = joinable();
    if (c) {
      int thread = c->joined++;
      atomic_fetch_add(&c->inside, 1);
      pthread_mutex_unlock(&lock);
      take_ranges(c, thread);
      pthread_mutex_lock(&lock);
      if (atomic_fetch_sub(&c->inside, 1) == 1) pthread_cond_broadcast(&left);
      continue;
    }
    unsigned seen = atomic_load(&arrived);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < LOOKS && atomic_load_explicit(&arrived, memory_order_relaxed) == seen; i++) pause_a_little();
    pthread_mutex_lock(&lock);
    if (atomic_load(&arrived) == seen) {
      sleeping++;
      pthread_cond_wait(&wanted, &lock);
      sleeping--;
    }
  }
  return NULL;
}

/* With the lock held. Signals are the business of the threads that the interpreter knows. */
static void hire(int count) {
  sigset_t all, before;
  sigfillset(&all);
  if (helpers >= count || pthread_sigmask(SIG_SETMASK, &all, &before)) return;
  while (helpers < count) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, help, NULL)) break;
    pthread_detach(thread);
    helpers++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* The helpers of the parent do not exist in a forked child, nor do its other callers. */
static void before_fork(void) {
  pthread_mutex_lock(&shared);
  pthread_mutex_lock(&lock);
}
static void after_fork(void) {
  pthread_mutex_unlock(&lock);
  pthread_mutex_unlock(&shared);
}
static void in_the_child(void) {
  pthread_mutex_init(&shared, NULL);
  pthread_mutex_init(&lock, NULL);
  pthread_cond_init(&wanted, NULL);
  pthread_cond_init(&left, NULL);
  calls = NULL;
  helpers = sleeping = 0;
  atomic_store(&thread_count, 1);
}
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(before_fork, after_fork, in_the_child); }

void bnn_parallel(int threads, int64_t items, int64_t grain, bnn_range run, void *context) {
  if (grain < 1) grain = 1;
  int64_t ranges = items > 0 ? (items - 1) / grain + 1 : 0;
  if (ranges < threads) threads = (int)ranges;
  if (threads <= 1) {
    run_alone(items, run, context);
    return;
  }
  /* Cores are not equally fast at every moment: a few ranges each, handed out as they are asked for. */
  if (ranges > 8 * (int64_t)threads) grain = (items - 1) / (8 * (int64_t)threads) + 1;

  call c = {.run = run, .context = context, .items = items, .grain = grain, .threads = threads, .joined = 1};
  pthread_mutex_lock(&lock);
  hire(threads - 1);
  c.after = calls;
  calls = &c;
  atomic_fetch_add(&arrived, 1);
  for (int i = 0; i < sleeping && i < threads - 1; i++) pthread_cond_signal(&wanted);
  pthread_mutex_unlock(&lock);

  take_ranges(&c, 0);

  pthread_mutex_lock(&lock);
  call **at = &calls;
  while (*at != &c) at = &(*at)->after;
  *at = c.after;
  pthread_mutex_unlock(&lock);
  for (int i = 0; i < LOOKS && atomic_load(&c.inside); i++) pause_a_little();
  pthread_mutex_lock(&lock);
  while (atomic_load(&c.inside)) pthread_cond_wait(&left, &lock);
  pthread_mutex_unlock(&lock);
}

#endif
