/* Batch norm, pooling, the rectifier and updates of every level against loops written to be read. Floats are small
 * integers, so sums are exact and only quotients are rounded. Every array is a malloc of exactly its size. */
#include "bnn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED 11
#include "draw.h"

static const bnn_kernels *kernels;

static float *draw_floats(int64_t count) {
  float *x = array(count, sizeof *x);
  for (int64_t i = 0; i < count; i++) x[i] = (float)(draw() % 17) - 8;
  return x;
}

static float *copy(const float *x, int64_t count) { return memcpy(array(count, sizeof *x), x, (size_t)count * 4); }

static void expect(const char *name, int64_t at, float got, double want) {
  if (fabs(got - want) <= 1e-6 * (fabs(want) + 1)) return;
  fprintf(stderr, "%s %s: %g at %ld, expected %g\n", kernels->level, name, got, (long)at, want);
  exit(1);
}

/* In one range or in three, as threads would. */
static void run(bnn_pass pass, const void *what, int64_t items, int ranges) {
  for (int64_t i = 0; i < ranges; i++) pass(what, items * i / ranges, items * (i + 1) / ranges);
}

/* ---- batch norm ------------------------------------------------------------------------------------------------ */

/* A gradient that is added to another, of channels that are whole words, in two pieces. */
static void check_norm_pieces(bnn_norm n, int64_t blocks, int ranges) {
  int64_t rest = n.channels - BNN_WORD, row = n.channels;
  float *dx = array(n.rows * row, sizeof *dx), *other = dx + n.rows * BNN_WORD;
  for (int64_t i = 0; i < n.rows * row; i++) dx[i] = 1;
  const float *x = n.piece->x;
  bnn_norm_piece piece[] = {{BNN_WORD, row, x, dx, 0}, {rest, row, x + BNN_WORD, other, 0}};
  n.pieces = 2, n.piece = piece, n.add = 1;
  run(kernels->normalize_grad, &n, blocks, ranges);
  for (int64_t i = 0, c; i < n.rows * row; i++) {
    c = i % row;
    float found = c < BNN_WORD ? dx[i / row * BNN_WORD + c] : other[i / row * rest + c - BNN_WORD];
    expect("gradient of a piece", i, found, 1 + (n.dy[i] - n.shift[c] - (x[i] - n.mean[c]) * n.slope[c]) * n.scale[c]);
  }
  free(dx);
}

/* What signs, and gradients under a mask, are expected to be; channels are whole words. */
static void check_norm_bits(bnn_norm n, int64_t blocks, int ranges) {
  const float *x = n.piece->x, *dx = n.piece->dx;
  int64_t size = n.rows * n.channels, words = size / BNN_WORD;
  uint32_t *sign = array(words, sizeof *sign), *within = array(words, sizeof *within);
  uint8_t *nan = array(blocks, sizeof *nan);
  n.words = sign, n.within = within, n.nan = nan, n.clip = 2;
  run(kernels->normalize_sign, &n, blocks, ranges);
  for (int64_t i = 0, c; i < size; i++) {
    c = i % n.channels;
    float y = (x[i] - n.mean[c]) * n.scale[c] + n.shift[c];
    expect("sign", i, sign[i / BNN_WORD] >> i % BNN_WORD & 1, y < 0);
    expect("within", i, within[i / BNN_WORD] >> i % BNN_WORD & 1, y <= 2 && y >= -2);
  }
  for (int64_t i = 0; i < blocks; i++) expect("nan", i, nan[i], 0);
  n.mask = within;
  run(kernels->normalize_grad, &n, blocks, ranges);
  for (int64_t i = 0, c; i < size; i++) {
    c = i % n.channels;
    float dy = within[i / BNN_WORD] >> i % BNN_WORD & 1 ? n.dy[i] : 0;
    expect("masked gradient", i, dx[i], (dy - n.shift[c] - (x[i] - n.mean[c]) * n.slope[c]) * n.scale[c]);
  }
  n.rectified = 1, n.addend = n.dy;
  run(kernels->normalize_sign, &n, blocks, ranges);
  for (int64_t i = 0, c; i < size; i++) {
    c = i % n.channels;
    float y = ((x[i] > 0 ? x[i] : 0) - n.mean[c]) * n.scale[c] + n.shift[c] + n.dy[i];
    expect("sum", i, n.out[i], y);
    expect("sign of a sum", i, sign[i / BNN_WORD] >> i % BNN_WORD & 1, y < 0);
  }
  free(sign), free(within), free(nan);
}

