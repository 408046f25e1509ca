/* Memory of arrays while a model trains. A step allocates what the one before freed; given back to the system in
 * between, every page of it is found and cleared again, and kept by the C library it falls into pieces.
 *
 * While somebody holds memory, large arrays lie in mappings of their own, and what is freed waits for the next. Where
 * no piece that waits is large enough, the pages of several move to one place (Linux), in a tenth of the time of new
 * ones; elsewhere they are given back before new ones are mapped. So what is in use and what waits are together no more
 * than what was in use at some time, and a little, and the peak of the process is that of its arrays, however they lie.
 * Without a holder nothing waits, and new arrays are the C library's. So are those below VERY_LARGE while all holders
 * are modest, as in prediction: the C library keeps these itself, from call to call, and gives back what is larger.
 *
 * Large arrays begin on a line of the cache, which the C library's do not: then no store of a vector crosses two. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* mremap */
#endif
#include "module.h"

#include "../threads.h"

#include <stdlib.h>
#include <string.h>

enum {
  LARGE = 1 << 18,
  VERY_LARGE = 1 << 23,
  GRAIN = 1 << 16,
  HUGE_FROM = 1 << 22,
  MOST_WAITING = 256,
  MOST_SEAMS = 8192
};

/* In front of every array: the bytes of its mapping, or, less than GRAIN, how far before it begins what the C library
 * gave. */
typedef struct {
  size_t size, mapped;
} head;

enum { MARGIN = 64 }; /* a line of the cache */

typedef struct {
  char *at;
  size_t size;
} block;

static struct {
  long holders, modest; /* of all, those that hold only what is very large */
  size_t in_use, waiting, most;
  int count;
  block block[MOST_WAITING]; /* that wait, in the order of their addresses; no two are neighbours */
  int still;                 /* pages no longer move */
  int seams;
  char *seam[MOST_SEAMS]; /* where the system may see two mappings meet, in order: no move crosses one */
} pool;

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

/* ---- with the lock ---- */

