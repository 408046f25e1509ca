/* What surrounds a product in a training step, bound by memory: batch norm, pooling, the rectifier. */

/* ---- batch norm ------------------------------------------------------------------------------------------------ */

/* Rows of few channels are taken together as one wide row, so that lanes are neighbours in memory whatever the number
 * of channels. A block of wide rows is as many as stay in a near cache, since the squares are taken from a mean.
 *
 * Order of a sum: within a block four wide rows are added to each other, then to what came before; the rest of the rows
 * one by one; the rows of a wide row at last. Blocks are added up in their order, in double precision. Both follow from
 * the shape alone, so neither threads nor the level change a bit. The depth of a sum in single precision is at most 37
 * and the rows of a wide row. */
#define NORM_LEAST 64   /* floats of a wide row */
#define NORM_MOST 1024  /* floats of one that holds several rows */
#define NORM_CACHE 8192 /* floats */
#define NORM_BLOCK 32   /* wide rows at least */
#define NORM_TOTALS 64  /* channels whose blocks are added up together */

static int64_t norm_group(int64_t channels) {
  int64_t rows = 1;
  if (channels >= NORM_LEAST) return 1;
  while (rows * channels < NORM_LEAST || rows * channels % 16) rows *= 2;
  return rows;
}

/* Rows of a block. */
static int64_t norm_rows(int64_t channels) {
  int64_t group = norm_group(channels), wide = NORM_CACHE / (group * channels);
  return group * (wide > NORM_BLOCK ? wide : NORM_BLOCK);
}

static int64_t norm_blocks(int64_t rows, int64_t channels) { return (rows - 1) / norm_rows(channels) + 1; }

/* What the block is of: `count` floats, in wide rows of `width`. */
typedef struct {
  int64_t first, rows, channels, group, width, count;
} norm_block;

static norm_block norm_block_of(const bnn_norm *n, int64_t i) {
  int64_t most = norm_rows(n->channels), first = i * most, group = norm_group(n->channels);
  int64_t rows = n->rows - first < most ? n->rows - first : most;
  return (norm_block){first * n->channels, rows, n->channels, group, group * n->channels, rows * n->channels};
}

/* A value per channel for each float of a wide row. */
static const float *norm_widen(const norm_block *b, const float *x, float *wide) {
  if (b->group == 1 || !x) return x;
  for (int64_t i = 0; i < b->width; i++) wide[i] = x[i % b->channels];
  return wide;
}

/* The sum over the rows of a wide row. */
static void norm_fold(const norm_block *b, const float *wide, float *sum) {
  for (int64_t c = 0; c < b->channels; c++) {
    float all = wide[c];
    for (int64_t row = 1; row < b->group; row++) all += wide[row * b->channels + c];
    sum[c] = all;
  }
}

static void norm_add(const float *restrict x, int64_t count, int64_t width, float *restrict sum) {
  for (int64_t j = 0; j < width; j++) sum[j] = 0;
  for (; count >= 4 * width; count -= 4 * width, x += 4 * width) {
    const float *restrict y = x + width, *restrict z = y + width, *restrict w = z + width;
    for (int64_t j = 0; j < width; j++) sum[j] += (x[j] + y[j]) + (z[j] + w[j]);
  }
  for (; count > 0; count -= width, x += width) {
    int64_t here = count < width ? count : width;
    for (int64_t j = 0; j < here; j++) sum[j] += x[j];
  }
}

BNN_INLINE float norm_square(float x, float mean) { return (x - mean) * (x - mean); }

static void norm_add_squares(const float *restrict x, int64_t count, int64_t width, const float *restrict mean,
                             float *restrict sum) {
  for (int64_t j = 0; j < width; j++) sum[j] = 0;
  for (; count >= 4 * width; count -= 4 * width, x += 4 * width) {
    const float *restrict y = x + width, *restrict z = y + width, *restrict w = z + width;
    for (int64_t j = 0; j < width; j++) {
      float m = mean[j];
      sum[j] += (norm_square(x[j], m) + norm_square(y[j], m)) + (norm_square(z[j], m) + norm_square(w[j], m));
    }
  }
  for (; count > 0; count -= width, x += width) {
    int64_t here = count < width ? count : width;
    for (int64_t j = 0; j < here; j++) sum[j] += norm_square(x[j], mean[j]);
  }
}

