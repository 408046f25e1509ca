/* What the C library does with freed memory. A step of training frees what it allocates and the next one allocates it
 * again; given back to the system in between, it costs a page fault for every page. */
#include "module.h"

#include <stdatomic.h>
#include <stdlib.h>

#ifdef __GLIBC__
#include <malloc.h>

/* Where glibc's own thresholds end in a process that frees large arrays; once set, they move no more. Mappings are
 * switched off by their number, since a threshold has a limit in older versions. */
enum { MAPPINGS = 65536, MAP_FROM = 32 << 20, TRIM_FROM = 64 << 20 };

static void keep_freed(int keep) {
  static const char *const chosen[] = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_",
                                       "GLIBC_TUNABLES"};
  for (size_t i = 0; i < sizeof chosen / sizeof *chosen; i++)
    if (getenv(chosen[i])) return;
  mallopt(M_MMAP_MAX, keep ? 0 : MAPPINGS);
  mallopt(M_TRIM_THRESHOLD, keep ? -1 : TRIM_FROM);
  if (keep) return;
  mallopt(M_MMAP_THRESHOLD, MAP_FROM);
  malloc_trim(0);
}

#else

static void keep_freed(int keep) { (void)keep; }

#endif

static atomic_long holders;

/* Repeated if the count changed meanwhile, so whoever comes last leaves what the count says. */
static void settle(void) {
  int keep;
  do keep_freed(keep = atomic_load(&holders) > 0);
  while (keep != (atomic_load(&holders) > 0));
}

static PyObject *hold_memory(PyObject *self, PyObject *unused) {
  (void)self, (void)unused;
  if (atomic_fetch_add(&holders, 1) == 0) settle();
  Py_RETURN_NONE;
}

static PyObject *release_memory(PyObject *self, PyObject *unused) {
  (void)self, (void)unused;
  if (atomic_fetch_sub(&holders, 1) == 1) settle();
  Py_RETURN_NONE;
}

static PyObject *memory_holders(PyObject *self, PyObject *unused) {
  (void)self, (void)unused;
  return PyLong_FromLong(atomic_load(&holders));
}

PyMethodDef memory_methods[] = {
    {"hold_memory", hold_memory, METH_NOARGS,
     "hold_memory($self)\n--\n\nKeep freed memory in the process until release_memory() is called as often."},
    {"release_memory", release_memory, METH_NOARGS,
     "release_memory($self)\n--\n\nEnd one hold_memory(); the last one gives freed memory back to the system."},
    {"memory_holders", memory_holders, METH_NOARGS,
     "memory_holders($self)\n--\n\nHow often hold_memory() was called and not ended."},
    {NULL, NULL, 0, NULL},
};
