/* What surrounds a product in a training step, bound by memory: batch norm, pooling, the rectifier. */

/* ---- batch norm ------------------------------------------------------------------------------------------------ */

/* Rows of few channels are taken together as one wide row, so that lanes are neighbours in memory whatever the number
 * of channels. A block of wide rows is few enough to stay in a near cache, since the squares are taken from a mean.
 *
 * Order of a sum: within a block four wide rows are added to each other, then to what came before; the rest of the rows
 * one by one; the rows of a wide row at last. Blocks are added up in their order, in double precision. Both follow from
 * the shape alone, so neither threads nor the level change a bit; from BNN_NORM_APART channels on from the rows alone,
 * so a channel has the same sums in an array of its own. The depth of a sum in single precision is at most 21 and the
 * rows of a wide row. */
#define NORM_LEAST BNN_NORM_APART /* floats of a wide row */
#define NORM_MOST 1024            /* floats of one that holds several rows */
#define NORM_BLOCK 64             /* wide rows */
#define NORM_TOTALS 64            /* channels whose blocks are added up together */

static int64_t norm_group(int64_t channels) {
  int64_t rows = 1;
  if (channels >= NORM_LEAST) return 1;
  while (rows * channels < NORM_LEAST || rows * channels % 16) rows *= 2;
  return rows;
}

/* Rows of a block. */
static int64_t norm_rows(int64_t channels) { return norm_group(channels) * NORM_BLOCK; }

static int64_t norm_blocks(int64_t rows, int64_t channels) {
  int64_t most = norm_rows(channels);
  return bnn_ceil(rows, most);
}

/* What the block is of: `count` floats, in wide rows of `width`. */
typedef struct {
  int64_t row, first, rows, channels, group, width, count;
} norm_block;

static norm_block norm_block_of(const bnn_norm *n, int64_t i) {
  int64_t most = norm_rows(n->channels), first = i * most, group = norm_group(n->channels);
  int64_t rows = n->rows - first < most ? n->rows - first : most;
  return (norm_block){.row = first,
                      .first = first * n->channels,
                      .rows = rows,
                      .channels = n->channels,
                      .group = group,
                      .width = group * n->channels,
                      .count = rows * n->channels};
}

/* How x is read: rectified or not, as integers or as floats. */
enum { NORM_RECTIFIED = 1, NORM_INTEGERS = 2 };

/* `what`, with the form as a literal. */
#define NORM_BY_FORM(what, form, ...)                    \
  switch (form) {                                        \
    case 0:                                              \
      what(0, __VA_ARGS__);                              \
      break;                                             \
    case NORM_RECTIFIED:                                 \
      what(NORM_RECTIFIED, __VA_ARGS__);                 \
      break;                                             \
    case NORM_INTEGERS:                                  \
      what(NORM_INTEGERS, __VA_ARGS__);                  \
      break;                                             \
    default:                                             \
      what(NORM_RECTIFIED | NORM_INTEGERS, __VA_ARGS__); \
  }

BNN_INLINE int64_t norm_bytes(int form, int64_t count) {
  return count * (int64_t)(form & NORM_INTEGERS ? sizeof(int16_t) : sizeof(float));
}

/* The `i`-th value from there on. */
BNN_INLINE const void *norm_from(int form, const void *x, int64_t i) { return (const char *)x + norm_bytes(form, i); }

/* The wide row of a piece that begins with that row: `width` values, the next one `stride` after it. */
typedef struct {
  int64_t width, stride;
  int form;
  const void *x;
} norm_part;

static int norm_form(const bnn_norm *n, const bnn_norm_piece *p) {
  return (n->rectified ? NORM_RECTIFIED : 0) | (p->integers ? NORM_INTEGERS : 0);
}