static void norm_moments(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  for (int64_t i = begin; i < end; i++) {
    norm_block b = norm_block_of(n, i);
    float several[2][NORM_MOST], *mean = n->parts + 2 * i * b.channels, *squares = mean + b.channels;
    float *wide = b.group > 1 ? several[0] : mean;
    norm_add(n->x + b.first, b.count, b.width, wide);
    norm_fold(&b, wide, mean);
    for (int64_t c = 0; c < b.channels; c++) mean[c] /= (float)b.rows;
    float *sums = b.group > 1 ? several[1] : squares;
    norm_add_squares(n->x + b.first, b.count, b.width, norm_widen(&b, mean, wide), sums);
    norm_fold(&b, sums, squares);
  }
}

static void norm_moments_total(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  int64_t blocks = norm_blocks(n->rows, n->channels), most = norm_rows(n->channels);
  for (int64_t c = begin; c < end; c += NORM_TOTALS) {
    double mean[NORM_TOTALS] = {0}, squares[NORM_TOTALS] = {0};
    int64_t here = end - c < NORM_TOTALS ? end - c : NORM_TOTALS;
    for (int64_t i = 0; i < blocks; i++) {
      const float *part = n->parts + 2 * i * n->channels + c;
      double rows = (double)(i + 1 < blocks ? most : n->rows - i * most);
      for (int64_t j = 0; j < here; j++) mean[j] += rows * part[j];
    }
    for (int64_t j = 0; j < here; j++) mean[j] /= (double)n->rows;
    for (int64_t i = 0; i < blocks; i++) {
      const float *part = n->parts + 2 * i * n->channels + c;
      double rows = (double)(i + 1 < blocks ? most : n->rows - i * most);
      for (int64_t j = 0; j < here; j++)
        squares[j] += part[n->channels + j] + rows * ((part[j] - mean[j]) * (part[j] - mean[j]));
    }
    for (int64_t j = 0; j < here; j++) {
      n->out[c + j] = (float)mean[j];
      n->out[n->channels + c + j] = (float)(squares[j] / (double)n->rows);
    }
  }
}

static void norm_add_products(const float *restrict x, const float *restrict dy, int64_t count, int64_t width,
                              const float *restrict mean, float *restrict sum, float *restrict products) {
  for (int64_t j = 0; j < width; j++) sum[j] = products[j] = 0;
  for (; count >= 4 * width; count -= 4 * width, x += 4 * width, dy += 4 * width) {
    const float *restrict x2 = x + width, *restrict x3 = x2 + width, *restrict x4 = x3 + width;
    const float *restrict dy2 = dy + width, *restrict dy3 = dy2 + width, *restrict dy4 = dy3 + width;
    for (int64_t j = 0; j < width; j++) {
      float m = mean[j];
      sum[j] += (dy[j] + dy2[j]) + (dy3[j] + dy4[j]);
      products[j] += (dy[j] * (x[j] - m) + dy2[j] * (x2[j] - m)) + (dy3[j] * (x3[j] - m) + dy4[j] * (x4[j] - m));
    }
  }
  for (; count > 0; count -= width, x += width, dy += width) {
    int64_t here = count < width ? count : width;
    for (int64_t j = 0; j < here; j++) {
      sum[j] += dy[j];
      products[j] += dy[j] * (x[j] - mean[j]);
    }
  }
}

static void norm_sums(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  for (int64_t i = begin; i < end; i++) {
    norm_block b = norm_block_of(n, i);
    float several[3][NORM_MOST], *sum = n->parts + 2 * i * b.channels, *products = sum + b.channels;
    float *sums = b.group > 1 ? several[0] : sum, *all = b.group > 1 ? several[1] : products;
    norm_add_products(n->x + b.first, n->dy + b.first, b.count, b.width, norm_widen(&b, n->mean, several[2]), sums,
                      all);
    norm_fold(&b, sums, sum);
    norm_fold(&b, all, products);
  }
}