/* The sums and maps of a rectified x are those of what the rectifier writes. */
static void check_norm_rectified(bnn_norm n, int64_t blocks, int ranges) {
  int64_t size = n.rows * n.channels;
  const float *x = n.piece->x;
  float *y = array(size, sizeof *y), *out = n.piece->dx, *expected = array(size, sizeof *expected);
  float *total = array(4 * n.channels, sizeof *total), *other = array(4 * n.channels, sizeof *other);
  for (int64_t i = 0; i < size; i++) y[i] = x[i] > 0 ? x[i] : 0;
  n.epsilon = 1; /* all of a channel may be 0 */
  bnn_norm plain = n;
  bnn_norm_piece positive = {n.channels, n.channels, y, expected, 0};
  n.rectified = 1, plain.piece = &positive;
  const bnn_pass pass[] = {kernels->norm_moments, kernels->norm_sums, kernels->normalize, kernels->normalize_grad};
  const bnn_pass totals[] = {kernels->norm_moments_total, kernels->norm_sums_total, NULL, NULL};
  for (int i = 0; i < 4; i++) {
    n.out = totals[i] ? total : out, plain.out = totals[i] ? other : expected;
    run(pass[i], &n, blocks, ranges);
    if (totals[i]) run(totals[i], &n, n.channels, ranges);
    run(pass[i], &plain, blocks, ranges);
    if (totals[i]) run(totals[i], &plain, n.channels, ranges);
    int64_t count = totals[i] ? (i + 3) * n.channels : size;
    for (int64_t k = 0; k < count; k++) expect("rectified", k, n.out[k], i < 3 || y[k] > 0 ? plain.out[k] : 0);
  }
  free(y), free(expected), free(total), free(other);
}

/* Of integers of 16 bits every pass gives the bits that it gives of the same numbers as floats. */
static void check_norm_integers(bnn_norm n, int64_t blocks, int ranges) {
  int64_t size = n.rows * n.channels, words = size / BNN_WORD;
  const float *floats = n.piece->x;
  int16_t *integers = array(size, sizeof *integers);
  for (int64_t i = 0; i < size; i++) integers[i] = (int16_t)floats[i];
  bnn_norm of[] = {n, n};
  bnn_norm_piece piece[] = {{n.channels, n.channels, floats, array(size, 4), 0},
                            {n.channels, n.channels, integers, array(size, 4), 1}};
  float *parts[2], *total[2];
  uint32_t *sign[2];
  uint8_t *nan = array(blocks, sizeof *nan);
  for (int i = 0; i < 2; i++) {
    parts[i] = array(2 * blocks * n.channels, 4), total[i] = array(size + 4 * n.channels, 4), sign[i] = array(words, 4);
    of[i].piece = &piece[i], of[i].parts = parts[i], of[i].out = total[i], of[i].words = sign[i], of[i].nan = nan;
  }
  const bnn_pass pass[] = {kernels->norm_moments, kernels->norm_sums, kernels->normalize, kernels->normalize_grad,
                           n.channels % BNN_WORD ? NULL : kernels->normalize_sign};
  for (int rectified = 0; rectified < 2; rectified++)
    for (int k = 0; k < 5; k++) {
      if (!pass[k]) continue;
      for (int i = 0; i < 2; i++) of[i].rectified = rectified, run(pass[k], &of[i], blocks, ranges);
      const void *written[2][5] = {{parts[0], parts[0], total[0], piece[0].dx, sign[0]},
                                   {parts[1], parts[1], total[1], piece[1].dx, sign[1]}};
      int64_t count = k < 2 ? 2 * blocks * n.channels : k < 4 ? size : words;
      int same = !memcmp(written[0][k], written[1][k], (size_t)count * 4);
      expect("integers of 16 bits", k, (float)same, 1);
    }
  for (int i = 0; i < 2; i++) free(parts[i]), free(total[i]), free(sign[i]), free(piece[i].dx);
  free(integers), free(nan);
}