static norm_part norm_part_of(const bnn_norm *n, const norm_block *b, int64_t piece, int64_t row) {
  const bnn_norm_piece *p = &n->piece[piece];
  int form = norm_form(n, p);
  return (norm_part){b->group * p->channels, b->group * p->stride, form, norm_from(form, p->x, row * p->stride)};
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

/* A vector of a row from j on, of which `here` floats are left; all lanes are there if `whole`. */
BNN_INLINE vf32 norm_load(int whole, const float *row, int64_t j, int64_t here) {
  return whole ? v_load_f32(row + j) : v_load_part_f32(row + j, here - j);
}

/* Likewise of x, rectified where that is asked for. */
BNN_INLINE vf32 norm_load_x(int form, int whole, const void *row, int64_t j, int64_t here) {
  vf32 x, zero = v_set_f32(0);
  if (form & NORM_INTEGERS)
    x = v_float(load_halves((const int16_t *)row + j, whole ? BNN_LANES : here - j));
  else
    x = norm_load(whole, row, j, here);
  return form & NORM_RECTIFIED ? v_choose_f32(v_mask_or(v_less_f32(zero, x), v_nan_f32(x)), x, zero) : x;
}

/* Adds vector j of one or four wide rows that end at `here`; or if there is a mean, the squares of what they are off
 * it, which have just been read, so that the block behind them is asked for. */
BNN_INLINE void norm_add_at(int form, int whole, int rows, const void *x, int64_t stride, int64_t j, int64_t here,
                            const float *mean, float *sum) {
  vf32 value[4];
  BNN_UNROLL
  for (int i = 0; i < rows; i++) {
    value[i] = norm_load_x(form, whole, norm_from(form, x, i * stride), j, here);
    if (!mean) continue;
    fetch_ahead(norm_from(form, x, (i + NORM_BLOCK) * stride + j), 1);
    value[i] = v_sub_f32(value[i], norm_load(whole, mean, j, here));
    value[i] = v_mul_f32(value[i], value[i]);
  }
  if (rows == 4) value[0] = v_add_f32(v_add_f32(value[0], value[1]), v_add_f32(value[2], value[3]));
  value[0] = v_add_f32(norm_load(whole, sum, j, here), value[0]);
  if (whole)
    v_store_f32(sum + j, value[0]);
  else
    v_store_part_f32(sum + j, value[0], here - j);
}

BNN_INLINE void norm_add_rows(int form, int rows, const void *x, int64_t stride, int64_t here, const float *mean,
                              float *sum) {
  int64_t j = 0;
  for (; j + BNN_LANES <= here; j += BNN_LANES) norm_add_at(form, 1, rows, x, stride, j, here, mean, sum);
  if (j < here) norm_add_at(form, 0, rows, x, stride, j, here, mean, sum);
}

BNN_INLINE void norm_add(int form, const void *x, int64_t count, int64_t width, int64_t stride, const float *mean,
                         float *sum) {
  for (int64_t j = 0; j < width; j++) sum[j] = 0;
  for (; count >= 4 * width; count -= 4 * width, x = norm_from(form, x, 4 * stride))
    norm_add_rows(form, 4, x, stride, width, mean, sum);
  for (; count > 0; count -= width, x = norm_from(form, x, stride))
    norm_add_rows(form, 1, x, stride, count < width ? count : width, mean, sum);
}

BNN_INLINE void norm_moments_of(int form, const bnn_norm *n, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    norm_block b = norm_block_of(n, i);
    norm_part whole = norm_part_of(n, &b, 0, b.row);
    float several[2][NORM_MOST], *mean = n->parts + 2 * i * b.channels, *squares = mean + b.channels;
    float *wide = b.group > 1 ? several[0] : mean;
    norm_add(form, whole.x, b.count, b.width, whole.stride, NULL, wide);
    norm_fold(&b, wide, mean);
    for (int64_t c = 0; c < b.channels; c++) mean[c] /= (float)b.rows;
    float *sums = b.group > 1 ? several[1] : squares;
    norm_add(form, whole.x, b.count, b.width, whole.stride, norm_widen(&b, mean, wide), sums);
    norm_fold(&b, sums, squares);
  }
}

static void norm_moments(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  NORM_BY_FORM(norm_moments_of, norm_form(n, n->piece), n, begin, end);
}

BNN_INLINE void norm_move(float *average, int64_t c, float value, float rate) {
  if (average) average[c] -= (average[c] - value) * rate;
}

static void norm_moments_total(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  int64_t blocks = norm_blocks(n->rows, n->channels), most = norm_rows(n->channels);
  double all = n->rows > 0 ? (double)n->rows : 1;
  for (int64_t c = begin; c < end; c += NORM_TOTALS) {
    double mean[NORM_TOTALS] = {0}, squares[NORM_TOTALS] = {0};
    int64_t here = end - c < NORM_TOTALS ? end - c : NORM_TOTALS;
    for (int64_t i = 0; i < blocks; i++) {
      const float *part = n->parts + 2 * i * n->channels + c;
      double rows = (double)(i + 1 < blocks ? most : n->rows - i * most);
      for (int64_t j = 0; j < here; j++) mean[j] += rows * part[j];
    }
    for (int64_t j = 0; j < here; j++) mean[j] /= all;
    for (int64_t i = 0; i < blocks; i++) {
      const float *part = n->parts + 2 * i * n->channels + c;
      double rows = (double)(i + 1 < blocks ? most : n->rows - i * most);
      for (int64_t j = 0; j < here; j++)
        squares[j] += part[n->channels + j] + rows * ((part[j] - mean[j]) * (part[j] - mean[j]));
    }
    for (int64_t j = 0; j < here; j++) {
      float *out = n->out + c + j, variance = (float)(squares[j] / all);
      out[0] = (float)mean[j];
      out[n->channels] = variance;
      out[2 * n->channels] = 1 / __builtin_sqrtf(variance + n->epsilon);
      norm_move(n->average[0], c + j, out[0], n->rate);
      norm_move(n->average[1], c + j, variance * n->unbiased, n->rate);
    }
  }
}

/* Likewise of dy: 0 where the mask of the row has no bit. */
BNN_INLINE vf32 norm_flow(int whole, const float *dy, const uint32_t *mask, int64_t j, int64_t here) {
  vf32 flow = norm_load(whole, dy, j, here);
  if (!mask) return flow;
  return v_choose_f32(v_mask_of(mask[j / BNN_WORD] >> j % BNN_WORD), flow, v_set_f32(0));
}

