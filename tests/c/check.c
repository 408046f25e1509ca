/* Calls every kernel of every level this machine runs, without Python, and compares with loops written to be read.
 *
 * Every array is a malloc of exactly its size, so a sanitizer sees one byte too much; integers are compared exactly,
 * float sums within the rounding of a sum of that length. */
#include "bnn.h"
#include "threads.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEED 0x9e3779b97f4a7c15u
#include "draw.h"

static const char *level;
static long comparisons;

#define CHECK(condition, ...)                                    \
  do {                                                           \
    comparisons++;                                               \
    if (!(condition)) {                                          \
      fprintf(stderr, "%s:%d [%s] ", __FILE__, __LINE__, level); \
      fprintf(stderr, __VA_ARGS__);                              \
      fputc('\n', stderr);                                       \
      exit(1);                                                   \
    }                                                            \
  } while (0)

/* ---- inputs ---------------------------------------------------------------------------------------------------- */

static double draw_real(void) {
  static const double special[] = {0, -0.0, 1, -1, 1.3, -1.3, 1e-40, -1e-40, INFINITY, -INFINITY};
  return draw() % 8 ? (double)draw() / 715827882 - 1.5 : special[draw() % (sizeof special / sizeof *special)];
}

/* Prepared operands and scratch are promised an alignment; the size stays exact. */
static void *aligned(size_t bytes) {
  void *p = NULL;
  if (posix_memalign(&p, BNN_ALIGN, bytes ? bytes : 1)) exit(2);
  memset(p, 0xa5, bytes);
  return p;
}

/* Random words of rows of `bits` bits, tails zero. */
static uint32_t *draw_words(int64_t rows, int64_t bits) {
  int64_t length = bnn_words(bits);
  uint32_t *words = array(rows * length, sizeof *words);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t w = 0; w < length; w++) {
      int64_t rest = bits - w * BNN_WORD;
      words[row * length + w] = (draw() << 16 ^ draw()) & (rest < BNN_WORD ? (1u << rest) - 1 : ~0u);
    }
  return words;
}

static float *draw_floats(int64_t count) {
  float *x = array(count, sizeof *x);
  for (int64_t i = 0; i < count; i++) x[i] = (float)((double)draw() / (1u << 30) - 1);
  return x;
}

static int bit_of(const uint32_t *row, int64_t bit) { return row[bit / BNN_WORD] >> bit % BNN_WORD & 1; }

static int sign_of(const uint32_t *row, int64_t bit) { return bit_of(row, bit) ? -1 : 1; }

/* What the planes of a kind hold in one place; `plane` words lie between them. */
static int value_of(bnn_kind kind, int planes, const uint32_t *row, int64_t plane, int64_t bit) {
  if (kind == BNN_TERNARY) return bit_of(row + plane, bit) ? sign_of(row, bit) : 0;
  int value = 0;
  for (int p = 0; p < planes; p++, row += plane)
    value += (kind == BNN_SIGN ? sign_of(row, bit) : bit_of(row, bit)) * (1 << p);
  return value;
}

/* The values of rows of `bits` bits one by one: decoding them is most of what a reference costs that reads words. */
static int *read_planes(bnn_kind kind, int planes, const uint32_t *words, int64_t rows, int64_t bits) {
  int64_t length = bnn_words(bits);
  int *values = array(rows * bits, sizeof *values);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t bit = 0; bit < bits; bit++)
      values[row * bits + bit] = value_of(kind, planes, words + row * length, rows * length, bit);
  return values;
}

/* Random words as the planes of a kind; a ternary value that is zero has no sign. */
static uint32_t *draw_planes(bnn_kind kind, int planes, int64_t rows, int64_t bits) {
  uint32_t *words = draw_words(planes * rows, bits);
  int64_t plane = rows * bnn_words(bits);
  for (int64_t i = 0; i < plane && kind == BNN_TERNARY; i++) words[i] &= words[plane + i];
  return words;
}

/* ---- elementwise ----------------------------------------------------------------------------------------------- */

/* From the definitions and not from the kernels. `single` rounds what a float32 kernel rounds where that decides
 * between two values; elsewhere *size is what the rounding errors are relative to, 0 where there are none. */
