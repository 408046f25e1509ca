/* What the signed kernels promise beyond being right (check.c): the bits of a float sum depend neither on how the items
 * are split, nor on what the scratch held, nor on the batch, nor on the level, among those with register tables and
 * where no level has them; infinities and NaN come out where the sum has them; and kernel gradients are as accurate as
 * a product of floats, whatever the data. Every array is a malloc of exactly its size. */
#include "bnn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED 1
#include "draw.h"

static void *aligned(size_t bytes, int fill) {
  void *p = NULL;
  if (posix_memalign(&p, BNN_ALIGN, bytes ? bytes : 1)) exit(2);
  memset(p, fill, bytes);
  return p;
}

/* Random words of rows of `bits` bits, tails zero. */
static uint32_t *draw_words(int64_t rows, int64_t bits) {
  int64_t length = bnn_words(bits);
  uint32_t *words = array(rows * length, sizeof *words);
  for (int64_t i = 0; i < rows * length; i++) {
    int64_t rest = bits - i % length * BNN_WORD;
    words[i] = (draw() << 16 ^ draw()) & (rest < BNN_WORD ? (1u << rest) - 1 : ~0u);
  }
  return words;
}

/* What fixed point must cope with, too. */
enum { UNIFORM, SPECIAL, HEAVY_TAILED, MOSTLY_ZERO, CONSTANT, OUTLIER, HUGE_VALUES, DENORMAL, INTEGER, KINDS };

static float *draw_floats(int64_t count, int kind) {
  float *x = array(count, sizeof *x);
  for (int64_t i = 0; i < count; i++) {
    double u = (double)draw() / (1u << 30) - 1;
    x[i] = (float)(kind == HEAVY_TAILED  ? u / (1e-6 + fabs((double)draw() / (1u << 30) - 1))
                   : kind == MOSTLY_ZERO ? (draw() % 50 ? 0 * u : u)
                   : kind == CONSTANT    ? 0.3
                   : kind == HUGE_VALUES ? u * 1e34
                   : kind == DENORMAL    ? u * 1e-40
                   : kind == INTEGER     ? rint(u * 9)
                                         : u);
  }
  if (kind == OUTLIER && count) x[draw() % (uint64_t)count] = 1e6f;
  if (kind == SPECIAL && count) {
    static const float values[] = {INFINITY, -INFINITY, NAN};
    for (int i = 0; i < 3; i++) x[draw() % (uint64_t)count] = values[draw() % 3];
  }
  return x;
}

/* Items in ranges of `step`, 0 for all at once, with scratch that holds what a thread may find there. */
static float *run(const bnn_kernel *kernel, bnn_product product, int64_t size, int64_t step, int fill) {
  if (step) product.threads = (int)(draw() % 6); /* items of another size */
  int64_t items = kernel->items(&product), parts = kernel->parts ? kernel->parts(&product) : 1;
  void *scratch = aligned(kernel->scratch(&product), fill);
  float *out = memset(array(parts * size, sizeof(float)), 0xff, (size_t)(parts * size) * sizeof(float));
  product.out = out;
  for (int64_t i = 0; i < items; i += step ? step : items)
    kernel->run(&product, i, !step || items - i < step ? items : i + step, scratch);
  free(scratch);
  for (int64_t i = size; i < parts * size; i++) out[i % size] += out[i];
  return out;
}

static void expect(int condition, const char *level, const char *kernel, const char *what, const bnn_geometry *g) {
  if (condition) return;
  fprintf(stderr, "%s %s: %s; batch %ld groups %ld channels %ld filters %ld", level, kernel, what, (long)g->batch,
          (long)g->groups, (long)g->channels, (long)g->filters);
  for (int i = 0; i < 3; i++)
    fprintf(stderr, " axis %d: in %ld out %ld kernel %ld stride %ld dilation %ld pad %ld", i, (long)g->in[i],
            (long)g->out[i], (long)g->kernel[i], (long)g->stride[i], (long)g->dilation[i], (long)g->pad[i]);
  fputc('\n', stderr);
  exit(1);
}