/* One or four wide rows that end at `here`. */
BNN_INLINE void norm_add_products_at(int form, int whole, int rows, const void *x, const float *dy,
                                     const uint32_t *mask, int64_t width, int64_t stride, int64_t j, int64_t here,
                                     const float *mean, float *sum, float *products) {
  vf32 m = norm_load(whole, mean, j, here), flow[4], product[4];
  BNN_UNROLL
  for (int i = 0; i < rows; i++) {
    const void *row = norm_from(form, x, i * stride);
    fetch_ahead(norm_from(form, row, j + FETCH_AHEAD + rows * stride), 1);
    fetch_ahead(dy + i * width + j + FETCH_AHEAD + rows * width, 1);
    flow[i] = norm_flow(whole, dy + i * width, mask ? mask + i * (width / BNN_WORD) : NULL, j, here);
    product[i] = v_mul_f32(flow[i], v_sub_f32(norm_load_x(form, whole, row, j, here), m));
  }
  for (int i = 1; i < rows; i += 2) {
    flow[i - 1] = v_add_f32(flow[i - 1], flow[i]);
    product[i - 1] = v_add_f32(product[i - 1], product[i]);
  }
  if (rows == 4) {
    flow[0] = v_add_f32(flow[0], flow[2]);
    product[0] = v_add_f32(product[0], product[2]);
  }
  flow[0] = v_add_f32(norm_load(whole, sum, j, here), flow[0]);
  product[0] = v_add_f32(norm_load(whole, products, j, here), product[0]);
  if (whole) {
    v_store_f32(sum + j, flow[0]);
    v_store_f32(products + j, product[0]);
  } else {
    v_store_part_f32(sum + j, flow[0], here - j);
    v_store_part_f32(products + j, product[0], here - j);
  }
}

BNN_INLINE void norm_add_products_of(int form, int rows, const void *x, const float *dy, const uint32_t *mask,
                                     int64_t width, int64_t stride, int64_t here, const float *mean, float *sum,
                                     float *products) {
  int64_t j = 0;
  for (; j + BNN_LANES <= here; j += BNN_LANES)
    norm_add_products_at(form, 1, rows, x, dy, mask, width, stride, j, here, mean, sum, products);
  if (j < here) norm_add_products_at(form, 0, rows, x, dy, mask, width, stride, j, here, mean, sum, products);
}

/* The mask from float `first` on, or NULL. */
BNN_INLINE const uint32_t *norm_mask(const bnn_norm *n, int64_t first) {
  return n->mask ? n->mask + first / BNN_WORD : NULL;
}

static void norm_add_products(const bnn_norm *n, const norm_block *b, const float *mean, float *sum, float *products) {
  for (int64_t j = 0; j < b->width; j++) sum[j] = products[j] = 0;
  for (int64_t at = 0, row = b->row, rows; at < b->count; at += rows * b->width, row += rows * b->group) {
    int64_t left = b->count - at, first = b->first + at;
    rows = left >= 4 * b->width ? 4 : 1;
    for (int64_t i = 0, j = 0; i < n->pieces; i++) {
      norm_part p = norm_part_of(n, b, i, row);
      int64_t here = left < p.width ? left : p.width;
      const float *dy = n->dy + first + j;
      const uint32_t *mask = norm_mask(n, first + j);
      if (rows == 4) {
        NORM_BY_FORM(norm_add_products_of, p.form, 4, p.x, dy, mask, b->width, p.stride, p.width, mean + j, sum + j,
                     products + j);
      } else {
        NORM_BY_FORM(norm_add_products_of, p.form, 1, p.x, dy, mask, b->width, p.stride, here, mean + j, sum + j,
                     products + j);
      }
      j += p.width;
    }
  }
}

static void norm_sums(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  for (int64_t i = begin; i < end; i++) {
    norm_block b = norm_block_of(n, i);
    float several[3][NORM_MOST], *sum = n->parts + 2 * i * b.channels, *products = sum + b.channels;
    float *sums = b.group > 1 ? several[0] : sum, *all = b.group > 1 ? several[1] : products;
    norm_add_products(n, &b, norm_widen(&b, n->mean, several[2]), sums, all);
    norm_fold(&b, sums, sum);
    norm_fold(&b, all, products);
  }
}

static void norm_sums_total(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  int64_t blocks = norm_blocks(n->rows, n->channels);
  int64_t rows = n->rows_before + n->rows;
  float count = rows > 0 ? (float)rows : 1;
  for (int64_t c = begin; c < end; c += NORM_TOTALS) {
    double sum[2][NORM_TOTALS] = {{0}};
    int64_t here = end - c < NORM_TOTALS ? end - c : NORM_TOTALS;
    for (int64_t i = 0; n->before && i < 2; i++)
      for (int64_t j = 0; j < here; j++) sum[i][j] = n->before[i * n->channels + c + j];
    for (int64_t i = 0; i < 2 * blocks; i++)
      for (int64_t j = 0; j < here; j++) sum[i % 2][j] += n->parts[i * n->channels + c + j];
    for (int64_t i = 0; n->before && i < 2; i++)
      for (int64_t j = 0; j < here; j++) n->before[i * n->channels + c + j] = sum[i][j];
    for (int64_t j = 0; j < here; j++) {
      float *out = n->out + c + j, inverse = n->inverse[c + j], shift = (float)sum[0][j];
      float scale = (float)sum[1][j] * inverse;
      out[0] = shift;
      out[n->channels] = scale;
      out[2 * n->channels] = shift / count;
      out[3 * n->channels] = scale * inverse / count;
    }
  }
}

/* What is read per channel. */
typedef struct {
  const float *mean, *scale, *shift;
} norm_line;

BNN_INLINE vf32 norm_normal(int form, int whole, const void *x, const norm_line *line, const float *addend, int64_t j,
                            int64_t here) {
  vf32 y = v_sub_f32(norm_load_x(form, whole, x, j, here), norm_load(whole, line->mean, j, here));
  y = v_mul_f32(y, norm_load(whole, line->scale, j, here));
  if (line->shift) y = v_add_f32(y, norm_load(whole, line->shift, j, here));
  return addend ? v_add_f32(y, norm_load(whole, addend, j, here)) : y;
}

