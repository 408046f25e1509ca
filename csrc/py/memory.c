/* Memory of arrays while a model trains. A step allocates what the one before freed; given back to the system in
 * between, every page of it is found and cleared again, and kept by the C library it falls into pieces.
 *
 * While somebody holds memory, large arrays lie in mappings of their own, and what is freed waits for the next. What is
 * in use and what waits are together no more than what was in use at some time, and a little: waiting pieces are given
 * back before more is mapped. So the peak of the process is that of its arrays, however they lie. Without a holder
 * nothing waits, and new arrays are the C library's.
 *
 * Large arrays begin on a line of the cache, which the C library's do not: then no store of a vector crosses two. */
#include "module.h"

#include "../threads.h"

#include <stdlib.h>
#include <string.h>

enum { LARGE = 1 << 18, GRAIN = 1 << 16, HUGE_FROM = 1 << 22, SLACK = 1 << 21, MOST_WAITING = 256 };

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
  long holders;
  size_t in_use, waiting, most;
  int count;
  block block[MOST_WAITING]; /* that wait, in the order of their addresses; no two are neighbours */
} pool;

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>

static char *map(size_t size) {
  void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return NULL;
#ifdef MADV_HUGEPAGE
  if (size >= HUGE_FROM) madvise(at, size, MADV_HUGEPAGE);
#endif
  return at;
}

static void unmap(block b) { munmap(b.at, b.size); }

#else

static char *map(size_t size) {
  (void)size;
  return NULL;
}
static void unmap(block b) { (void)b; }

#endif

/* ---- with the lock ---- */

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

static block get(size_t size) {
  size_t most = pool.most;
  pool.in_use += size;
  if (pool.in_use > most) pool.most = pool.in_use;
  int i = smallest(size);
  if (i >= 0) return cut(i, size);
  shrink(pool.most + SLACK - pool.in_use);
  block b = {map(size), size};
  if (!b.at) {
    pool.in_use -= size;
    pool.most = most;
    shrink(0);
  }
  return b;
}

static void put(block b) {
  pool.in_use -= b.size;
  if (!pool.holders || pool.count == MOST_WAITING) {
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

/* ---- NumPy's side ---- */

static head *head_of(void *data) { return (head *)data - 1; }

static void *allocate(size_t size, int zero) {
  block b = {NULL, 0};
  if (size > SIZE_MAX / 2) return NULL;
  if (size >= LARGE) {
    bnn_lock();
    if (pool.holders > 0) b = get((size + MARGIN + GRAIN - 1) / GRAIN * GRAIN);
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

static PyObject *hold_memory(PyObject *self, PyObject *unused) {
  (void)self, (void)unused;
  if (handle() < 0) return NULL;
  bnn_lock();
  pool.holders++;
  bnn_unlock();
  Py_RETURN_NONE;
}

static PyObject *release_memory(PyObject *self, PyObject *unused) {
  (void)self, (void)unused;
  bnn_lock();
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

static PyObject *memory_slack(PyObject *self, PyObject *unused) {
  (void)self, (void)unused;
  return PyLong_FromLong(SLACK);
}

PyMethodDef memory_methods[] = {
    {"hold_memory", hold_memory, METH_NOARGS,
     "hold_memory($self)\n--\n\nLet freed arrays wait for new ones until release_memory() is called as often."},
    {"release_memory", release_memory, METH_NOARGS,
     "release_memory($self)\n--\n\nEnd one hold_memory(); the last one gives freed memory back to the system."},
    {"memory_holders", memory_holders, METH_NOARGS,
     "memory_holders($self)\n--\n\nHow often hold_memory() was called and not ended."},
    {"memory_slack", memory_slack, METH_NOARGS,
     "memory_slack($self)\n--\n\nBytes by which memory that waits may exceed what was in use at some time."},
    {NULL, NULL, 0, NULL},
};
