/* Memory of large arrays that is used again.
 *
 * malloc gives memory of this size back to the system and asks for it anew, whose pages must then be cleared, or keeps
 * it in a heap that breaks into pieces which fit nothing. A step of training asks for the same sizes as the step
 * before, so blocks are kept here by their exact size. What is kept never makes the process larger than it has been:
 * a block of a new size takes the place of others as far as all of them together exceed the most that was in use.
 */
#include "module.h"

#if defined(__unix__) || defined(__APPLE__)

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

#define LARGE (1 << 18)            /* bytes; smaller arrays are malloc's */
#define MOST_KEPT (64 << 20)       /* bytes in blocks that are not in use */
#define UNIT ((size_t)1 << 16)     /* no system has larger pages */
#define HEADER ((size_t)BNN_ALIGN) /* so that a row of a vector never crosses cache lines */

/* At the beginning of its memory, in the ring of the blocks in use or in that of the others, the latest first. */
typedef struct block {
  struct block *next, *before;
  size_t bytes;
} block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static block used = {&used, &used, 0}, kept = {&kept, &kept, 0};
static size_t used_bytes, kept_bytes, most_used;

static void take_lock(void) { pthread_mutex_lock(&lock); }
static void leave_lock(void) { pthread_mutex_unlock(&lock); }

static void unlink_block(block *b) {
  b->before->next = b->next;
  b->next->before = b->before;
}

static void link_block(block *ring, block *b) {
  b->before = ring;
  b->next = ring->next;
  ring->next->before = b;
  ring->next = b;
}

/* Give the oldest blocks back while all would exceed `most`, or those kept what may be kept. */
static void shrink(size_t more, size_t most) {
  while (kept_bytes && (kept_bytes > MOST_KEPT || used_bytes + kept_bytes + more > most)) {
    block *oldest = kept.before;
    unlink_block(oldest);
    kept_bytes -= oldest->bytes;
    munmap(oldest, oldest->bytes);
  }
}

static void *take(size_t size, int zeros) {
  if (size > SIZE_MAX - HEADER - UNIT) return NULL;
  size_t bytes = (size + HEADER + UNIT - 1) / UNIT * UNIT;
  take_lock();
  block *b = kept.next;
  while (b != &kept && b->bytes != bytes) b = b->next;
  int again = b != &kept;
  if (again) {
    unlink_block(b);
    kept_bytes -= bytes;
  } else {
    shrink(bytes, most_used);
    b = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  if (b != MAP_FAILED) {
    b->bytes = bytes;
    link_block(&used, b);
    used_bytes += bytes;
    if (used_bytes > most_used) most_used = used_bytes;
  }
  leave_lock();
  if (b == MAP_FAILED) return NULL;
  void *memory = (char *)b + HEADER;
  return zeros && again ? memset(memory, 0, size) : memory;
}

/* The block in use that this memory belongs to, or NULL; with the lock. Few addresses of malloc's look like ours. */
static block *block_of(void *memory) {
  if (((uintptr_t)memory - HEADER) % 4096) return NULL;
  for (block *b = used.next; b != &used; b = b->next)
    if ((char *)b + HEADER == (char *)memory) return b;
  return NULL;
}

static void give(block *b) {
  unlink_block(b);
  link_block(&kept, b);
  used_bytes -= b->bytes;
  kept_bytes += b->bytes;
  shrink(0, most_used);
}

static void *memory_malloc(void *unused, size_t size) {
  (void)unused;
  return size < LARGE ? malloc(size) : take(size, 0);
}

static void *memory_calloc(void *unused, size_t count, size_t size) {
  (void)unused;
  if (size && count > SIZE_MAX / size) return NULL;
  return count * size < LARGE ? calloc(count, size) : take(count * size, 1);
}

static void memory_free(void *unused, void *memory, size_t size) {
  (void)unused, (void)size;
  if (!memory) return;
  block *b = NULL;
  if (((uintptr_t)memory - HEADER) % 4096 == 0) {
    take_lock();
    b = block_of(memory);
    if (b) give(b);
    leave_lock();
  }
  if (!b) free(memory);
}

/* What is resized is malloc's from then on. */
static void *memory_realloc(void *unused, void *memory, size_t size) {
  take_lock();
  block *b = memory ? block_of(memory) : NULL;
  leave_lock();
  if (!b) return realloc(memory, size);
  void *moved = malloc(size);
  if (!moved) return NULL;
  memcpy(moved, memory, size < b->bytes - HEADER ? size : b->bytes - HEADER);
  memory_free(unused, memory, size);
  return moved;
}

static PyDataMem_Handler handler = {"bnnlayers", 1, {NULL, memory_malloc, memory_calloc, memory_realloc, memory_free}};

static void prepare_forks(void) { pthread_atfork(take_lock, leave_lock, leave_lock); }

static PyObject *reused(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, prepare_forks);
  return PyCapsule_New(&handler, "mem_handler", NULL);
}

#else

static PyObject *reused(void) { return Py_NewRef(PyDataMem_DefaultHandler); }

#endif

static PyObject *set_memory(PyObject *self, PyObject *wanted) {
  (void)self;
  PyObject *capsule = wanted == Py_None ? reused() : Py_NewRef(wanted), *before = NULL;
  if (capsule && !PyCapsule_IsValid(capsule, "mem_handler"))
    PyErr_SetString(PyExc_TypeError, "set_memory(): argument must be None or what set_memory returned");
  else if (capsule)
    before = PyDataMem_SetHandler(capsule);
  Py_XDECREF(capsule);
  return before;
}

PyMethodDef memory_methods[] = {
    {"set_memory", set_memory, METH_O,
     "set_memory($self, handler, /)\n--\n\nUse memory again for the large arrays made from now on in this context, or "
     "as before with what the call returns."},
    {NULL, NULL, 0, NULL},
};