BNN_INLINE void norm_row(int form, const void *x, int64_t here, const norm_line *line, const float *addend,
                         float *out) {
  int64_t j = 0;
  for (; j + BNN_LANES <= here; j += BNN_LANES) v_store_f32(out + j, norm_normal(form, 1, x, line, addend, j, here));
  if (j < here) v_store_part_f32(out + j, norm_normal(form, 0, x, line, addend, j, here), here - j);
}

static void normalize(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  norm_block b = norm_block_of(n, begin);
  float several[3][NORM_MOST];
  const float *mean = norm_widen(&b, n->mean, several[0]), *scale = norm_widen(&b, n->scale, several[1]);
  const float *shift = norm_widen(&b, n->shift, several[2]);
  int64_t rows = end * norm_rows(n->channels) < n->rows ? end * norm_rows(n->channels) : n->rows;
  for (int64_t row = b.row; row < rows; row += b.group) {
    int64_t first = row * b.channels, left = (rows - row) * b.channels;
    for (int64_t i = 0, j = 0; i < n->pieces; i++) {
      norm_part p = norm_part_of(n, &b, i, row);
      norm_line line = {mean + j, scale + j, shift ? shift + j : NULL};
      const float *addend = n->addend ? n->addend + first + j : NULL;
      NORM_BY_FORM(norm_row, p.form, p.x, left < p.width ? left : p.width, &line, addend, n->out + first + j);
      j += p.width;
    }
  }
}

/* The words of a piece from word `first` of some rows on; says if there is a NaN. */
BNN_INLINE void norm_sign_rows(int form, const bnn_norm *n, const bnn_norm_piece *p, int64_t first, int64_t row,
                               int64_t end, uint8_t *any_nan) {
  int64_t words = n->channels / BNN_WORD, here = p->channels / BNN_WORD, channel = first * BNN_WORD;
  norm_line line = {n->mean + channel, n->scale + channel, n->shift ? n->shift + channel : NULL};
  vf32 zero = v_set_f32(0), clip = v_set_f32(n->clip);
  vmask nan = v_mask_none();
  for (; row < end; row++) {
    int64_t at = row * n->channels + channel;
    const void *x = norm_from(form, p->x, row * p->stride);
    const float *addend = n->addend ? n->addend + at : NULL;
    float *out = n->out ? n->out + at : NULL;
    uint32_t *signs = n->words + row * words + first, *withins = n->within ? n->within + row * words + first : NULL;
    for (int64_t w = 0; w < here; w++) {
      uint32_t sign = 0, within = 0;
      fetch_ahead(norm_from(form, x, w * BNN_WORD + FETCH_AHEAD), (size_t)norm_bytes(form, BNN_WORD));
      BNN_UNROLL
      for (int lane = 0; lane < BNN_WORD; lane += BNN_LANES) {
        int64_t c = w * BNN_WORD + lane;
        vf32 y = norm_normal(form, 1, x, &line, addend, c, p->channels);
        if (addend) fetch_ahead(addend + c + FETCH_AHEAD, 1);
        if (out) fetch_to_write(out + c + 2 * FETCH_AHEAD, 1);
        if (out) v_store_f32(out + c, y);
        sign |= v_mask_bits(v_less_f32(y, zero)) << lane;
        within |= v_mask_bits(v_within_f32(y, clip)) << lane;
        nan = v_mask_or(nan, v_nan_f32(y));
      }
      signs[w] = sign;
      if (withins) withins[w] = within;
    }
  }
  *any_nan |= v_mask_bits(nan) != 0;
}

static void normalize_sign(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  for (int64_t i = begin; i < end; i++) {
    norm_block b = norm_block_of(n, i);
    n->nan[i] = 0;
    for (int64_t piece = 0, first = 0; piece < n->pieces; piece++) {
      const bnn_norm_piece *p = &n->piece[piece];
      NORM_BY_FORM(norm_sign_rows, norm_form(n, p), n, p, first, b.row, b.row + b.rows, &n->nan[i]);
      first += p->channels / BNN_WORD;
    }
  }
}

/* x and dy may be dx itself: a vector of each is read before it is written. */
BNN_INLINE void norm_grad_at(int form, int whole, const void *x, const float *dy, const uint32_t *mask, int64_t j,
                             int64_t here, const float *mean, const float *scale, const float *shift,
                             const float *slope, int add, float *dx) {
  fetch_ahead(norm_from(form, x, j + FETCH_AHEAD), 1);
  fetch_ahead(dy + j + FETCH_AHEAD, 1);
  if (add) fetch_ahead(dx + j + FETCH_AHEAD, 1);
  vf32 flow = v_sub_f32(norm_flow(whole, dy, mask, j, here), norm_load(whole, shift, j, here));
  vf32 value = norm_load_x(form, whole, x, j, here), zero = v_set_f32(0);
  vf32 normal = v_sub_f32(value, norm_load(whole, mean, j, here));
  flow = v_sub_f32(flow, v_mul_f32(normal, norm_load(whole, slope, j, here)));
  flow = v_mul_f32(flow, norm_load(whole, scale, j, here));
  if (form & NORM_RECTIFIED) flow = v_choose_f32(v_less_f32(zero, value), flow, zero);
  if (add) flow = v_add_f32(norm_load(whole, dx, j, here), flow);
  if (whole)
    v_store_f32(dx + j, flow);
  else
    v_store_part_f32(dx + j, flow, here - j);
}