static void norm_sums_total(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  int64_t blocks = norm_blocks(n->rows, n->channels);
  for (int64_t c = begin; c < end; c += NORM_TOTALS) {
    double sum[2][NORM_TOTALS] = {{0}};
    int64_t here = end - c < NORM_TOTALS ? end - c : NORM_TOTALS;
    for (int64_t i = 0; i < 2 * blocks; i++)
      for (int64_t j = 0; j < here; j++) sum[i % 2][j] += n->parts[i * n->channels + c + j];
    for (int i = 0; i < 2; i++)
      for (int64_t j = 0; j < here; j++) n->out[i * n->channels + c + j] = (float)sum[i][j];
  }
}

static void normalize(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  norm_block b = norm_block_of(n, begin);
  float several[3][NORM_MOST];
  const float *restrict mean = norm_widen(&b, n->mean, several[0]);
  const float *restrict scale = norm_widen(&b, n->scale, several[1]);
  const float *restrict shift = norm_widen(&b, n->shift, several[2]);
  const float *restrict x = n->x + b.first;
  float *restrict out = n->out + b.first;
  int64_t rows = end * norm_rows(n->channels) < n->rows ? end * norm_rows(n->channels) : n->rows;
  for (int64_t count = rows * b.channels - b.first; count > 0; count -= b.width, x += b.width, out += b.width) {
    int64_t here = count < b.width ? count : b.width;
    if (shift)
      for (int64_t j = 0; j < here; j++) out[j] = (x[j] - mean[j]) * scale[j] + shift[j];
    else
      for (int64_t j = 0; j < here; j++) out[j] = (x[j] - mean[j]) * scale[j];
  }
}

static void normalize_grad(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  norm_block b = norm_block_of(n, begin);
  float several[4][NORM_MOST];
  const float *restrict mean = norm_widen(&b, n->mean, several[0]);
  const float *restrict scale = norm_widen(&b, n->scale, several[1]);
  const float *restrict shift = norm_widen(&b, n->shift, several[2]);
  const float *restrict slope = norm_widen(&b, n->slope, several[3]);
  const float *restrict x = n->x + b.first, *restrict dy = n->dy + b.first;
  float *restrict out = n->out + b.first;
  int64_t rows = end * norm_rows(n->channels) < n->rows ? end * norm_rows(n->channels) : n->rows;
  for (int64_t count = rows * b.channels - b.first; count > 0; count -= b.width) {
    int64_t here = count < b.width ? count : b.width;
    for (int64_t j = 0; j < here; j++) out[j] = ((dy[j] - shift[j]) - (x[j] - mean[j]) * slope[j]) * scale[j];
    x += b.width, dy += b.width, out += b.width;
  }
}

/* ---- pooling --------------------------------------------------------------------------------------------------- */

/* What a pixel of `to` meets along one axis: the taps tap, tap + step .., `count` of them, at the pixels at, at + move
 * .. of `from`. */
typedef struct {
  int64_t count, tap, step, at, move;
} pool_reach;

static pool_reach pool_forward(const bnn_geometry *g, int axis, int64_t pixel) {
  int64_t at = pixel * g->stride[axis] - g->pad[axis], tap = at < 0 ? -at : 0, left = g->in[axis] - at;
  return (pool_reach){(g->kernel[axis] < left ? g->kernel[axis] : left) - tap, tap, 1, at + tap, 1};
}

static pool_reach pool_backward(const bnn_geometry *g, int axis, int64_t pixel) {
  int64_t stride = g->stride[axis], from = pixel + g->pad[axis], at = from / stride, tap = from % stride;
  int64_t skip = at < g->out[axis] ? 0 : at - g->out[axis] + 1;
  int64_t taps = tap < g->kernel[axis] ? (g->kernel[axis] - 1 - tap) / stride + 1 : 0;
  return (pool_reach){(taps < at + 1 ? taps : at + 1) - skip, tap + skip * stride, stride, at - skip, -1};
}