static double op_reference(int op, const double *a, int single, double *size) {
#define ROUND(value) (single ? (double)(float)(value) : (value))
  double x = a[0], length = fabs(x), inside = fmax(-1, fmin(1, x));
  *size = 0;
  switch (op) {
    case BNN_OP_ste_sign:
    case BNN_OP_approx_sign:
    case BNN_OP_swish_sign:
      return isnan(x) ? x : x < 0 ? -1 : 1;
    case BNN_OP_ste_heaviside:
      return isnan(x) ? x : x > 0;
    case BNN_OP_ste_tern:
      return isnan(x) ? x : x == 0 || length < fabs(a[1]) ? 0 : x < 0 ? -1 : 1;
    case BNN_OP_ste_sign_grad:
    case BNN_OP_ste_heaviside_grad:
    case BNN_OP_ste_tern_grad:
      return length <= a[2] ? a[1] : 0;
    case BNN_OP_approx_sign_grad:
      *size = 2 * fabs(a[1]);
      return length <= 1 ? 2 * (1 - length) * a[1] : 0;
    case BNN_OP_swish_sign_grad: {
      double b = a[2] * x;
      int large = fabs(b) > 300 && !isinf(b);
      *size = 4 * fabs(a[1] * a[2]);
      return large ? 0 : a[1] * a[2] * (2 - b * tanh(b / 2)) / (1 + cosh(b));
    }
    case BNN_OP_dorefa_activations:
      return isnan(x) ? x : ROUND(rint(ROUND(fmax(0, fmin(1, x)) * a[1])) / a[1]);
    case BNN_OP_dorefa_activations_grad:
      return 0 <= x && x <= 1 ? a[1] : 0;
    case BNN_OP_dorefa_weights:
      if (isnan(x)) return x;
      return ROUND(2 * ROUND(rint(ROUND(ROUND(ROUND(x / (2 * a[1])) + 0.5) * a[2])) / a[2]) - 1);
    case BNN_OP_dorefa_weights_grad:
      *size = 4 * fabs(a[1]) * (1 + x * x) / a[2];
      return (1 - x * x) / a[2] * a[1];
    case BNN_OP_hard_tanh:
      return isnan(x) ? x : inside;
    case BNN_OP_hard_tanh_grad:
      return length <= 1 ? a[1] : 0;
    case BNN_OP_clip:
      return isnan(x) ? x : fmax(a[1], fmin(a[2], x));
    case BNN_OP_clip_grad:
      return a[2] <= x && x <= a[3] ? a[1] : 0;
    case BNN_OP_leaky_tanh:
      *size = 2 * (1 + fabs(a[1] * x));
      return isnan(x) ? x : inside + a[1] * (x - inside);
    case BNN_OP_leaky_tanh_grad:
      *size = 2 * fabs(a[1]) * (1 + fabs(a[2]));
      return a[1] * ((length <= 1) + a[2] * (length >= 1));
    default:
      CHECK(0, "operation %d of ops.def has no reference", op);
      return NAN;
  }
#undef ROUND
}

/* One argument of an operation: anything, unless the operation restricts it. */
static double draw_argument(int op, int index) {
  static const double levels[] = {1, 3, 7, 15};
  int weights = op == BNN_OP_dorefa_weights, weights_grad = op == BNN_OP_dorefa_weights_grad;
  if ((op == BNN_OP_dorefa_activations && index == 1) || (weights && index == 2)) return levels[draw() % 4];
  if ((weights && index == 1) || (weights_grad && index == 2)) return 1.5;
  double x = index == 0 && draw() % 9 == 0 ? NAN : draw_real();
  int finite = index > 0 || weights || weights_grad;
  return finite && isinf(x) ? 1.25 : x;
}

static int near(double a, double b, double tolerance) {
  return a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= tolerance;
}

static void check_loops(const bnn_kernels *kernels) {
  for (int op = 0; op < BNN_OPS; op++)
    for (int64_t n = 0; n < 70; n += n < 36 ? 1 : 11) {
      float *f[4], *out_f = array(n, sizeof(float));
      double *d[4], *out_d = array(n, sizeof(double));
      for (int i = 0; i < 4; i++) {
        f[i] = array(n, sizeof(float));
        d[i] = array(n, sizeof(double));
        for (int64_t k = 0; k < n; k++) {
          d[i][k] = draw_argument(op, i);
          if (op == BNN_OP_clip && i == 2) d[i][k] = d[1][k] + fabs(d[i][k]);
          f[i][k] = (float)d[i][k];
        }
      }
      kernels->loops_f32[op]((const float *const *)f, out_f, n);
      kernels->loops_f64[op]((const double *const *)d, out_d, n);
      for (int64_t k = 0; k < n; k++) {
        double from_f[4] = {f[0][k], f[1][k], f[2][k], f[3][k]}, from_d[4] = {d[0][k], d[1][k], d[2][k], d[3][k]};
        double size, want = op_reference(op, from_f, 1, &size);
        CHECK(near(out_f[k], want, size ? 4 * 6e-8 * size + 2e-45 : 0), "op %d f32 of %g, %g, %g: %g, expected %g", op,
              from_f[0], from_f[1], from_f[2], out_f[k], want);
        want = op_reference(op, from_d, 0, &size);
        CHECK(near(out_d[k], want, 4 * 1.2e-16 * size), "op %d f64 of %g, %g, %g: %g, expected %g", op, from_d[0],
              from_d[1], from_d[2], out_d[k], want);
      }
      kernels->loops_f32[op]((const float *const *)f, f[0], n); /* in place */
      CHECK(!n || !memcmp(f[0], out_f, (size_t)n * sizeof(float)), "op %d in place", op);
      for (int i = 0; i < 4; i++) free(f[i]), free(d[i]);
      free(out_f), free(out_d);
    }
}