static void check_norm(int64_t rows, int64_t channels, int ranges) {
  int64_t size = rows * channels, blocks = kernels->norm_blocks(rows, channels);
  float *x = draw_floats(size), *dy = draw_floats(size), *mean = draw_floats(channels), *scale = draw_floats(channels);
  float *inverse = draw_floats(channels), *shift = draw_floats(channels), *slope = draw_floats(channels),
        *out = array(size, sizeof *out);
  float *parts = array(2 * blocks * channels, sizeof *parts), *total = array(4 * channels, sizeof *total);
  bnn_norm_piece whole = {channels, channels, x, out, 0};
  bnn_norm n = {.rows = rows,
                .channels = channels,
                .pieces = 1,
                .piece = &whole,
                .dy = dy,
                .mean = mean,
                .parts = parts,
                .out = total};

  run(kernels->norm_moments, &n, blocks, ranges);
  run(kernels->norm_moments_total, &n, channels, ranges);
  for (int64_t c = 0; c < channels; c++) {
    double sum = 0, squares = 0;
    for (int64_t i = c; i < size; i += channels) sum += x[i], squares += x[i] * x[i];
    expect("mean", c, total[c], sum / (double)rows);
    expect("variance", c, total[channels + c], squares / (double)rows - sum / (double)rows * (sum / (double)rows));
  }
  n.inverse = inverse;
  run(kernels->norm_sums, &n, blocks, ranges);
  run(kernels->norm_sums_total, &n, channels, ranges);
  for (int64_t c = 0; c < channels; c++) {
    double sum = 0, products = 0;
    for (int64_t i = c; i < size; i += channels) sum += dy[i], products += dy[i] * (x[i] - mean[c]);
    expect("sum", c, total[c], sum);
    expect("sum of products", c, total[channels + c], products * inverse[c]);
  }

  n.scale = scale, n.shift = shift, n.slope = slope, n.out = out;
  run(kernels->normalize, &n, blocks, ranges);
  for (int64_t i = 0, c; i < size; i++)
    c = i % channels, expect("normalize", i, out[i], (x[i] - mean[c]) * scale[c] + shift[c]);
  run(kernels->normalize_grad, &n, blocks, ranges);
  for (int64_t i = 0, c; i < size; i++)
    c = i % channels, expect("gradient", i, out[i], (dy[i] - shift[c] - (x[i] - mean[c]) * slope[c]) * scale[c]);
  if (channels % BNN_WORD == 0) check_norm_bits(n, blocks, ranges);
  if (channels % BNN_WORD == 0 && channels > BNN_WORD) check_norm_pieces(n, blocks, ranges);
  check_norm_rectified(n, blocks, ranges);
  check_norm_integers(n, blocks, ranges);
  n.shift = NULL;
  run(kernels->normalize, &n, blocks, ranges);
  for (int64_t i = 0, c; i < size; i++)
    c = i % channels, expect("normalize without shift", i, out[i], (x[i] - mean[c]) * scale[c]);
  free(x), free(dy), free(mean), free(scale), free(inverse), free(shift), free(slope), free(out), free(parts),
      free(total);
}

/* ---- pooling --------------------------------------------------------------------------------------------------- */

static int64_t volume(const int64_t size[3]) { return size[0] * size[1] * size[2]; }

/* The input pixel that a tap of an output pixel reads, or -1. */
static int64_t source_pixel(const bnn_geometry *g, int64_t target, int64_t tap) {
  int64_t source = 0;
  int64_t t[3] = {target / g->out[2] / g->out[1], target / g->out[2] % g->out[1], target % g->out[2]};
  int64_t k[3] = {tap / g->kernel[2] / g->kernel[1], tap / g->kernel[2] % g->kernel[1], tap % g->kernel[2]};
  for (int axis = 0; axis < 3; axis++) {
    int64_t at = t[axis] * g->stride[axis] + k[axis] - g->pad[axis];
    if (at < 0 || at >= g->in[axis]) return -1;
    source = source * g->in[axis] + at;
  }
  return source;
}