typedef enum { POOL_MAX, POOL_MAX_GRAD, POOL_AVERAGE, POOL_AVERAGE_GRAD } pool_kind;

/* One tap of a window: where it is strictly larger it takes over, and a NaN stays. */
BNN_INLINE void pool_larger(int first, const float *x, int64_t channels, int64_t tap, float *y, uint32_t *winner,
                            int planes, int64_t stride) {
  for (int64_t c = 0; c < channels; c += BNN_WORD) {
    uint32_t better = first ? ~0u : 0;
    int64_t here = channels - c < BNN_WORD ? channels - c : BNN_WORD;
    for (int64_t lane = 0; lane < here; lane += BNN_LANES) {
      const float *from = x + c + lane;
      float *to = y + c + lane;
      int64_t part = here - lane;
      vf32 value = part >= BNN_LANES ? v_load_f32(from) : v_load_part_f32(from, part);
      if (!first) {
        vf32 best = part >= BNN_LANES ? v_load_f32(to) : v_load_part_f32(to, part);
        vmask larger = v_less_f32(best, value);
        better |= v_mask_bits(larger) << lane;
        value = v_choose_f32(v_mask_or(larger, v_nan_f32(value)), value, best);
      }
      if (part >= BNN_LANES)
        v_store_f32(to, value);
      else
        v_store_part_f32(to, value, part);
    }
    if (!winner) continue;
    for (int p = 0; p < planes; p++) {
      uint32_t *word = winner + p * stride + c / BNN_WORD, kept = first ? 0 : *word & ~better;
      *word = tap >> p & 1 ? kept | better : kept;
    }
  }
}

/* The gradient of the windows that `tap` won. */
BNN_INLINE void pool_return(int first, const float *dy, int64_t channels, int64_t tap, float *dx,
                            const uint32_t *winner, int planes, int64_t stride) {
  for (int64_t c = 0; c < channels; c += BNN_WORD) {
    uint32_t won = ~0u;
    int64_t here = channels - c < BNN_WORD ? channels - c : BNN_WORD;
    for (int p = 0; p < planes; p++) won &= winner[p * stride + c / BNN_WORD] ^ (tap >> p & 1 ? 0 : ~0u);
    for (int64_t lane = 0; lane < here; lane += BNN_LANES) {
      const float *from = dy + c + lane;
      float *to = dx + c + lane;
      int64_t part = here - lane;
      vf32 value = part >= BNN_LANES ? v_load_f32(from) : v_load_part_f32(from, part);
      value = v_choose_f32(v_mask_of(won >> lane), value, v_set_f32(0));
      if (!first) value = v_add_f32(part >= BNN_LANES ? v_load_f32(to) : v_load_part_f32(to, part), value);
      if (part >= BNN_LANES)
        v_store_f32(to, value);
      else
        v_store_part_f32(to, value, part);
    }
  }
}

BNN_INLINE void pool_add(int first, const float *restrict x, int64_t channels, float divisor, float *restrict y) {
  if (first)
    for (int64_t c = 0; c < channels; c++) y[c] = x[c] / divisor;
  else
    for (int64_t c = 0; c < channels; c++) y[c] += x[c] / divisor;
}