/* ---- packing --------------------------------------------------------------------------------------------------- */

/* The integer whose bit p is plane p of a value. */
static int packed_value(const bnn_pack *pack, double x, int real64) {
  switch (pack->packing) {
    case BNN_PACK_SIGN:
      return x < 0;
    case BNN_PACK_UNIT:
      return x > 0;
    case BNN_PACK_TERNARY: {
      double threshold = real64 ? pack->parameter : (float)pack->parameter;
      return x == 0 || fabs(x) < threshold ? 0 : x < 0 ? 3 : 2;
    }
    default: {
      double inside = fmax(0, fmin(1, x)) * pack->parameter;
      return (int)rint(real64 ? inside : (float)inside);
    }
  }
}

static void check_pack_of(const bnn_kernels *kernels, int64_t outer, int64_t count, int64_t inner, int real64,
                          int masked, int nan, bnn_packing packing) {
  int64_t total = outer * count * inner, rows = outer * inner, length = bnn_words(count);
  size_t size = real64 ? sizeof(double) : sizeof(float);
  double *values = array(total, sizeof(double));
  void *x = array(total, size), *dy = array(total, size), *out = array(total, size);
  for (int64_t i = 0; i < total; i++) {
    values[i] = draw_real();
    if (nan && i == (int64_t)(draw() % (uint32_t)total)) values[i] = NAN, nan = 2;
    if (real64)
      ((double *)x)[i] = values[i], ((double *)dy)[i] = (double)i + 1;
    else
      values[i] = ((float *)x)[i] = (float)values[i], ((float *)dy)[i] = (float)i + 1;
  }
  bnn_pack pack = {.x = x, .outer = outer, .count = count, .inner = inner, .packing = packing, .planes = 1, .clip = 1};
  if (packing == BNN_PACK_TERNARY) pack.planes = 2, pack.parameter = draw() % 3 ? 1.3 : 0;
  if (packing == BNN_PACK_LEVELS) pack.planes = 1 + (int)(draw() % 9), pack.parameter = (1 << pack.planes) - 1;
  if (packing == BNN_PACK_LEVELS && draw() % 4 == 0) pack.planes = BNN_PLANES, pack.parameter = (1 << BNN_PLANES) - 1;
  pack.words = array(pack.planes * rows * length, 4);
  pack.mask = masked ? array(rows * length, 4) : NULL;
  int64_t half = rows / 2;
  int (*run)(const bnn_pack *, int64_t, int64_t) = real64 ? kernels->pack_f64 : kernels->pack_f32;
  int met = run(&pack, 0, half);
  met |= run(&pack, half, rows);
  CHECK(met == (nan == 2), "NaN %d seen as %d: %ld %ld %ld", nan, met, (long)outer, (long)count, (long)inner);

  for (int64_t row = 0; row < rows; row++)
    for (int64_t bit = 0; bit < length * BNN_WORD; bit++) {
      int within = masked ? bit_of(pack.mask + row * length, bit) : 0, got = 0;
      for (int p = 0; p < pack.planes; p++) got |= bit_of(pack.words + (p * rows + row) * length, bit) << p;
      double value = bit < count ? values[(row / inner * count + bit) * inner + row % inner] : 0;
      int want = packed_value(&pack, value, real64), lets = fabs(value) <= 1 && bit < count;
      if (packing == BNN_PACK_LEVELS) lets &= value >= 0;
      CHECK(isnan(value) || got == want, "packing %d of %g at %ld of %ld: %d, expected %d", packing, value, (long)bit,
            (long)count, got, want);
      CHECK(!masked || within == lets, "mask %d of %g at %ld of %ld", packing, value, (long)bit, (long)count);
    }

  /* Signs, what the mask selects, and that once more, added. */
  for (int select = 0; select < 1 + 2 * masked && packing == BNN_PACK_SIGN; select++) {
    bnn_unpack unpack = {select ? pack.mask : pack.words, select ? dy : NULL, outer, count, inner, out, select == 2};
    void (*back)(const bnn_unpack *, int64_t, int64_t) = real64 ? kernels->unpack_f64 : kernels->unpack_f32;
    back(&unpack, 0, half);
    back(&unpack, half, rows);
    for (int64_t i = 0; i < total; i++) {
      double got = real64 ? ((double *)out)[i] : ((float *)out)[i];
      double want = select ? fabs(values[i]) <= 1 ? select * (double)(i + 1) : 0 : values[i] < 0 ? -1 : 1;
      CHECK(got == want || (!select && isnan(values[i])), "unpack %d of %g: %g", select, values[i], got);
    }
  }
  free(values), free(x), free(dy), free(out), free(pack.words), free(pack.mask);
}

