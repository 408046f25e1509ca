/* Every depthwise kernel of every level against loops written to be read, on random geometries. Floats are small
 * integers, so all sums are exact. Every array is a malloc of exactly its size. */
#include "bnn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED 7
#include "draw.h"

static float *draw_floats(int64_t count) {
  float *x = array(count, sizeof *x);
  for (int64_t i = 0; i < count; i++) x[i] = (float)(draw() % 17) - 8;
  return x;
}

/* What is packed: signs and units of some planes, or ternary values. */
typedef struct {
  bnn_kind kind;
  int planes;
} packing;

static int64_t largest(packing as) { return as.kind == BNN_TERNARY ? 1 : (1 << as.planes) - 1; }

/* Bit `plane` of a value. */
static uint32_t bit_of(packing as, float x, int plane) {
  if (as.kind == BNN_TERNARY) return plane ? x != 0 : x < 0;
  int64_t whole = as.kind == BNN_UNIT ? (int64_t)x : (largest(as) - (int64_t)x) / 2; /* of the planes that are -1 */
  return (uint32_t)(whole >> plane & 1);
}

/* [planes][rows][words of count], tails zero. */
static uint32_t *pack(packing as, const float *x, int64_t rows, int64_t count) {
  int64_t length = bnn_words(count), size = as.planes * rows * length;
  uint32_t *words = array(size, sizeof *words);
  for (int64_t i = 0; i < size; i++) words[i] = 0;
  for (int64_t i = 0; i < as.planes * rows * count; i++) {
    int64_t row = i / count, bit = i % count;
    words[row * length + bit / BNN_WORD] |= bit_of(as, x[i % (rows * count)], (int)(row / rows)) << bit % BNN_WORD;
  }
  return words;
}

static float *draw_values(packing as, int64_t count) {
  float *x = array(count, sizeof *x);
  for (int64_t i = 0; i < count; i++) {
    int64_t any = draw() % (uint64_t)(largest(as) + 1);
    x[i] = (float)(as.kind == BNN_UNIT ? any : as.kind == BNN_SIGN ? 2 * any - largest(as) : (int64_t)(draw() % 3) - 1);
  }
  return x;
}

static packing draw_packing(int most) {
  packing as = {(bnn_kind)(draw() % 3), 1 + (int)(draw() % (uint32_t)most)};
  if (as.kind == BNN_TERNARY) as.planes = 2;
  return draw() % 3 ? as : (packing){BNN_SIGN, 1};
}

static int64_t volume(const int64_t size[3]) { return size[0] * size[1] * size[2]; }

/* The input pixel that a tap of an output pixel reads, or -1. */
static int64_t source_pixel(const bnn_geometry *g, int64_t target, int64_t tap) {
  int64_t source = 0;
  int64_t t[3] = {target / g->out[2] / g->out[1], target / g->out[2] % g->out[1], target % g->out[2]};
  int64_t k[3] = {tap / g->kernel[2] / g->kernel[1], tap / g->kernel[2] % g->kernel[1], tap % g->kernel[2]};
  for (int axis = 0; axis < 3; axis++) {
    int64_t at = t[axis] * g->stride[axis] + k[axis] * g->dilation[axis] - g->pad[axis];
    if (at < 0 || at >= g->in[axis]) return -1;
    source = source * g->in[axis] + at;
  }
  return source;
}

typedef struct {
  const bnn_geometry *g;
  const float *x, *w, *dy;
  float pad;
  float *y, *dx, *dw;
} sums;