BNN_INLINE void norm_grad_row(int form, const void *x, const float *dy, const uint32_t *mask, int64_t here,
                              const float *mean, const float *scale, const float *shift, const float *slope, int add,
                              float *dx) {
  int64_t j = 0;
  for (; j + BNN_LANES <= here; j += BNN_LANES)
    norm_grad_at(form, 1, x, dy, mask, j, here, mean, scale, shift, slope, add, dx);
  if (j < here) norm_grad_at(form, 0, x, dy, mask, j, here, mean, scale, shift, slope, add, dx);
}

static void normalize_grad(const void *what, int64_t begin, int64_t end) {
  const bnn_norm *n = what;
  norm_block b = norm_block_of(n, begin);
  float several[4][NORM_MOST];
  const float *mean = norm_widen(&b, n->mean, several[0]), *scale = norm_widen(&b, n->scale, several[1]);
  const float *shift = norm_widen(&b, n->shift, several[2]), *slope = norm_widen(&b, n->slope, several[3]);
  int64_t rows = end * norm_rows(n->channels) < n->rows ? end * norm_rows(n->channels) : n->rows;
  for (int64_t row = b.row; row < rows; row += b.group) {
    int64_t first = row * b.channels, left = (rows - row) * b.channels;
    for (int64_t i = 0, from = 0; i < n->pieces; i++) {
      norm_part p = norm_part_of(n, &b, i, row);
      NORM_BY_FORM(norm_grad_row, p.form, p.x, n->dy + first + from, norm_mask(n, first + from),
                   left < p.width ? left : p.width, mean + from, scale + from, shift + from, slope + from, n->add,
                   n->piece[i].dx + row * n->piece[i].channels);
      from += p.width;
    }
  }
}

/* ---- pooling --------------------------------------------------------------------------------------------------- */

#define POOL_RUNS 16    /* of pixels of a row, whose reach is found once for all rows */
#define POOL_TAPS 16    /* that go through the registers together */
#define POOL_CHUNK 1024 /* floats of a row that its runs write by turns, so that they stay in a near cache */

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

/* POOL_SPREAD is POOL_MAX_GRAD where no windows overlap: along a row a pixel of dy goes where its window has won,
 * instead of a pixel of dx asking each tap. */
typedef enum { POOL_MAX, POOL_MAX_GRAD, POOL_SPREAD, POOL_AVERAGE, POOL_AVERAGE_GRAD } pool_kind;

BNN_INLINE int pool_is_back(pool_kind kind) { return kind != POOL_MAX && kind != POOL_AVERAGE; }

/* Whether a row is gone along by the pixels of the input, which meet those of the output. */
BNN_INLINE int pool_by_input(pool_kind kind) { return pool_is_back(kind) && kind != POOL_SPREAD; }

static pool_reach pool_reach_of(pool_kind kind, const bnn_geometry *g, int axis, int64_t pixel) {
  int back = axis == 2 ? pool_by_input(kind) : pool_is_back(kind);
  return back ? pool_backward(g, axis, pixel) : pool_forward(g, axis, pixel);
}

/* Pixels of a row, evenly apart, that meet the same taps with the same shares: most do that have the same phase. They
 * are pixels of `to` that meet those of `from`, or where it is spread, pixels of `from` that meet those of `to`. */
typedef struct {
  pool_reach reach;                 /* of the first */
  int64_t first, count, step, move; /* from one to the next: of the pixel, and of what it meets */
} pool_run;

static int pool_alike(pool_kind kind, const bnn_geometry *g, const pool_reach *a, const pool_reach *b) {
  int alike = a->count == b->count && a->tap == b->tap;
  for (int64_t k = 0; kind == POOL_AVERAGE_GRAD && alike && k < a->count; k++)
    alike = pool_forward(g, 2, a->at + k * a->move).count == pool_forward(g, 2, b->at + k * b->move).count;
  return alike;
}

/* Takes a pixel into the run if it belongs there. */
static int pool_join(pool_kind kind, const bnn_geometry *g, pool_run *run, int64_t pixel, const pool_reach *reach) {
  int64_t step = pixel - run->first, move = reach->at - run->reach.at;
  if (run->count > 1 && (step != run->count * run->step || move != run->count * run->move)) return 0;
  if (!pool_alike(kind, g, &run->reach, reach)) return 0;
  if (run->count++ == 1) run->step = step, run->move = move;
  return 1;
}

/* The runs of the pixels from `first` on, up to the one returned. */
static int64_t pool_find_runs(pool_kind kind, const bnn_geometry *g, int64_t first, int64_t end, pool_run *run,
                              int *runs) {
  for (*runs = 0; first < end; first++) {
    pool_reach reach = pool_reach_of(kind, g, 2, first);
    int known = 0;
    while (known < *runs && !pool_join(kind, g, &run[known], first, &reach)) known++;
    if (known == POOL_RUNS) break;
    if (known == *runs) run[(*runs)++] = (pool_run){reach, first, 1, 1, 0};
  }
  return first;
}

/* What a row of `to` meets along the other two axes, and the first pixel of the first row that it meets. */
typedef struct {
  pool_reach a, b;
  int64_t line;
} pool_row;