/* The first seam that is not before `at`. */
static int seam_from(const char *at) {
  int low = 0, high = pool.seams;
  while (low < high) {
    int middle = (low + high) / 2;
    if (pool.seam[middle] < at)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static void add_seam(char *at) {
  int i = seam_from(at);
  if (i < pool.seams && pool.seam[i] == at) return;
  if (pool.seams == MOST_SEAMS) {
    pool.still = 1;
    return;
  }
  memmove(&pool.seam[i + 1], &pool.seam[i], (size_t)(pool.seams++ - i) * sizeof *pool.seam);
  pool.seam[i] = at;
}

static void drop_seams(block b) {
  int i = seam_from(b.at), end = seam_from(b.at + b.size);
  memmove(&pool.seam[i], &pool.seam[end], (size_t)(pool.seams - end) * sizeof *pool.seam);
  pool.seams -= end - i;
}

/* Nothing of ours is there any more. What lies behind it may be, and begins a mapping now. */
static void leave(block b) {
  drop_seams(b);
  add_seam(b.at + b.size);
}

#if defined(__unix__) || defined(__APPLE__)

static char *map(size_t size) {
  void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return NULL;
#ifdef MADV_HUGEPAGE
  if (size >= HUGE_FROM) madvise(at, size, MADV_HUGEPAGE);
#endif
  drop_seams((block){at, size});
  add_seam(at);
  return at;
}

static void unmap(block b) {
  munmap(b.at, b.size);
  leave(b);
}

#else

static char *map(size_t size) {
  (void)size;
  return NULL;
}
static void unmap(block b) { (void)b; }

#endif

static void drop(int i, int count) {
  memmove(&pool.block[i], &pool.block[i + count], (size_t)(pool.count - i - count) * sizeof(block));
  pool.count -= count;
}

/* The first `size` bytes of a block that waits. */
static block cut(int i, size_t size) {
  block *b = &pool.block[i], first = {b->at, size};
  pool.waiting -= size;
  *b = (block){b->at + size, b->size - size};
  if (!b->size) drop(i, 1);
  return first;
}

/* The smallest block that waits and has that size, or -1. */
static int smallest(size_t size) {
  int best = -1;
  for (int i = 0; i < pool.count; i++)
    if (pool.block[i].size >= size && (best < 0 || pool.block[i].size < pool.block[best].size)) best = i;
  return best;
}

/* Gives back so much of what waits that no more is left than that; the small pieces first, which fit least. */
static void shrink(size_t waiting) {
  while (pool.waiting > waiting) {
    int i = smallest(0);
    size_t more = pool.waiting - waiting, here = pool.block[i].size;
    unmap(cut(i, more < here ? more : here));
  }
}

/* A block begins to wait. */
static void wait_for_use(block b) {
  if (pool.count == MOST_WAITING) {
    unmap(b);
    return;
  }
  int i = 0;
  while (i < pool.count && pool.block[i].at < b.at) i++;
  pool.waiting += b.size;
  int before = i > 0 && pool.block[i - 1].at + pool.block[i - 1].size == b.at;
  int after = i < pool.count && b.at + b.size == pool.block[i].at;
  if (before) b = (block){pool.block[i - 1].at, pool.block[i - 1].size + b.size};
  if (after) b.size += pool.block[i].size;
  if (before && after) drop(i, 1);
  if (!before && !after) memmove(&pool.block[i + 1], &pool.block[i], (size_t)(pool.count++ - i) * sizeof b);
  pool.block[i - before] = b;
}

/* A new mapping whose first pages are `moving` bytes of what waits, no more than `size`, the small pieces first; or
 * NULL. */
static char *gather(size_t size, size_t moving) {
  char *at = map(size);
#ifdef MREMAP_FIXED
  for (size_t done = 0; at && done < moving && !pool.still;) {
    int i = smallest(0);
    block from = pool.block[i];
    int seam = seam_from(from.at + 1);
    if (seam < pool.seams && pool.seam[seam] < from.at + from.size) from.size = (size_t)(pool.seam[seam] - from.at);
    if (from.size > moving - done) from.size = moving - done;
    if (mremap(from.at, from.size, from.size, MREMAP_MAYMOVE | MREMAP_FIXED, at + done) == MAP_FAILED) {
      /* The system may have unmapped that place already, and somebody else mapped it: it is no longer ours. */
      pool.still = 1;
      leave((block){at + done, from.size});
      if (done) wait_for_use((block){at, done});
      if (done + from.size < size) unmap((block){at + done + from.size, size - done - from.size});
      return NULL;
    }
    leave(cut(i, from.size));
    done += from.size;
    if (done < size) add_seam(at + done);
  }
#else
  (void)moving;
#endif
  return at;
}

/* By how much all together may exceed what was in use: with it, a step of QuickNet moves half as many pages. A
 * sixteenth of a small network is smaller than its arrays: with no more, a step moved a hundred pieces, in a quarter of
 * its time. */
static size_t slack(size_t in_use) {
  const size_t least = 1 << 20, most = 1 << 23;
  size_t part = in_use / 16;
  return part < least ? least : part < most ? part : most;
}

static block get(size_t size) {
  size_t most = pool.most;
  pool.in_use += size;
  if (pool.in_use > most) pool.most = pool.in_use;
  int i = smallest(size);
  if (i >= 0) return cut(i, size);
  size_t room = pool.most + slack(pool.most) - pool.in_use;
  block b = {gather(size, pool.waiting > room ? pool.waiting - room : 0), size};
  shrink(room);
  if (!b.at) b.at = map(size);
  if (!b.at) {
    pool.in_use -= size;
    pool.most = most;
    shrink(0);
  }
  return b;
}

static void put(block b) {
  pool.in_use -= b.size;
  if (pool.holders)
    wait_for_use(b);
  else
    unmap(b);
}

/* ---- NumPy's side ---- */

static head *head_of(void *data) { return (head *)data - 1; }

static void *allocate(size_t size, int zero) {
  block b = {NULL, 0};
  if (size > SIZE_MAX / 2) return NULL;
  if (size >= LARGE) {
    bnn_lock();
    if (pool.holders > (size < VERY_LARGE ? pool.modest : 0)) b = get((size + MARGIN + GRAIN - 1) / GRAIN * GRAIN);
    bnn_unlock();
  }
  if (b.at) {
    char *data = b.at + MARGIN;
    *head_of(data) = (head){size, b.size};
    return zero ? memset(data, 0, size) : data;
  }
  size_t room = size >= LARGE ? sizeof(head) + MARGIN : sizeof(head);
  char *from = zero ? calloc(1, size + room) : malloc(size + room);
  if (!from) return NULL;
  char *data = from + room;
  if (size >= LARGE) data -= (uintptr_t)data % MARGIN;
  *head_of(data) = (head){size, (size_t)(data - from)};
  return data;
}

static void *array_malloc(void *context, size_t size) {
  (void)context;
  return allocate(size, 0);
}

static void *array_calloc(void *context, size_t count, size_t item) {
  (void)context;
  return item && count > SIZE_MAX / item ? NULL : allocate(count * item, 1);
}

static void array_free(void *context, void *data, size_t size) {
  (void)context, (void)size;
  if (!data) return;
  head h = *head_of(data);
  if (h.mapped < GRAIN) {
    free((char *)data - h.mapped);
    return;
  }
  bnn_lock();
  put((block){(char *)data - MARGIN, h.mapped});
  bnn_unlock();
}

static void *array_realloc(void *context, void *data, size_t size) {
  if (!data) return array_malloc(context, size);
  head h = *head_of(data);
  if (h.mapped == sizeof h && size < LARGE) {
    head *moved = realloc(head_of(data), size + sizeof h);
    if (!moved) return NULL;
    moved->size = size;
    return moved + 1;
  }
  void *moved = allocate(size, 0);
  if (!moved) return NULL;
  memcpy(moved, data, h.size < size ? h.size : size);
  array_free(context, data, h.size);
  return moved;
}

static PyDataMem_Handler handler = {
    .name = "bnnlayers",
    .version = 1,
    .allocator = {NULL, array_malloc, array_calloc, array_realloc, array_free},
};

/* ---- Python's side ---- */

/* New arrays of this context are ours, unless somebody else has changed NumPy's handler: 1 if that is a change. */
static int handle(void) {
  PyObject *current = PyDataMem_GetHandler();
  if (!current) return -1;
  int untouched = current == PyDataMem_DefaultHandler;
  Py_DECREF(current);
  if (!untouched) return 0;
  PyObject *ours = PyCapsule_New(&handler, "mem_handler", NULL);
  PyObject *before = ours ? PyDataMem_SetHandler(ours) : NULL;
  Py_XDECREF(ours);
  Py_XDECREF(before);
  return before ? 1 : -1;
}

PyArrayObject *memory_array(int axes, const npy_intp *shape, int type, int zeros) {
  npy_intp size = type == NPY_FLOAT64 ? 8 : type == NPY_INT16 ? 2 : 4, bytes = PyArray_MultiplyList(shape, axes) * size;
  int changed = bytes >= LARGE ? handle() : 0;
  if (changed < 0) return NULL;
  PyObject *array = zeros ? PyArray_ZEROS(axes, shape, type, 0) : PyArray_EMPTY(axes, shape, type, 0);
  if (changed) {
    PyObject *ours = PyDataMem_SetHandler(PyDataMem_DefaultHandler);
    if (!ours) Py_CLEAR(array);
    Py_XDECREF(ours);
  }
  return (PyArrayObject *)array;
}

static PyObject *hold_memory(PyObject *self, PyObject *modest) {
  (void)self;
  if (handle() < 0) return NULL;
  bnn_lock();
  pool.holders++;
  pool.modest += modest == Py_True;
  bnn_unlock();
  Py_RETURN_NONE;
}

static PyObject *release_memory(PyObject *self, PyObject *modest) {
  (void)self;
  bnn_lock();
  pool.modest -= modest == Py_True;
  if (--pool.holders == 0) {
    shrink(0);
    pool.most = pool.in_use;
  }
  bnn_unlock();
  Py_RETURN_NONE;
}

static PyObject *memory_holders(PyObject *self, PyObject *unused) {
  (void)self, (void)unused;
  bnn_lock();
  long holders = pool.holders;
  bnn_unlock();
  return PyLong_FromLong(holders);
}

static PyObject *memory_slack(PyObject *self, PyObject *in_use) {
  (void)self;
  size_t bytes = PyLong_AsSize_t(in_use);
  return PyErr_Occurred() ? NULL : PyLong_FromSize_t(slack(bytes));
}

PyMethodDef memory_methods[] = {
    {"hold_memory", hold_memory, METH_O,
     "hold_memory($self, modest, /)\n--\n\nLet freed arrays, if modest only very large ones, wait for new ones until "
     "release_memory(modest) is called as often."},
    {"release_memory", release_memory, METH_O,
     "release_memory($self, modest, /)\n--\n\nEnd one such call; the last one gives freed memory back to the system."},
    {"memory_holders", memory_holders, METH_NOARGS,
     "memory_holders($self)\n--\n\nHow often hold_memory() was called and not ended."},
    {"memory_slack", memory_slack, METH_O,
     "memory_slack($self, in_use, /)\n--\n\nBytes that may wait besides, where in_use bytes are at some time."},
    {NULL, NULL, 0, NULL},
};