/* The same bits, or NaN in both. */
static int equal(const float *a, const float *b, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (memcmp(a + i, b + i, sizeof *a) && !(isnan(a[i]) && isnan(b[i]))) return 0;
  return 1;
}

static double largest(const float *x, int64_t count) {
  double peak = 0;
  for (int64_t i = 0; i < count; i++)
    if (isfinite(x[i]) && fabs((double)x[i]) > peak) peak = fabs((double)x[i]);
  return peak;
}

/* Within the rounding of `terms` additions of magnitudes up to `peak`; infinities and NaN in the same places. */
static int close_to(const float *a, const float *b, int64_t count, int64_t terms, double peak) {
  for (int64_t i = 0; i < count; i++) {
    if (isnan(b[i]) ? isnan(a[i]) : isinf(b[i]) ? a[i] == b[i] : 0) continue;
    if (!(fabs((double)a[i] - b[i]) <= 6e-8 * 2 * peak * (double)terms * sqrt((double)terms + 1))) return 0;
  }
  return 1;
}

/* The three kernels, and those two again that may be told that most floats are zero, be it so or not. */
enum { PRODUCTS = 5 };

static void check(const bnn_geometry *g, int transposed, int pad, int kind) {
  bnn_schedule *schedule = bnn_schedule_make(g, transposed, pad != 0);
  int64_t depth = (transposed ? g->filters : g->channels) / g->groups;
  int64_t columns = (transposed ? g->channels : g->filters) / g->groups, row = columns * g->groups;
  int64_t pixels = schedule->pixels, sources = schedule->sources, taps = schedule->taps, words = bnn_words(depth);
  uint32_t *bits = draw_words(g->batch * sources * g->groups, depth);
  uint32_t *kernel = draw_words(taps * g->filters, g->channels / g->groups), *packed = draw_words(1, depth);
  float *left = draw_floats(g->batch * sources * g->groups * depth, kind);
  float *right = draw_floats(taps * depth * row, kind), *dy = draw_floats(g->batch * pixels * row, kind);
  float *constant = draw_floats(depth, UNIFORM);
  for (int64_t k = 0; k < depth; k++) constant[k] = (float)pad;
  bnn_weights weights = {1, taps, g->groups, g->channels, g->filters, transposed};
  int64_t results = g->batch * pixels * row, parameters = taps * depth * row;
  int64_t sizes[PRODUCTS] = {results, results, parameters, results, parameters};
  double peaks[PRODUCTS] = {largest(left, g->batch * sources * g->groups * depth), largest(right, taps * depth * row),
                            largest(dy, g->batch * pixels * row)};
  if (pad && peaks[0] < 1) peaks[0] = 1;
  peaks[3] = peaks[0], peaks[4] = peaks[2];
  float *firsts[2][PRODUCTS] = {{NULL}}; /* of portable, and of the lowest level of those that have the same bits */

  int levels = 0;
  while (bnn_supported()[levels]) levels++;
  while (levels--) { /* portable first */
    const bnn_kernels *kernels = bnn_supported()[levels];
    void *blob = aligned(kernels->prepared_size(&weights), 0xff);
    kernels->prepare(&weights, kernel, blob);
    const bnn_kernel *all[] = {&kernels->signed_right, &kernels->signed_left, &kernels->signed_reduce,
                               &kernels->signed_right, &kernels->signed_reduce};
    static const char *const names[] = {"signed_right", "signed_left", "signed_reduce", "signed_right of few",
                                        "signed_reduce of few"};
    const void *operands[][3] = {
        {left, blob, constant}, {bits, right, packed}, {bits, dy, packed}, {left, blob, constant}, {bits, dy, packed}};
    bnn_product products[PRODUCTS];
    for (int i = 0; i < PRODUCTS; i++)
      products[i] = (bnn_product){.schedule = schedule,
                                  .images = g->batch,
                                  .groups = g->groups,
                                  .depth = depth,
                                  .columns = columns,
                                  .left = operands[i][0],
                                  .right = operands[i][1],
                                  .constant = operands[i][2],
                                  .few = i > 2,
                                  .out_type = BNN_FLOAT32};
    for (int i = 0; i < PRODUCTS; i++) {
      const char *level = kernels->level;
      float *whole = run(all[i], products[i], sizes[i], 0, 0);
      static const int64_t steps[] = {1, 2, 5, 7};
      float *split = run(all[i], products[i], sizes[i], steps[draw() % 4], 0xff);
      expect(equal(whole, split, sizes[i]), level, names[i], "another split, other bits", g);
      if (i % 3 < 2 && i != 4 && g->batch) { /* the last image alone */
        bnn_product last = products[i];
        int64_t skip = (g->batch - 1) * sources * g->groups;
        last.images = 1;
        last.left = i == 1 ? (const void *)(bits + skip * words) : (const void *)(left + skip * depth);
        float *alone = run(all[i], last, pixels * row, 0, 0xff);
        expect(equal(whole + (g->batch - 1) * pixels * row, alone, pixels * row), level, names[i],
               "another batch, other bits", g);
        free(alone);
      }
      int tables = i != 1 && ((i < 3 && !strcmp(level, "avx2")) || !strncmp(level, "avx512", 6));
      float **first = &firsts[tables][i];
      if (firsts[0][i])
        expect(close_to(whole, firsts[0][i], sizes[i],
                        all[i] == &kernels->signed_reduce ? g->batch * pixels : taps * depth, peaks[i]),
               level, names[i], "too far from portable", g);
      for (int64_t j = 0; j < sizes[i] && firsts[0][i] && kind == INTEGER; j++)
        expect(whole[j] == firsts[0][i][j], level, names[i], "not exact", g);
      if (!*first)
        *first = whole;
      else if (i == 1 || tables)
        expect(equal(whole, *first, sizes[i]), level, names[i], "not the bits of a level below", g);
      if (*first != whole) free(whole);
      free(split);
    }
    free(blob);
  }
  for (int i = 0; i < PRODUCTS; i++) free(firsts[0][i]), free(firsts[1][i]);
  free(schedule), free(bits), free(kernel), free(packed), free(left), free(right), free(dy), free(constant);
}