static pool_row pool_row_of(pool_kind kind, const bnn_geometry *g, int64_t row) {
  const int64_t *to = pool_is_back(kind) ? g->in : g->out, *from = pool_is_back(kind) ? g->out : g->in;
  int64_t z = row / to[1], image = z / to[0];
  pool_row across = {pool_reach_of(kind, g, 0, z - image * to[0]), pool_reach_of(kind, g, 1, row - z * to[1]), 0};
  across.line = ((image * from[0] + across.a.at) * from[1] + across.b.at) * from[2];
  return across;
}

/* A tap, and where its source lies: floats, and words of a plane, from those of a pixel of the row's line. */
typedef struct {
  int64_t tap, source, word;
  float share; /* of what comes from there */
} pool_tap;

/* Some of the taps that the pixels of a run meet in one row. */
typedef struct {
  int64_t count;
  pool_tap tap[POOL_TAPS];
  float divisor; /* of the result, with its last tap */
} pool_taps;

static void pool_find_taps(pool_kind kind, const bnn_geometry *g, const pool_row *row, const pool_reach *c,
                           int64_t done, pool_taps *taps) {
  const int64_t *from = pool_is_back(kind) ? g->out : g->in;
  const pool_reach a = row->a, b = row->b;
  int64_t all = a.count * b.count * c->count, n = -done, words = bnn_words(g->channels);
  taps->tap[0] = taps->tap[1] = (pool_tap){0};
  taps->divisor = kind == POOL_AVERAGE && done < all && all <= done + POOL_TAPS ? (float)all : 1;
  for (int64_t i = 0; i < a.count; i++)
    for (int64_t j = 0; j < b.count; j++) {
      int64_t z = i * a.move, y = j * b.move, line = (z * from[1] + y) * from[2];
      int64_t plane = ((a.tap + i * a.step) * g->kernel[1] + b.tap + j * b.step) * g->kernel[2], seen = 0;
      if (kind == POOL_AVERAGE_GRAD) seen = pool_forward(g, 0, a.at + z).count * pool_forward(g, 1, b.at + y).count;
      for (int64_t k = 0; k < c->count && n < POOL_TAPS; k++, n++) {
        if (n < 0) continue;
        int64_t source = line + k * c->move;
        pool_tap *tap = &taps->tap[n];
        *tap = (pool_tap){plane + c->tap + k * c->step, source * g->channels, source * words, 1};
        if (seen) tap->share = 1 / (float)(seen * pool_forward(g, 2, c->at + k * c->move).count);
      }
    }
  taps->count = n > 0 ? n : 0;
}

/* The taps of all runs, for a row that is `like` and for others that differ from it only in their line. */
typedef struct {
  pool_row like;
  int64_t done;
  pool_taps taps[POOL_RUNS];
} pool_lines;

static void pool_find_lines(pool_kind kind, const bnn_geometry *g, const pool_row *row, const pool_run *run, int runs,
                            int64_t done, pool_lines *lines) {
  const pool_reach *a = &lines->like.a, *b = &lines->like.b;
  int same = lines->done == done && a->count == row->a.count && a->tap == row->a.tap && b->count == row->b.count &&
             b->tap == row->b.tap;
  if (same && kind != POOL_AVERAGE_GRAD) return;
  lines->like = *row;
  lines->done = done;
  for (int i = 0; i < runs; i++) pool_find_taps(kind, g, row, &run[i].reach, done, &lines->taps[i]);
}

/* Up to BNN_WORD channels of a pixel: what is read, what is written, and the word of the winners' first plane. */
typedef struct {
  const float *from;
  float *to;
  uint32_t *winner;
  int64_t plane; /* words */
  int begun;     /* taps before these have left their value in `to` */
} pool_word;

#define POOL_VECTORS (BNN_WORD / BNN_LANES)

/* Lanes of vector v of a word that holds `here` channels. */
BNN_INLINE int64_t pool_lanes(int64_t here, int v) { return here > v * BNN_LANES ? here - v * BNN_LANES : 0; }

/* Vector v of a word that holds `here` channels, all of them where `whole`. */
BNN_INLINE vf32 pool_load(int whole, const float *p, int64_t here, int v) {
  return whole ? v_load_f32(p + v * BNN_LANES) : v_load_part_f32(p + v * BNN_LANES, pool_lanes(here, v));
}
BNN_INLINE void pool_store(int whole, float *p, vf32 x, int64_t here, int v) {
  if (whole)
    v_store_f32(p + v * BNN_LANES, x);
  else
    v_store_part_f32(p + v * BNN_LANES, x, pool_lanes(here, v));
}

/* A value that is strictly larger takes over, and a NaN stays. */
BNN_INLINE void pool_larger(int planes, int whole, const pool_word *at, const pool_tap *tap, int64_t taps,
                            int64_t here) {
  const float *start = at->begun ? at->to : at->from + tap->source;
  fetch_ahead(start + FETCH_AHEAD, BNN_WORD * sizeof *start);
  vf32 best[POOL_VECTORS], won[POOL_VECTORS]; /* the bits of `won` number a tap */
  BNN_UNROLL
  for (int v = 0; v < POOL_VECTORS; v++) {
    vu32 first = v_set(at->begun ? 0 : (uint32_t)tap->tap);
    for (int d = 0; d < planes && at->begun; d++)
      first = v_or_where(first, v_mask_of(at->winner[d * at->plane] >> v * BNN_LANES), v_set(1u << d));
    best[v] = pool_load(whole, start, here, v);
    won[v] = v_as_float(first);
  }
  for (const pool_tap *end = tap + taps, *t = tap + !at->begun; t < end; t++) {
    const float *source = at->from + t->source;
    fetch_ahead(source + FETCH_AHEAD, BNN_WORD * sizeof *source);
    vf32 number = v_as_float(v_set((uint32_t)t->tap));
    BNN_UNROLL
    for (int v = 0; v < POOL_VECTORS; v++) {
      vf32 x = pool_load(whole, source, here, v);
      vmask larger = v_less_f32(best[v], x);
      best[v] = v_choose_f32(v_mask_or(larger, v_nan_f32(x)), x, best[v]);
      if (planes > 0) won[v] = v_choose_f32(larger, number, won[v]);
    }
  }
  BNN_UNROLL
  for (int v = 0; v < POOL_VECTORS; v++) pool_store(whole, at->to, best[v], here, v);
  for (int d = 0; d < planes; d++) {
    uint32_t bits = 0;
    BNN_UNROLL
    for (int v = 0; v < POOL_VECTORS; v++)
      bits |= v_mask_bits(v_test(v_bits_of(won[v]), v_set(1u << d))) << v * BNN_LANES;
    at->winner[d * at->plane] = bits;
  }
}