static void check_pool(const bnn_geometry *g, int ranges) {
  int64_t sources = volume(g->in), pixels = volume(g->out), taps = volume(g->kernel), channels = g->channels;
  int64_t inputs = g->batch * sources * channels, outputs = g->batch * pixels * channels;
  int64_t forward = g->batch * g->out[0] * g->out[1], backward = g->batch * g->in[0] * g->in[1];
  int planes = 0;
  while ((int64_t)1 << planes < taps) planes++;
  float *x = draw_floats(inputs), *dy = draw_floats(outputs), *y = array(outputs, 4), *dx = array(inputs, 4);
  double *largest_dx = calloc((size_t)inputs + 1, sizeof(double)),
         *mean_dx = calloc((size_t)inputs + 1, sizeof(double));
  double *mean = calloc((size_t)outputs + 1, sizeof(double)), *largest = calloc((size_t)outputs + 1, sizeof(double));
  uint32_t *winner = array(planes * g->batch * pixels * bnn_words(channels), 4);
  for (int64_t i = 0; i < outputs; i++) {
    int64_t image = i / channels / pixels, pixel = i / channels % pixels, channel = i % channels, best = -1, count = 0;
    for (int pass = 0; pass < 2; pass++)
      for (int64_t tap = 0; tap < taps; tap++) {
        int64_t source = source_pixel(g, pixel, tap), from = (image * sources + source) * channels + channel;
        if (source < 0) continue;
        if (pass) {
          mean_dx[from] += dy[i] / (double)count;
          continue;
        }
        count++;
        mean[i] += x[from];
        if (best < 0 || x[from] > x[best]) best = from;
      }
    mean[i] /= (double)count;
    largest[i] = x[best];
    largest_dx[best] += dy[i];
  }

  bnn_pool pool = {g, x, y, winner, planes};
  run(kernels->max_pool, &pool, forward, ranges);
  for (int64_t i = 0; i < outputs; i++) expect("max_pool", i, y[i], largest[i]);
  pool.winner = NULL;
  run(kernels->max_pool, &pool, forward, ranges);
  for (int64_t i = 0; i < outputs; i++) expect("max_pool without winners", i, y[i], largest[i]);
  run(kernels->average_pool, &pool, forward, ranges);
  for (int64_t i = 0; i < outputs; i++) expect("average_pool", i, y[i], mean[i]);
  pool.from = dy, pool.to = dx;
  run(kernels->average_pool_grad, &pool, backward, ranges);
  for (int64_t i = 0; i < inputs; i++) expect("average_pool_grad", i, dx[i], mean_dx[i]);
  pool.winner = winner;
  for (int64_t i = 0; i < inputs; i++) dx[i] = 7; /* also where there is no window, something must be written */
  run(kernels->max_pool_grad, &pool, backward, ranges);
  for (int64_t i = 0; i < inputs; i++) expect("max_pool_grad", i, dx[i], largest_dx[i]);
  free(x), free(dy), free(y), free(dx), free(winner);
  free(largest_dx), free(mean_dx), free(mean), free(largest);
}

/* Whose windows all reach the input. */
static bnn_geometry draw_geometry(int64_t channels) {
  bnn_geometry g = {.batch = 1 + draw() % 3, .groups = 1, .channels = channels, .filters = channels};
  for (int axis = 0; axis < 3; axis++) {
    int plain = axis == 0 ? draw() % 4 != 0 : draw() % 5 == 0;
    g.in[axis] = plain ? 1 : 1 + draw() % 9;
    g.kernel[axis] = plain ? 1 : 1 + draw() % 4;
    g.stride[axis] = plain ? 1 : 1 + draw() % 3;
    g.dilation[axis] = 1;
    g.pad[axis] = draw() % g.kernel[axis];
    g.out[axis] = (g.in[axis] + g.pad[axis] - 1) / g.stride[axis] + 1;
    if (g.out[axis] > 1) g.out[axis] -= draw() % 2; /* the last pixels may be in no window */
  }
  return g;
}

/* ---- rectifier and updates ------------------------------------------------------------------------------------- */