static void check_pack(const bnn_kernels *kernels) {
  static const int64_t counts[] = {0, 1, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129};
  static const int64_t inners[] = {1, 2, 7, 8, 9, 15, 16, 17, 33};
  for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
    for (size_t i = 0; i < sizeof inners / sizeof *inners; i++)
      for (int variant = 0; variant < 32; variant++)
        check_pack_of(kernels, draw() % 4, counts[c], inners[i], variant & 1, variant >> 1 & 1, variant >> 2 & 1,
                      (bnn_packing)(variant >> 3));
  for (int packing = BNN_PACK_SIGN; packing <= BNN_PACK_LEVELS; packing++) /* longer than a strip both ways */
    check_pack_of(kernels, 2, 545, 521, 0, 1, 0, (bnn_packing)packing);
}

static void check_all_set(const bnn_kernels *kernels) {
  static const int64_t counts[] = {0, 1, 31, 32, 33, 64, 65, 129};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
    for (int64_t rows = 0; rows < 4; rows++) {
      int64_t length = bnn_words(counts[i]), cleared = rows * counts[i];
      uint32_t *words = array(rows * length, 4);
      for (int64_t at = 0; at <= cleared; at++) { /* the bit that is not set, and at last none */
        for (int64_t bit = 0; bit < rows * length * BNN_WORD; bit++) {
          int64_t row = bit / (length * BNN_WORD), column = bit % (length * BNN_WORD);
          uint32_t one = column < counts[i] && row * counts[i] + column != at;
          words[bit / BNN_WORD] = (words[bit / BNN_WORD] & ~(1u << bit % BNN_WORD)) | one << bit % BNN_WORD;
        }
        CHECK(kernels->all_set(words, rows, counts[i]) == (at == cleared), "all of %ld rows of %ld but %ld", (long)rows,
              (long)counts[i], (long)at);
      }
      free(words);
    }
}

static void check_split(const bnn_kernels *kernels) {
  static const int64_t depths[] = {1, 2, 5, 16, 31, 32, 33, 64, 65};
  for (size_t i = 0; i < sizeof depths / sizeof *depths; i++)
    for (int64_t groups = 1; groups < 6; groups++) {
      int64_t rows = 3, depth = depths[i], channels = depth * groups, length = bnn_words(channels);
      uint32_t *words = draw_words(rows, channels), *out = array(rows * groups * bnn_words(depth), 4);
      kernels->split_groups(words, rows, channels, groups, out);
      for (int64_t row = 0; row < rows * groups; row++)
        for (int64_t bit = 0; bit < bnn_words(depth) * BNN_WORD; bit++) {
          int got = sign_of(out + row * bnn_words(depth), bit);
          int want = bit < depth ? sign_of(words + row / groups * length, row % groups * depth + bit) : 1;
          CHECK(got == want, "bit %ld of %ld in group %ld", (long)bit, (long)depth, (long)(row % groups));
        }
      free(words), free(out);
    }
}

/* ---- products -------------------------------------------------------------------------------------------------- */

typedef struct {
  bnn_geometry geometry;
  int pad; /* 0, 1 or -1 */
  bnn_kind left_kind, right_kind;
  int left_planes, right_planes;
} problem;

static void draw_kinds(problem *p) {
  p->left_kind = (bnn_kind)(draw() % 3), p->right_kind = (bnn_kind)(draw() % 3);
  p->left_planes = p->left_kind == BNN_TERNARY ? 2 : 1 + (int)(draw() % 4);
  p->right_planes = p->right_kind == BNN_TERNARY ? 2 : 1 + (int)(draw() % 4);
}

/* Run a kernel in a few ranges, as threads would, its scratch fresh for each. */
static void run_kernel(const bnn_kernel *kernel, const bnn_product *product) {
  int64_t items = kernel->items(product), parts = items < 3 ? 1 : 3;
  for (int64_t part = 0; part < parts; part++) {
    void *scratch = aligned(kernel->scratch(product));
    kernel->run(product, items * part / parts, items * (part + 1) / parts, scratch);
    free(scratch);
  }
}