/* The mean, or a gradient. */
BNN_INLINE void pool_sum(pool_kind kind, int planes, int whole, const pool_word *at, const pool_tap *tap, int64_t taps,
                         float divisor, int64_t here) {
  vf32 sum[POOL_VECTORS];
  if (pool_is_back(kind)) fetch_to_write(at->to + 2 * FETCH_AHEAD, BNN_WORD * sizeof *at->to);
  BNN_UNROLL
  for (int v = 0; v < POOL_VECTORS; v++) sum[v] = at->begun ? pool_load(whole, at->to, here, v) : v_set_f32(0);
  for (int64_t i = 0; i < taps; i++) {
    const float *source = at->from + tap[i].source;
    if (kind == POOL_AVERAGE) fetch_ahead(source + FETCH_AHEAD, BNN_WORD * sizeof *source);
    uint32_t won = ~0u;
    for (int d = 0; d < planes; d++) won &= at->winner[d * at->plane + tap[i].word] ^ (tap[i].tap >> d & 1 ? 0 : ~0u);
    BNN_UNROLL
    for (int v = 0; v < POOL_VECTORS; v++) {
      vf32 x = pool_load(whole, source, here, v);
      if (kind == POOL_MAX_GRAD) x = v_choose_f32(v_mask_of(won >> v * BNN_LANES), x, v_set_f32(0));
      if (kind == POOL_AVERAGE_GRAD) x = v_mul_f32(x, v_set_f32(tap[i].share));
      sum[v] = v_add_f32(sum[v], x);
    }
  }
  BNN_UNROLL
  for (int v = 0; v < POOL_VECTORS; v++) {
    if (kind == POOL_AVERAGE) sum[v] = v_div_f32(sum[v], v_set_f32(divisor));
    pool_store(whole, at->to, sum[v], here, v);
  }
}

/* What a window that overlaps no other gives its pixels: all to the winner. */
BNN_INLINE void pool_spread(int planes, int whole, const pool_word *at, const pool_tap *tap, int64_t taps,
                            int64_t here) {
  vf32 x[POOL_VECTORS];
  BNN_UNROLL
  for (int v = 0; v < POOL_VECTORS; v++) x[v] = pool_load(whole, at->from, here, v);
  for (int64_t i = 0; i < taps; i++) {
    float *to = at->to + tap[i].source;
    fetch_to_write(to + 2 * FETCH_AHEAD, BNN_WORD * sizeof *to);
    uint32_t won = ~0u;
    for (int d = 0; d < planes; d++) won &= at->winner[d * at->plane] ^ (tap[i].tap >> d & 1 ? 0 : ~0u);
    BNN_UNROLL
    for (int v = 0; v < POOL_VECTORS; v++)
      pool_store(whole, to, v_choose_f32(v_mask_of(won >> v * BNN_LANES), x[v], v_set_f32(0)), here, v);
  }
}

/* So many words of channels, and floats and words of a plane from each to the next. */
typedef struct {
  int64_t count, from, to, winner;
} pool_steps;

BNN_INLINE void pool_words(pool_kind kind, int planes, int whole, pool_word at, const pool_steps *steps,
                           const pool_tap *tap, int64_t taps, float divisor, int64_t here) {
  for (int64_t i = steps->count; i > 0; i--) {
    if (kind == POOL_MAX)
      pool_larger(planes, whole, &at, tap, taps, here);
    else if (kind == POOL_SPREAD)
      pool_spread(planes, whole, &at, tap, taps, here);
    else
      pool_sum(kind, planes, whole, &at, tap, taps, divisor, here);
    at.from += steps->from;
    at.to += steps->to;
    if (planes > 0) at.winner += steps->winner;
  }
}

