/* What every check program draws its data with. SEED is the program's own, so that none depends on another. */
#ifndef BNN_DRAW_H
#define BNN_DRAW_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = SEED;

static uint32_t draw(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33);
}

/* Of exactly its size, so that a sanitizer sees one byte too much; filled with what nobody should rely on. */
static void *array(int64_t count, size_t size) {
  void *p = malloc((size_t)count * size);
  if (!p && count) exit(2);
  return count ? memset(p, 0xa5, (size_t)count * size) : p;
}

#endif