/* The source pixel that a tap of a target reads: an index, -1 for padding, -2 for what a stride skips. */
static int64_t source_pixel(const bnn_geometry *g, int transposed, int64_t target, int64_t tap) {
  const int64_t *targets = transposed ? g->in : g->out, *sources = transposed ? g->out : g->in;
  int64_t source = 0, padded = 0;
  int64_t t[3] = {target / targets[2] / targets[1], target / targets[2] % targets[1], target % targets[2]};
  int64_t k[3] = {tap / g->kernel[2] / g->kernel[1], tap / g->kernel[2] % g->kernel[1], tap % g->kernel[2]};
  for (int axis = 0; axis < 3; axis++) {
    int64_t at = t[axis] * g->stride[axis] + k[axis] * g->dilation[axis] - g->pad[axis];
    if (transposed) {
      at = t[axis] + g->pad[axis] - k[axis] * g->dilation[axis];
      if (at % g->stride[axis]) return -2;
      at /= g->stride[axis];
    }
    if (at < 0 || at >= sources[axis]) padded = 1;
    source = source * sources[axis] + at;
  }
  return padded ? -1 : source;
}

static int64_t volume(const int64_t size[3]) { return size[0] * size[1] * size[2]; }

/* Each of the additions rounds a partial sum no larger than `size`. */
static double tolerance(int64_t terms, double size) { return 1.2e-7 * (double)(terms + 8) * size; }