static void reference(const sums *s) {
  const bnn_geometry *g = s->g;
  int64_t pixels = volume(g->out), sources = volume(g->in), taps = volume(g->kernel);
  int64_t channels = g->channels, filters = g->filters, multiplier = filters / channels;
  for (int64_t i = 0; i < g->batch * pixels * filters; i++) s->y[i] = 0;
  for (int64_t i = 0; i < g->batch * sources * channels; i++) s->dx[i] = 0;
  for (int64_t i = 0; i < taps * filters; i++) s->dw[i] = 0;
  for (int64_t image = 0; image < g->batch; image++)
    for (int64_t pixel = 0; pixel < pixels; pixel++)
      for (int64_t tap = 0; tap < taps; tap++) {
        int64_t source = source_pixel(g, pixel, tap);
        for (int64_t f = 0; f < filters; f++) {
          int64_t from = (image * sources + source) * channels + f / multiplier;
          int64_t to = (image * pixels + pixel) * filters + f, at = tap * filters + f;
          float x = source < 0 ? s->pad : s->x[from];
          s->y[to] += x * s->w[at];
          s->dw[at] += x * s->dy[to];
          if (source >= 0) s->dx[from] += s->dy[to] * s->w[at];
        }
      }
}

/* In one range and in three, with fresh scratch, as threads would; parts are added up. */
static void run(const char *level, const char *name, const bnn_kernels *kernels, const bnn_kernel *kernel,
                bnn_product product, const float *want, int64_t size) {
  int64_t items = kernel->items(&product), parts = kernel->parts ? kernel->parts(&product) : 0;
  for (int64_t ranges = 1; ranges < 4; ranges += 2) {
    float *out = array((parts ? parts : 1) * size, sizeof *out), *sum = array(size, sizeof *sum);
    product.out = out;
    for (int64_t i = 0; i < ranges; i++) {
      size_t bytes = kernel->scratch(&product);
      void *scratch = NULL;
      if (posix_memalign(&scratch, BNN_ALIGN, bytes ? bytes : 1)) exit(2);
      memset(scratch, 0x5a, bytes);
      kernel->run(&product, items * i / ranges, items * (i + 1) / ranges, scratch);
      free(scratch);
    }
    if (parts) {
      kernels->sum_parts(out, parts, size, sum, 0, size / 2);
      kernels->sum_parts(out, parts, size, sum, size / 2, size);
    }
    for (int64_t i = 0; i < size; i++) {
      float got = parts ? sum[i] : product.out_type == BNN_INT32 ? (float)((int32_t *)product.out)[i] : out[i];
      if (got == want[i]) continue;
      fprintf(stderr, "%s %s: %g at %ld, expected %g\n", level, name, got, (long)i, want[i]);
      exit(1);
    }
    free(out), free(sum);
  }
}

/* (taps, C, M) -> (taps, M, C) */
static float *turn(const float *w, int64_t taps, int64_t channels, int64_t multiplier) {
  int64_t filters = channels * multiplier;
  float *turned = array(taps * filters, sizeof *turned);
  for (int64_t i = 0; i < taps * filters; i++)
    turned[(i / filters * multiplier + i % multiplier) * channels + i % filters / multiplier] = w[i];
  return turned;
}

