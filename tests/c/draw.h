/* What every check program draws its data with. SEED is the program's own, so that none depends on another. */
#ifndef BNN_DRAW_H
#define BNN_DRAW_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bnn.h"

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

/* Axes of an image, of kernels up to `kernel` long and strides up to `stride`; in all little enough to be checked. */
static inline void draw_axes(bnn_geometry *g, int large, int kernel, int stride) {
  int64_t terms = 1;
  for (int axis = 0; axis < 3; axis++) {
    int plain = axis == 0 ? draw() % 4 != 0 : draw() % 5 == 0;
    g->in[axis] = plain ? 1 : 1 + draw() % (large ? 24 : 7);
    g->kernel[axis] = plain ? 1 : 1 + draw() % (uint32_t)kernel;
    g->stride[axis] = plain ? 1 : 1 + draw() % (uint32_t)stride;
    g->dilation[axis] = plain ? 1 : 1 + draw() % 2;
    g->pad[axis] = plain ? 0 : draw() % 3;
    int64_t room = g->in[axis] + 2 * g->pad[axis] - (g->kernel[axis] - 1) * g->dilation[axis] - 1;
    g->out[axis] = room < 0 ? 0 : room / g->stride[axis] + 1;
    terms *= g->in[axis] * g->kernel[axis];
  }
  if (terms > 9000) g->in[0] = g->out[0] = g->kernel[0] = g->stride[0] = 1, g->pad[0] = 0;
}

#endif