/* ---- kernel gradients of data that fixed point finds hard ------------------------------------------------------- */

enum {
  DY_NORMAL,
  DY_HEAVY,
  DY_SPARSE,
  DY_CONSTANT,
  DY_ROWS,
  DY_GIANT,
  DY_LARGE,
  DY_SMALL,
  DY_DENORMAL,
  DY_ZERO,
  DY_KINDS
};
static const char *const kind_names[] = {"normal",    "heavy tails", "mostly zero", "constant", "rows of all sizes",
                                         "one giant", "large",       "small",       "denormal", "zero"};

static double draw_normal(void) {
  double sum = -6;
  for (int i = 0; i < 12; i++) sum += (double)draw() / (1u << 31);
  return sum;
}

static float *draw_kind(int kind, int64_t rows, int64_t columns) {
  float *x = array(rows * columns, sizeof *x);
  for (int64_t i = 0; i < rows; i++) {
    double row = kind == DY_ROWS ? pow(10, -(double)(draw() % 7)) : 1;
    for (int64_t j = 0; j < columns; j++) {
      double value = draw_normal() * row;
      if (kind == DY_HEAVY) value = pow(value, 5);
      if (kind == DY_SPARSE && draw() % 8) value = 0;
      if (kind == DY_CONSTANT) value = 0.1;
      if (kind == DY_GIANT && i == rows / 2) value *= 1e6;
      if (kind == DY_LARGE) value *= 1e33;
      if (kind == DY_SMALL) value *= 1e-25;
      if (kind == DY_DENORMAL) value *= 1e-42;
      if (kind == DY_ZERO) value = 0;
      x[i * columns + j] = (float)value;
    }
  }
  return x;
}