static void check(const bnn_geometry *g, int pad, packing left, packing right) {
  int64_t pixels = volume(g->out), sources = volume(g->in), taps = volume(g->kernel), channels = g->channels;
  int64_t filters = g->filters, multiplier = filters / channels, inputs = g->batch * sources * channels;
  int64_t outputs = g->batch * pixels * filters, weights = taps * filters;
  float *dy = draw_floats(outputs), *constant = array(channels, sizeof *constant);
  for (int64_t i = 0; i < channels; i++) constant[i] = (float)pad;
  float *y = array(outputs, sizeof *y), *dx = array(inputs, sizeof *dx), *dw = array(weights, sizeof *dw);
  bnn_schedule *forward = bnn_schedule_make(g, 0, pad != 0), *backward = bnn_schedule_make(g, 1, 0);

  for (int bits = 0; bits < 4; bits++) { /* 1: of x, 2: of w */
    packing w_as = bits == 2 ? (packing){BNN_SIGN, 1} : right;
    float *x = bits & 1 ? draw_values(left, inputs) : draw_floats(inputs);
    float *w = bits & 2 ? draw_values(w_as, weights) : draw_floats(weights),
          *turned = turn(w, taps, channels, multiplier);
    uint32_t *x_bits = bits & 1 ? pack(left, x, g->batch * sources, channels) : NULL;
    uint32_t *w_bits = bits & 2 ? pack(w_as, turned, taps * multiplier, channels) : NULL;
    reference(&(sums){g, x, w, dy, (float)(bits & 1 ? pad * largest(left) : pad), y, dx, dw});
    for (const bnn_kernels *const *levels = bnn_supported(); *levels; levels++) {
      const bnn_kernels *k = *levels;
      const bnn_kernel *kernels[] = {&k->depthwise_float, &k->depthwise_left, &k->depthwise_right, &k->depthwise_xnor};
      bnn_product p = {.schedule = forward,
                       .images = g->batch,
                       .groups = channels,
                       .depth = 1,
                       .columns = multiplier,
                       .left = bits & 1 ? (void *)x_bits : x,
                       .right = bits & 2 ? (void *)w_bits : w,
                       .constant = bits & 1 ? NULL : constant,
                       .out_type = BNN_FLOAT32,
                       .left_kind = left.kind,
                       .right_kind = w_as.kind,
                       .left_planes = left.planes,
                       .right_planes = w_as.planes,
                       .pad = pad,
                       .divisor = 1};
      run(k->level, "forward", k, kernels[bits], p, y, outputs);
      if (bits == 3) {
        p.out_type = BNN_INT32;
        run(k->level, "forward to integers", k, kernels[bits], p, y, outputs);
        p.out_type = BNN_FLOAT32;
        float *third = array(outputs, sizeof *third);
        for (int64_t i = 0; i < outputs; i++) third[i] = y[i] / 3;
        p.divisor = 3;
        run(k->level, "forward, divided", k, kernels[bits], p, third, outputs);
        free(third);
      }
      p.right = dy;
      run(k->level, "kernel gradient", k, bits & 1 ? &k->depthwise_reduce : &k->depthwise_float_reduce, p, dw, weights);
      p.schedule = backward;
      p.left = dy;
      p.right = bits == 2 ? (void *)w_bits : w;
      p.depth = multiplier;
      p.columns = 1;
      run(k->level, "input gradient", k, kernels[bits == 2 ? 2 : 0], p, dx, inputs);
    }
    free(x), free(w), free(turned), free(x_bits), free(w_bits);
  }
  free(dy), free(constant), free(y), free(dx), free(dw), free(forward), free(backward);
}

static bnn_geometry draw_geometry(int large) {
  static const int64_t widths[] = {1, 2, 3, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 129, 140};
  bnn_geometry g = {.batch = 1 + draw() % 3};
  g.channels = g.groups = widths[draw() % 16];
  g.filters = g.channels * (draw() % 2 ? 1 : 1 + draw() % 5);
  draw_axes(&g, large, 4, 3);
  return g;
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 120;
  for (int round = 0; round < rounds; round++) {
    bnn_geometry g = draw_geometry(round % 8 == 0);
    check(&g, (int)(draw() % 3) - 1, draw_packing(5), draw_packing(3));
  }
  bnn_geometry many = {1, 34, 34, 68, {1, 1, 700}, {1, 1, 141}, {1, 1, 600}, {1, 1, 1}, {1, 1, 1}, {0, 0, 20}};
  check(&many, -1, (packing){BNN_SIGN, 1}, (packing){BNN_SIGN, 1});
  check(&many, 0, (packing){BNN_UNIT, 2}, (packing){BNN_TERNARY, 2});
  bnn_geometry deep = {2, 40, 40, 40, {1, 6, 5}, {1, 4, 3}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}};
  check(&deep, 1, (packing){BNN_UNIT, 8}, (packing){BNN_SIGN, 8});
  puts("depthwise kernels: ok");
  return 0;
}