static void check_product(const bnn_kernels *kernels, const problem *p, int transposed) {
  const bnn_geometry *g = &p->geometry;
  CHECK(!bnn_geometry_error(g), "%s", bnn_geometry_error(g));
  bnn_schedule *schedule = bnn_schedule_make(g, transposed, p->pad != 0);
  int64_t depth = (transposed ? g->filters : g->channels) / g->groups;
  int64_t columns = (transposed ? g->channels : g->filters) / g->groups;
  int64_t pixels = volume(transposed ? g->in : g->out), sources = volume(transposed ? g->out : g->in);
  int64_t taps = volume(g->kernel), words = bnn_words(depth), row = columns * g->groups;
  CHECK(schedule->pixels == pixels && schedule->sources == sources && schedule->taps == taps, "schedule sizes");

  uint32_t *left = draw_planes(p->left_kind, p->left_planes, g->batch * sources * g->groups, depth);
  uint32_t *kernel = draw_planes(p->right_kind, p->right_planes, taps * g->filters, g->channels / g->groups);
  uint32_t *constant = array(words, 4);
  for (int64_t w = 0; w < words; w++) {
    int64_t rest = depth - w * BNN_WORD;
    constant[w] = p->pad < 0 ? rest < BNN_WORD ? (1u << rest) - 1 : ~0u : 0;
  }
  bnn_weights weights = {p->right_planes, taps, g->groups, g->channels, g->filters, transposed};
  void *right = aligned(kernels->prepared_size(&weights));
  kernels->prepare(&weights, kernel, right);

  float *left_floats = draw_floats(g->batch * sources * g->groups * depth);
  float *right_floats = draw_floats(taps * depth * row);
  float *dy = draw_floats(g->batch * pixels * row);
  float *constant_floats = array(depth, 4);
  for (int64_t k = 0; k < depth; k++) constant_floats[k] = (float)p->pad / 2;

  int64_t size = g->batch * pixels * row;
  int32_t *ints = array(size, 4);
  float *floats = array(size, 4), *signed_right = array(size, 4), *signed_left = array(size, 4);
  float *direct = array(size, 4), *reduced = array(taps * depth * row, 4), *direct_reduced = NULL;
  double *reduced_want = calloc((size_t)(taps * depth * row) + 1, sizeof(double));
  double *direct_reduced_want = calloc((size_t)(taps * depth * row) + 1, sizeof(double));
  bnn_product product = {.schedule = schedule,
                         .images = g->batch,
                         .groups = g->groups,
                         .depth = depth,
                         .columns = columns,
                         .left = left,
                         .right = right,
                         .out = ints,
                         .out_type = BNN_INT32,
                         .left_kind = p->left_kind,
                         .right_kind = p->right_kind,
                         .left_planes = p->left_planes,
                         .right_planes = p->right_planes,
                         .pad = p->pad};
  run_kernel(&kernels->xnor, &product);
  int64_t largest = taps * depth * ((1 << p->left_planes) - 1) * ((1 << p->right_planes) - 1);
  int16_t *halves = array(size, sizeof *halves);
  product.out = halves;
  product.out_type = BNN_INT16;
  if (largest <= INT16_MAX) run_kernel(&kernels->xnor, &product);
  product.out = floats;
  product.out_type = BNN_FLOAT32;
  run_kernel(&kernels->xnor, &product);
  product.left = left_floats;
  product.constant = constant_floats;
  product.out = signed_right;
  run_kernel(&kernels->signed_right, &product);
  product.right = right_floats;
  product.out = direct;
  run_kernel(&kernels->direct, &product);
  int64_t parts = 0;
  if (!transposed) {
    parts = kernels->direct_reduce.parts(&product);
    product.right = dy;
    product.out = direct_reduced = array(parts * taps * depth * row, 4);
    run_kernel(&kernels->direct_reduce, &product);
    product.left = left;
    product.constant = constant;
    product.right = right_floats;
    product.out = signed_left;
    run_kernel(&kernels->signed_left, &product);
    product.right = dy;
    product.out = reduced;
    CHECK(!kernels->signed_reduce.parts || kernels->signed_reduce.parts(&product) == 1, "%s", "more than one part");
    run_kernel(&kernels->signed_reduce, &product);
  }

  /* The signed kernels read signs, here those of the first planes. */
  int64_t rows = g->batch * sources * g->groups, width = g->channels / g->groups;
  int *values = read_planes(p->left_kind, p->left_planes, left, rows, depth);
  int *signs = read_planes(BNN_SIGN, 1, left, rows, depth);
  int *kernel_values = read_planes(p->right_kind, p->right_planes, kernel, taps * g->filters, width);
  int *kernel_signs = read_planes(BNN_SIGN, 1, kernel, taps * g->filters, width);
  int pad_value = p->pad * (p->left_kind == BNN_TERNARY ? 1 : (1 << p->left_planes) - 1);
  for (int64_t image = 0; image < g->batch; image++)
    for (int64_t pixel = 0; pixel < pixels; pixel++)
      for (int64_t c = 0; c < row; c++) {
        int64_t group = c / columns, at = (image * pixels + pixel) * row + c;
        int64_t sum = 0;
        double right_sum = 0, left_sum = 0, direct_sum = 0;
        for (int64_t tap = 0; tap < taps; tap++) {
          int64_t source = source_pixel(g, transposed, pixel, tap);
          if (source == -2 || (source == -1 && (!p->pad || transposed))) continue;
          int64_t from = (image * sources + source) * g->groups + group;
          for (int64_t k = 0; k < depth; k++) {
            int64_t filter = transposed ? group * depth + k : c, channel = transposed ? c % columns : k;
            int64_t weight = (tap * g->filters + filter) * width + channel, here = from * depth + k;
            sum += kernel_values[weight] * (source < 0 ? pad_value : values[here]);
            int sign = source < 0 ? p->pad : signs[here];
            double real = source < 0 ? constant_floats[k] : left_floats[here];
            int64_t place = (tap * depth + k) * row + c;
            right_sum += kernel_signs[weight] * real;
            left_sum += sign * (double)right_floats[place];
            direct_sum += real * right_floats[place];
            reduced_want[place] += sign * (double)dy[at];
            direct_reduced_want[place] += real * dy[at];
          }
        }
        CHECK(ints[at] == sum, "xnor of %d x %d, %d x %d planes at %ld: %d, expected %ld", p->left_kind, p->right_kind,
              p->left_planes, p->right_planes, (long)at, ints[at], (long)sum);
        CHECK(floats[at] == (float)sum, "xnor to float at %ld", (long)at);
        CHECK(largest > INT16_MAX || halves[at] == sum, "xnor to 16 bits at %ld", (long)at);
        CHECK(fabs(signed_right[at] - right_sum) <= tolerance(taps * depth, (double)(taps * depth)),
              "signed_right at %ld: %g, expected %g", (long)at, signed_right[at], right_sum);
        CHECK(transposed || fabs(signed_left[at] - left_sum) <= tolerance(taps * depth, (double)(taps * depth)),
              "signed_left at %ld: %g, expected %g", (long)at, signed_left[at], left_sum);
        CHECK(fabs(direct[at] - direct_sum) <= tolerance(taps * depth, (double)(taps * depth)),
              "direct at %ld: %g, expected %g", (long)at, direct[at], direct_sum);
      }
  int64_t terms = g->batch * pixels;
  for (int64_t i = 0; !transposed && i < taps * depth * row; i++) {
    double sum = 0;
    for (int64_t part = 0; part < parts; part++) sum += direct_reduced[part * taps * depth * row + i];
    CHECK(fabs(sum - direct_reduced_want[i]) <= tolerance(terms, (double)terms),
          "direct_reduce at %ld: %g, expected %g", (long)i, sum, direct_reduced_want[i]);
    CHECK(fabs(reduced[i] - reduced_want[i]) <= tolerance(terms, (double)terms),
          "signed_reduce at %ld: %g, expected %g", (long)i, reduced[i], reduced_want[i]);
  }

  free(schedule), free(left), free(kernel), free(constant), free(right), free(left_floats), free(right_floats);
  free(dy), free(constant_floats), free(ints), free(halves), free(floats), free(signed_right), free(signed_left),
      free(reduced);
  free(reduced_want), free(direct), free(direct_reduced), free(direct_reduced_want);
  free(values), free(signs), free(kernel_values), free(kernel_signs);
}