/* The result in double. Padded taps read ones where `pad` is 1. */
static double *reduce(const bnn_product *p) {
  const bnn_schedule *s = p->schedule;
  int64_t words = bnn_words(p->depth), row = p->groups * p->columns;
  double *out = array(s->taps * p->depth * row, sizeof *out);
  for (int64_t i = 0; i < s->taps * p->depth * row; i++) out[i] = 0;
  for (const bnn_class *c = s->class_; c < s->class_ + s->classes; c++)
    for (int64_t i = 0; i < c->valid + c->padded; i++)
      for (int64_t j = 0; j < p->images * c->count; j++)
        for (int64_t g = 0; g < p->groups; g++) {
          int64_t image = j / c->count, at = c->first + j % c->count;
          int64_t source = image * s->sources + s->base[at] + c->offset[i];
          const uint32_t *bits =
              i < c->valid ? (const uint32_t *)p->left + (source * p->groups + g) * words : p->constant;
          const float *dy = (const float *)p->right + (image * s->pixels + s->pixel[at]) * row + g * p->columns;
          for (int64_t k = 0; k < p->depth; k++)
            for (int64_t n = 0; n < p->columns; n++)
              out[(c->tap[i] * p->depth + k) * row + g * p->columns + n] += bits[k / 32] >> k % 32 & 1 ? -dy[n] : dy[n];
        }
  return out;
}

static void check_reduce(const bnn_geometry *g, int transposed, int pad, int kind, int few) {
  bnn_schedule *schedule = bnn_schedule_make(g, transposed, pad != 0);
  int64_t depth = (transposed ? g->filters : g->channels) / g->groups;
  int64_t columns = (transposed ? g->channels : g->filters) / g->groups, row = columns * g->groups;
  int64_t rows = schedule->taps * depth, size = rows * row;
  uint32_t *bits = draw_words(g->batch * schedule->sources * g->groups, depth), *packed = draw_words(1, depth);
  float *dy = draw_kind(kind, g->batch * schedule->pixels, row);
  bnn_product product = {.schedule = schedule,
                         .images = g->batch,
                         .groups = g->groups,
                         .depth = depth,
                         .columns = columns,
                         .left = bits,
                         .right = dy,
                         .constant = packed,
                         .few = few,
                         .out_type = BNN_FLOAT32};
  double *expected = reduce(&product);
  float *below = NULL; /* what the level below makes of it */
  int levels = 0;
  while (bnn_supported()[levels]) levels++;
  while (levels--) {
    const bnn_kernels *kernels = bnn_supported()[levels];
    float *whole = run(&kernels->signed_reduce, product, size, 0, 0);
    float *split = run(&kernels->signed_reduce, product, size, 1, 0xff);
    expect(equal(whole, split, size), kernels->level, kind_names[kind], "another split, other bits", g);
    /* Running sums of floats lose more when one term is far above the others; tiles leave some shapes to them. */
    int tiles = !strcmp(kernels->level, "amx") && !equal(whole, below, size);
    int64_t positions = g->batch * schedule->pixels;
    for (int64_t n = 0; n < row; n++) {
      double most = 0, error = 0, greatest = 0;
      for (int64_t i = 0; i < positions; i++) greatest = fmax(greatest, fabs(dy[i * row + n]));
      for (int64_t i = 0; i < rows; i++) {
        most = fmax(most, fabs(expected[i * row + n]));
        error = fmax(error, fabs(expected[i * row + n] - whole[i * row + n]));
      }
      /* Three limbs round a value by at most 2^-23 of the greatest, evenly: five deviations of the sum, and joining. */
      double bound = tiles ? 5 * sqrt((double)positions / 3) * greatest * 0x1p-23 + 2e-7 * most : 8e-6 * most;
      expect(error <= bound, kernels->level, kind_names[kind], "not accurate", g);
    }
    free(below), free(split);
    below = whole;
  }
  free(below);
  free(schedule), free(bits), free(packed), free(dy), free(expected);
}