static void check_rectify(int64_t count, int ranges) {
  float *x = draw_floats(count), *y = array(count, sizeof *y);
  uint32_t *mask = array(bnn_words(count), 4);
  bnn_rectify r = {count, x, 6, 5, y, mask};
  run(kernels->rectify, &r, bnn_words(count), ranges);
  for (int64_t i = 0; i < bnn_words(count) * BNN_WORD; i++) {
    int active = i < count && x[i] > 0 && x[i] <= 5;
    if (i < count) expect("rectify", i, y[i], x[i] < 0 ? 0 : x[i] > 6 ? 6 : x[i]);
    expect("mask", i, (float)(mask[i / BNN_WORD] >> i % BNN_WORD & 1), active);
  }
  free(x), free(y), free(mask);
}

static void check_update(bnn_rule rule, int64_t count, int ranges) {
  float *value = draw_floats(count), *grad = draw_floats(count), *before = copy(value, count), *old[3];
  bnn_update u = {.rule = rule, .value = value, .grad = grad, .coefficient = {0.5f, 0.25f, 0.125f, 1}};
  u.limit = count % 2 ? INFINITY : 3;
  for (int i = 0; i < 3; i++) {
    u.state[i] = draw_floats(count);
    for (int64_t k = 0; k < count; k++) u.state[i][k] = fabsf(u.state[i][k]);
    old[i] = copy(u.state[i], count);
  }
  run(kernels->update, &u, count, ranges);
  for (int64_t i = 0; i < count; i++) {
    double g = grad[i], v = before[i], a = old[0][i], b = old[1][i], c = old[2][i], want = v - 0.5 * g;
    if (rule == BNN_MOMENTUM || rule == BNN_NESTEROV) {
      a = 0.25 * a - 0.5 * g;
      want = v + (rule == BNN_NESTEROV ? 0.25 * a - 0.5 * g : a);
    } else if (rule == BNN_ADAM || rule == BNN_AMSGRAD) {
      a += (g - a) * 0.25;
      b += (g * g - b) * 0.125;
      if (rule == BNN_AMSGRAD && b > c) c = b;
      want = v - 0.5 * a / (sqrt(rule == BNN_AMSGRAD ? c : b) + 1);
    } else if (rule == BNN_BOP) {
      a += 0.5 * (g - a);
      double turned = v * a > 0.25 ? -v : v * a < 0.25 ? v : 0;
      want = turned < 0 ? -1 : 1;
    }
    expect("value", i, value[i], fmin(fmax(want, -u.limit), u.limit));
    expect("state", i, u.state[0][i], a);
    expect("second state", i, u.state[1][i], b);
    expect("third state", i, u.state[2][i], c);
  }
  for (int i = 0; i < 3; i++) free(u.state[i]), free(old[i]);
  free(value), free(grad), free(before);
}

int main(int argc, char **argv) {
  static const int64_t widths[] = {1, 2, 3, 5, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 129};
  int rounds = argc > 1 ? atoi(argv[1]) : 200;
  for (int round = 0; round < rounds; round++) {
    int64_t channels = widths[draw() % 16], rows = 1 + draw() % (round % 8 ? 40 : 3000);
    bnn_geometry g = draw_geometry(channels);
    for (const bnn_kernels *const *levels = bnn_supported(); *levels; levels++)
      for (int ranges = 1; ranges < 4; ranges += 2) {
        kernels = *levels;
        check_norm(rows, channels, ranges);
        check_pool(&g, ranges);
        check_rectify(draw() % 300, ranges);
        for (int rule = 0; rule < BNN_RULES; rule++) check_update((bnn_rule)rule, draw() % 100, ranges);
      }
  }
  /* More taps than go through the registers together, and more pixels than are met at once. */
  bnn_geometry wide = {1, 1, 33, 33, {1, 9, 300}, {1, 3, 290}, {1, 7, 11}, {1, 2, 1}, {1, 1, 1}, {0, 2, 0}};
  for (const bnn_kernels *const *levels = bnn_supported(); *levels; levels++) {
    kernels = *levels;
    check_pool(&wide, 1);
  }
  puts("network kernels: ok");
  return 0;
}