static void check_columns(const problem *p) {
  const bnn_geometry *g = &p->geometry;
  bnn_schedule *forward = bnn_schedule_make(g, 0, 1), *backward = bnn_schedule_make(g, 1, 0);
  int64_t pixels = volume(g->out), sources = volume(g->in), taps = volume(g->kernel), depth = g->channels / g->groups;
  int64_t rows = g->batch * pixels, width = taps * depth;
  float *x = draw_floats(g->batch * sources * g->channels), *columns = array(g->groups * rows * width, 4);
  float *back = array(g->batch * sources * g->channels, 4);
  double *want = calloc((size_t)(g->batch * sources * g->channels) + 1, sizeof *want);
  bnn_columns job = {forward, g->batch, g->groups, depth, x, columns, p->pad};
  bnn_im2col_f32(&job, 0, rows / 2);
  bnn_im2col_f32(&job, rows / 2, rows);
  for (int64_t group = 0; group < g->groups; group++)
    for (int64_t i = 0; i < rows; i++)
      for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t k = 0; k < depth; k++) {
          int64_t source = source_pixel(g, 0, i % pixels, tap);
          int64_t at = ((i / pixels * sources + source) * g->groups + group) * depth + k;
          float got = columns[((group * rows + i) * taps + tap) * depth + k];
          CHECK(got == (source < 0 ? (float)p->pad : x[at]), "im2col");
          if (source >= 0) want[at] += got;
        }
  job.schedule = backward;
  job.x = back;
  bnn_col2im_f32(&job, 0, g->batch * sources);
  for (int64_t i = 0; i < g->batch * sources * g->channels; i++)
    CHECK(fabs(back[i] - want[i]) <= tolerance(taps, (double)taps), "col2im at %ld", (long)i);
  free(forward), free(backward), free(x), free(columns), free(back), free(want);
}

static problem draw_problem(void) {
  static const int64_t widths[] = {1, 2, 3, 5, 16, 31, 32, 33, 63, 64, 65, 127, 128, 129};
  problem p = {.geometry = {.batch = draw() % 4}, .pad = (int)(draw() % 3) - 1};
  bnn_geometry *g = &p.geometry;
  int64_t budget = 60;
  g->groups = draw() % 4 ? 1 : 1 + draw() % 3;
  g->channels = g->groups * (draw() % 12 ? widths[draw() % 14] : 0);
  g->filters = g->groups * (draw() % 12 ? widths[draw() % 14] : 0);
  for (int axis = 0; axis < 3; axis++) {
    int plain = draw() % 3 == 0;
    g->in[axis] = plain ? 1 : 1 + draw() % (budget > 8 ? 8 : budget);
    g->kernel[axis] = plain ? 1 : 1 + draw() % 4;
    g->stride[axis] = plain ? 1 : 1 + draw() % 3;
    g->dilation[axis] = plain ? 1 : 1 + draw() % 3;
    g->pad[axis] = plain ? 0 : draw() % 4;
    int64_t high = plain ? 0 : draw() % 4;
    int64_t room = g->in[axis] + g->pad[axis] + high - (g->kernel[axis] - 1) * g->dilation[axis] - 1;
    g->out[axis] = room < 0 ? draw() % 2 : room / g->stride[axis] + 1;
    budget /= g->in[axis] > g->out[axis] ? g->in[axis] : g->out[axis] ? g->out[axis] : 1;
    if (budget < 1) budget = 1;
  }
  return p;
}

static problem dense(int64_t rows, int64_t depth, int64_t columns) {
  return (problem){
      .geometry = {1, 1, depth, columns, {1, 1, rows}, {1, 1, rows}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}},
      .left_planes = 1,
      .right_planes = 1};
}