static bnn_geometry draw_geometry(int large) {
  static const int64_t widths[] = {1, 2, 3, 4, 5, 10, 31, 32, 33, 63, 64, 65, 127, 128, 129, 131};
  bnn_geometry g = {.batch = draw() % 5, .groups = draw() % 4 ? 1 : 1 + draw() % 3};
  g.channels = g.groups * widths[draw() % 16];
  g.filters = g.groups * widths[draw() % 16];
  draw_axes(&g, large, 3, 2);
  return g;
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 120;
  for (int round = 0; round < rounds; round++) {
    bnn_geometry g = draw_geometry(round % 4 == 0);
    check(&g, round & 1, (int)(draw() % 3) - 1, round % 3 ? UNIFORM : 1 + round / 3 % (KINDS - 1));
  }
  static const int64_t dense[][3] = {{1, 4100, 70}, {400, 33, 40}, {9, 1, 1}, {65, 300, 129}, {500, 3, 5}};
  for (int i = 0; i < 5; i++)
    for (int transposed = 0; transposed < 2; transposed++) {
      int64_t rows = dense[i][0];
      bnn_geometry g = {1,         1,         dense[i][1], dense[i][2], {1, 1, rows}, {1, 1, rows},
                        {1, 1, 1}, {1, 1, 1}, {1, 1, 1},   {0}};
      check(&g, transposed, 0, i ? UNIFORM : HEAVY_TAILED);
    }
  /* several tiles: {batch, channels, filters, height, width, kernel, stride} */
  static const int64_t convolutions[][7] = {
      {3, 64, 48, 15, 16, 3, 1}, {2, 128, 70, 9, 17, 3, 2}, {5, 200, 65, 7, 7, 3, 1},   {1, 96, 130, 4, 33, 2, 1},
      {2, 64, 64, 31, 32, 1, 1}, {4, 65, 64, 6, 5, 5, 3},   {1, 260, 20, 30, 30, 3, 1}, {2, 64, 20, 1, 70, 3, 1},
      {4, 32, 16, 33, 65, 3, 1}, {2, 40, 65, 33, 65, 2, 1}}; /* the last two in parts of the images */
  for (int i = 0; i < 10; i++)
    for (int kind = i % 4; kind < KINDS; kind += i < 8 ? 4 : KINDS) {
      const int64_t *c = convolutions[i], pad = c[5] / 2;
      int64_t rows = (c[3] + 2 * pad * (c[3] > 1) - (c[3] > 1 ? c[5] : 1)) / c[6] + 1;
      int64_t length = (c[4] + 2 * pad - c[5]) / c[6] + 1;
      bnn_geometry g = {c[0],
                        1,
                        c[1],
                        c[2],
                        {1, c[3], c[4]},
                        {1, rows, length},
                        {1, c[3] > 1 ? c[5] : 1, c[5]},
                        {1, c[6], c[6]},
                        {1, 1, 1},
                        {0, c[3] > 1 ? pad : 0, pad}};
      check(&g, (i + kind / 4) & 1, kind % 3 == 2, kind);
    }
  static const int64_t images[][5] = {/* batch, size, channels, filters, kernel */
                                      {16, 7, 64, 48, 3},  {3, 28, 33, 17, 3},  {2, 40, 70, 80, 2},
                                      {9, 13, 200, 16, 3}, {4, 26, 16, 130, 1}, {1, 64, 20, 33, 1}};
  for (int i = 0; i < 6; i++)
    for (int kind = 0; kind < DY_KINDS; kind++) {
      int64_t size = images[i][1], groups = kind % 4 == 1 ? 2 : 1, taps = images[i][4];
      bnn_geometry g = {images[i][0],           groups,          groups * images[i][2],
                        images[i][3] * groups,  {1, size, size}, {1, size, size},
                        {1, taps, taps},        {1, 1, 1},       {1, 1, 1},
                        {0, taps / 2, taps / 2}};
      for (int few = 0; few < 2; few++)
        check_reduce(&g, (kind + i) % 3 == 0, taps == 3 && (kind + i) % 3 == 1, kind, few);
    }
  puts("signed kernels: ok");
  return 0;
}