/* Taps meet a pixel in row-major order, which decides ties and is the order of sums. */
BNN_INLINE void pool_rows(pool_kind kind, const bnn_pool *p, int64_t begin, int64_t end) {
  const bnn_geometry *g = p->geometry;
  const int back = kind == POOL_MAX_GRAD || kind == POOL_AVERAGE_GRAD;
  const int64_t *from = back ? g->out : g->in, *to = back ? g->in : g->out;
  pool_reach (*reach)(const bnn_geometry *, int, int64_t) = back ? pool_backward : pool_forward;
  int64_t channels = g->channels, words = bnn_words(channels);
  int64_t stride = g->batch * g->out[0] * g->out[1] * g->out[2] * words;
  for (int64_t row = begin; row < end; row++) {
    int64_t image = row / (to[0] * to[1]);
    pool_reach a = reach(g, 0, row / to[1] % to[0]), b = reach(g, 1, row % to[1]);
    for (int64_t pixel = 0; pixel < to[2]; pixel++) {
      pool_reach c = reach(g, 2, pixel);
      float *target = p->to + (row * to[2] + pixel) * channels;
      int first = 1;
      for (int64_t i = 0; i < a.count; i++)
        for (int64_t j = 0; j < b.count; j++)
          for (int64_t k = 0; k < c.count; k++, first = 0) {
            int64_t z = a.at + i * a.move, y = b.at + j * b.move, x = c.at + k * c.move;
            int64_t source = ((image * from[0] + z) * from[1] + y) * from[2] + x;
            int64_t tap =
                ((a.tap + i * a.step) * g->kernel[1] + b.tap + j * b.step) * g->kernel[2] + c.tap + k * c.step;
            const float *values = p->from + source * channels;
            if (kind == POOL_MAX) {
              uint32_t *winner = p->winner ? p->winner + (row * to[2] + pixel) * words : NULL;
              pool_larger(first, values, channels, tap, target, winner, p->planes, stride);
            } else if (kind == POOL_MAX_GRAD) {
              pool_return(first, values, channels, tap, target, p->winner + source * words, p->planes, stride);
            } else if (kind == POOL_AVERAGE) {
              pool_add(first, values, channels, 1, target);
            } else {
              int64_t seen = pool_forward(g, 0, z).count * pool_forward(g, 1, y).count * pool_forward(g, 2, x).count;
              pool_add(first, values, channels, (float)seen, target);
            }
          }
      if (first)
        for (int64_t i = 0; i < channels; i++) target[i] = 0;
      if (kind == POOL_AVERAGE)
        for (int64_t i = 0; i < channels; i++) target[i] /= (float)(a.count * b.count * c.count);
    }
  }
}

static void max_pool(const void *what, int64_t begin, int64_t end) { pool_rows(POOL_MAX, what, begin, end); }
static void max_pool_grad(const void *what, int64_t begin, int64_t end) { pool_rows(POOL_MAX_GRAD, what, begin, end); }
static void average_pool(const void *what, int64_t begin, int64_t end) { pool_rows(POOL_AVERAGE, what, begin, end); }
static void average_pool_grad(const void *what, int64_t begin, int64_t end) {
  pool_rows(POOL_AVERAGE_GRAD, what, begin, end);
}

/* ---- rectifier ------------------------------------------------------------------------------------------------- */

static void rectify(const void *what, int64_t begin, int64_t end) {
  const bnn_rectify *r = what;
  vf32 zero = v_set_f32(0), limit = v_set_f32(r->limit), last = v_set_f32(r->last);
  for (int64_t word = begin; word < end; word++) {
    int64_t at = word * BNN_WORD, here = r->count - at < BNN_WORD ? r->count - at : BNN_WORD;
    uint32_t bits = 0;
    for (int64_t lane = 0; lane < here; lane += BNN_LANES) {
      int64_t part = here - lane;
      const float *from = r->x + at + lane;
      float *to = r->y + at + lane;
      vf32 x = part >= BNN_LANES ? v_load_f32(from) : v_load_part_f32(from, part);
      vmask positive = v_less_f32(zero, x);
      vf32 y = v_choose_f32(v_mask_or(positive, v_nan_f32(x)), x, zero);
      y = v_choose_f32(v_less_f32(limit, y), limit, y);
      bits |= v_mask_bits(v_mask_without(positive, v_less_f32(last, x))) << lane;
      if (part >= BNN_LANES)
        v_store_f32(to, y);
      else
        v_store_part_f32(to, y, part);
    }
    if (r->mask) r->mask[word] = bits;
  }
}