static void check_products(const bnn_kernels *kernels, int rounds) {
  static const int64_t widths[] = {0, 1, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129};
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
    for (int64_t rows = 0; rows < 5; rows++)
      for (int transposed = 0; transposed < 2; transposed++) {
        problem p = dense(rows, widths[i], widths[(i * 5 + (size_t)rows) % (sizeof widths / sizeof *widths)]);
        check_product(kernels, &p, transposed);
        draw_kinds(&p);
        check_product(kernels, &p, transposed);
      }
  problem deep = dense(7, 4099, 33), tall = dense(211, 65, 9);
  problem image = {.geometry = {2, 1, 64, 40, {1, 14, 13}, {1, 14, 13}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
                   .pad = 1,
                   .left_planes = 1,
                   .right_planes = 1};
  problem large_kernel = {.geometry = {2, 2, 66, 6, {1, 2, 3}, {1, 2, 3}, {1, 5, 7}, {1, 1, 1}, {1, 1, 1}, {0, 2, 3}},
                          .pad = -1,
                          .left_planes = 1,
                          .right_planes = 1};
  for (int transposed = 0; transposed < 2; transposed++) {
    check_product(kernels, &deep, transposed);
    check_product(kernels, &tall, transposed);
    check_product(kernels, &image, transposed);
    check_product(kernels, &large_kernel, transposed);
  }
  /* Channels that fill few words, whose taps are folded: rows of more than a vector, and more than a block of them. */
  static const int64_t few[] = {1, 3, 16, 33, 48};
  for (size_t i = 0; i < sizeof few / sizeof *few; i++)
    for (int stride = 1; stride < 3; stride++) {
      int64_t out = (37 + stride - 1) / stride;
      problem p = {.geometry = {2, 2, 2 * few[i], 140, {1, 5, 37}, {1, (5 + stride - 1) / stride, out}},
                   .pad = (int)i % 3 - 1};
      for (int axis = 0; axis < 3; axis++)
        p.geometry.kernel[axis] = axis ? 3 : 1, p.geometry.stride[axis] = axis ? stride : 1,
        p.geometry.dilation[axis] = 1, p.geometry.pad[axis] = axis ? 1 : 0;
      p.left_planes = p.right_planes = 1;
      check_product(kernels, &p, 0);
      draw_kinds(&p);
      check_product(kernels, &p, 0);
    }
  for (int round = 0; round < rounds; round++) {
    problem p = draw_problem();
    draw_kinds(&p);
    check_product(kernels, &p, round & 1);
  }
  problem small = {.geometry = {3, 2, 66, 70, {1, 5, 4}, {1, 5, 4}, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}}};
  for (int left = BNN_SIGN; left <= BNN_TERNARY; left++)
    for (int right = BNN_SIGN; right <= BNN_TERNARY; right++)
      for (int variant = 0; variant < 12; variant++) {
        small.pad = variant % 3 - 1;
        small.left_kind = (bnn_kind)left, small.right_kind = (bnn_kind)right;
        small.left_planes = left == BNN_TERNARY ? 2 : 1 + 2 * (variant / 3 % 2);
        small.right_planes = right == BNN_TERNARY ? 2 : 1 + variant / 6;
        check_product(kernels, &small, 0);
        small.pad = 0;
        check_product(kernels, &small, 1);
      }
}

/* ---- geometry and threads -------------------------------------------------------------------------------------- */

static void check_geometry_errors(void) {
  const bnn_geometry sound = dense(4, 5, 6).geometry;
  CHECK(!bnn_geometry_error(&sound), "a sound geometry is refused");
#define REFUSED(field, value)                                             \
  do {                                                                    \
    bnn_geometry g = sound;                                               \
    g.field = value;                                                      \
    CHECK(bnn_geometry_error(&g), "%s = %s is accepted", #field, #value); \
  } while (0)
  REFUSED(batch, -1);
  REFUSED(batch, INT64_MAX);
  REFUSED(groups, 0);
  REFUSED(groups, 4);
  REFUSED(channels, -1);
  REFUSED(channels, INT64_MAX);
  REFUSED(filters, INT64_MIN);
  REFUSED(in[1], -1);
  REFUSED(in[0], INT64_MAX);
  REFUSED(out[2], (int64_t)1 << 31);
  REFUSED(kernel[2], 0);
  REFUSED(kernel[1], (int64_t)1 << 30);
  REFUSED(stride[0], 0);
  REFUSED(dilation[1], -3);
  REFUSED(pad[1], -1);
  REFUSED(pad[1], INT64_MAX);
#undef REFUSED
}

static void add_up(void *context, int thread, int64_t begin, int64_t end) {
  int64_t(*sums)[8] = context;
  for (int64_t i = begin; i < end; i++) sums[thread][0] += i;
}

static void check_threads(void) {
  for (int threads = 1; threads < 5; threads++)
    for (int64_t items = 0; items < 200; items += 33) {
      int64_t sums[4][8] = {{0}}, sum = 0;
      bnn_parallel(threads, items, 1 + items % 4, add_up, sums);
      for (int i = 0; i < threads; i++) sum += sums[i][0];
      CHECK(sum == items * (items - 1) / 2, "threads %d items %ld", threads, (long)items);
    }
  /* A child of a process that has started threads has none of them. */
  pid_t child = fork();
  if (!child) {
    int64_t sums[4][8] = {{0}};
    alarm(10);
    bnn_parallel(bnn_get_threads(), 100, 1, add_up, sums);
    _exit(sums[0][0] == 4950 ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  CHECK(status == 0, "a forked child hangs or is wrong");
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 150;
  level = "common";
  check_geometry_errors();
  check_threads();
  for (int round = 0; round < rounds; round++) {
    problem p = draw_problem();
    check_columns(&p);
  }
  for (const bnn_kernels *const *kernels = bnn_supported(); *kernels; kernels++) {
    level = (*kernels)->level;
    check_loops(*kernels);
    check_pack(*kernels);
    check_all_set(*kernels);
    check_split(*kernels);
    check_products(*kernels, rounds);
    printf("%s: ok\n", level);
  }
  printf("%ld comparisons\n", comparisons);
  return 0;
}