/* The pixels of a run from its `i`-th on that lie before `end`; returns how many of the run there are so far. */
BNN_INLINE int64_t pool_along(pool_kind kind, int planes, const bnn_pool *p, const pool_run *run, const pool_taps *t,
                              int64_t row, int64_t line, int64_t i, int64_t end, int begun) {
  const bnn_geometry *g = p->geometry;
  const int back = pool_is_back(kind), spread = kind == POOL_SPREAD;
  const int64_t channels = g->channels, words = bnn_words(channels), pixel = run->first + i * run->step;
  if (i == run->count || pixel >= end || (spread && t->count == 0)) return i;
  const int64_t left = run->count - i, before = (end - pixel - 1) / run->step + 1;
  const int64_t met = run->reach.at + i * run->move, first = row * (back ? g->in : g->out)[2];
  const int64_t at = line + (spread ? pixel : met), target = first + (spread ? met : pixel);
  const int64_t from = spread ? run->step : run->move, to = spread ? run->move : run->step;
  const pool_steps pixels = {left < before ? left : before, from * channels, to * channels, (back ? from : to) * words};
  const pool_steps along = {channels / BNN_WORD, BNN_WORD, BNN_WORD, 1};
  /* What is larger, and so comes from further away, is read as it lies; what is written waits in a near cache. */
  const pool_steps *inner = along.count > (back ? pixels.count : 1) ? &along : &pixels;
  const pool_steps *outer = inner == &along ? &pixels : &along;
  pool_word word = {.from = p->from + at * channels,
                    .to = p->to + target * channels,
                    .winner = planes > 0 ? p->winner + (back ? at : target) * words : NULL,
                    .plane = g->batch * g->out[0] * g->out[1] * g->out[2] * words,
                    .begun = begun};
  pool_word last = word;
  const pool_tap two[2] = {t->tap[0], t->tap[1]}; /* the usual windows' of a row, in registers */
  for (int64_t k = 0; k < outer->count; k++) {
    if (kind == POOL_SPREAD && t->count == 2)
      pool_words(kind, planes, 1, word, inner, two, 2, 1, BNN_WORD);
    else
      pool_words(kind, planes, 1, word, inner, t->tap, t->count, t->divisor, BNN_WORD);
    word.from += outer->from;
    word.to += outer->to;
    if (planes > 0) word.winner += outer->winner;
  }
  const int64_t rest = channels % BNN_WORD;
  last.from += channels - rest;
  last.to += channels - rest;
  if (planes > 0) last.winner += along.count;
  if (rest > 0) pool_words(kind, planes, 0, last, &pixels, t->tap, t->count, t->divisor, rest);
  return i + pixels.count;
}

/* Zeros in a row that is spread to, where no window is. */
static void pool_clear(const bnn_pool *p, int64_t row, const pool_row *across) {
  const bnn_geometry *g = p->geometry;
  int64_t none = g->out[2] * g->stride[2] - g->pad[2];
  if (across->a.count <= 0 || across->b.count <= 0 || g->kernel[2] < g->stride[2]) none = 0;
  for (int64_t i = none * g->channels; i < g->in[2] * g->channels; i++) p->to[row * g->in[2] * g->channels + i] = 0;
}

/* Taps meet a pixel in row-major order, which decides ties and is the order of sums. */
BNN_INLINE void pool_rows(pool_kind kind, int planes, const bnn_pool *p, int64_t begin, int64_t end) {
  const bnn_geometry *g = p->geometry;
  const int64_t width = (pool_by_input(kind) ? g->in : g->out)[2], chunk = POOL_CHUNK / (g->channels + 1) + 1;
  const int64_t most = g->kernel[0] * g->kernel[1] * g->kernel[2];
  for (int64_t first = 0, last; first < width; first = last) {
    pool_run run[POOL_RUNS];
    pool_lines lines[2]; /* neighbours often differ in phase */
    int runs;
    last = pool_find_runs(kind, g, first, width, run, &runs);
    lines[0].done = lines[1].done = -1;
    for (int64_t row = begin; row < end; row++) {
      const pool_row across = pool_row_of(kind, g, row);
      if (kind == POOL_SPREAD && first == 0) pool_clear(p, row, &across);
      for (int64_t done = 0; done < most; done += POOL_TAPS) {
        int64_t pixels[POOL_RUNS] = {0};
        pool_find_lines(kind, g, &across, run, runs, done, &lines[row % 2]);
        for (int64_t at = first; at < last; at += chunk) {
          int64_t stop = at + chunk < last ? at + chunk : last;
          for (int i = 0; i < runs; i++)
            pixels[i] = pool_along(kind, planes, p, &run[i], &lines[row % 2].taps[i], row, across.line, pixels[i], stop,
                                   done > 0);
        }
      }
    }
  }
}

/* Of few taps, the planes are registers. */
BNN_INLINE void pool_planes(pool_kind kind, const bnn_pool *p, int64_t begin, int64_t end) {
  switch (p->winner ? p->planes : 0) {
    case 0:
      pool_rows(kind, 0, p, begin, end);
      break;
    case 2:
      pool_rows(kind, 2, p, begin, end);
      break;
    case 4:
      pool_rows(kind, 4, p, begin, end);
      break;
    default:
      pool_rows(kind, p->planes, p, begin, end);
  }
}

static void max_pool(const void *what, int64_t begin, int64_t end) { pool_planes(POOL_MAX, what, begin, end); }
static void max_pool_grad(const void *what, int64_t begin, int64_t end) {
  const bnn_geometry *g = ((const bnn_pool *)what)->geometry;
  int overlap = 0;
  for (int axis = 0; axis < 3; axis++) overlap |= g->kernel[axis] > g->stride[axis];
  if (overlap)
    pool_planes(POOL_MAX_GRAD, what, begin, end);
  else
    pool_planes(POOL_SPREAD, what, begin, end);
}
static void average_pool(const void *what, int64_t begin, int64_t end) { pool_rows(POOL_AVERAGE, 0, what, begin, end); }
static void average_pool_grad(const void *what, int64_t begin, int64_t end) {
  pool_rows(POOL_AVERAGE_GRAD, 0, what, begin, end);
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
