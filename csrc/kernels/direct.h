/* Floats times floats where sums are short, as at the few channels of an image: what a product of bits would lose in
 * tails of words, and what an im2col would only copy, is read where it lies.
 *
 * Lanes are columns; a value of x is broadcast. A term is a channel of a tap. Order of a sum, and so its bits: a result
 * is one running sum from zero over the terms, the taps in the order of the schedule, the padded ones last. A kernel
 * gradient is such a sum over the positions of a block, at most DIRECT_BLOCK of one class in the order of the images;
 * the blocks of a part are added in order, then the parts. With n terms, or (DIRECT_BLOCK + number of blocks + number
 * of parts) in the place of n, errors are below (n + 1) * 2^-24 * (sum of magnitudes). */

#define DIRECT_ROWS 6 /* of a tile, of two vectors each at least: twelve sums hide the latency of a multiply-add */
#define DIRECT_WIDTH (2 * BNN_LANES)
#define DIRECT_VECTORS (BNN_REGISTERS / 8) /* of a wide tile: the more, the more sums a value that is read serves */
#define DIRECT_WIDE (DIRECT_VECTORS * BNN_LANES)
#define DIRECT_HALF (DIRECT_WIDE / 2)
#define DIRECT_HELD 9    /* terms that half as many vectors leave room for, of sums or of w */
#define DIRECT_RUNS 16   /* most runs of a block */
#define DIRECT_BLOCK 256 /* and most positions: a tile's columns of dy stay in a near cache for all terms */
#define DIRECT_LINE (BNN_ALIGN / (int64_t)sizeof(float))

/* Where a term is read: floats from the source of a position, or from the constant row. */
typedef struct {
  int64_t x, w;
} direct_term;

typedef struct {
  const bnn_product *product;
  const bnn_class *class_; /* whose terms are listed */
  direct_term *term;
  int64_t valid, terms; /* the padded ones are the last */
  int64_t group;
} direct_work;

static size_t direct_scratch(const bnn_product *p) {
  return (size_t)(p->schedule->taps * p->depth) * sizeof(direct_term);
}

static void direct_list(direct_work *work, const bnn_class *class_) {
  const bnn_product *p = work->product;
  if (work->class_ == class_) return;
  work->class_ = class_;
  work->valid = class_->valid * p->depth;
  work->terms = work->valid + class_->padded * p->depth;
  for (int64_t i = 0; i < work->terms; i++) {
    int64_t tap = i / p->depth, k = i % p->depth;
    work->term[i].x = (i < work->valid ? class_->offset[tap] * p->groups * p->depth : 0) + k;
    work->term[i].w = (class_->tap[tap] * p->depth + k) * p->groups * p->columns;
  }
}

/* What a run reads and writes, from the first channel of the group. */
static const float *direct_source(const direct_work *work, const position_run *run) {
  const bnn_product *p = work->product;
  return (const float *)p->left + (run->source * p->groups + work->group) * p->depth;
}

static int64_t direct_target(const direct_work *work, const position_run *run) {
  const bnn_product *p = work->product;
  return (run->target * p->groups + work->group) * p->columns;
}

/* Columns of a tile, where so many are left. */
BNN_INLINE int64_t direct_width(int64_t left) { return left >= DIRECT_WIDE ? DIRECT_WIDE : DIRECT_WIDTH; }

/* A vector of the columns from `p` on, of which `left` exist. */
BNN_INLINE vf32 direct_load(const int full, const float *p, int64_t left) {
  return full ? v_load_f32(p) : v_load_part_f32(p, left);
}

BNN_INLINE void direct_store(const int full, float *p, vf32 x, int64_t left) {
  if (full)
    v_store_f32(p, x);
  else
    v_store_part_f32(p, x, left);
}

/* ---- results --------------------------------------------------------------------------------------------------- */

/* Some positions by one or two vectors of columns. */
typedef struct {
  const float *x, *w, *constant;
  float *out;
  int64_t x_step, out_step; /* from a position to the next */
  int64_t rows, columns;    /* wanted */
} direct_tile;

BNN_INLINE void direct_sum(const direct_work *work, const direct_tile *t, const int rows, const int vectors,
                           const int full) {
  const float *x[DIRECT_ROWS], *w = t->w;
  vf32 sum[DIRECT_ROWS][DIRECT_VECTORS];
  BNN_UNROLL
  for (int r = 0; r < rows; r++) {
    x[r] = t->x + (r < t->rows ? r : 0) * t->x_step;
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) sum[r][v] = v_set_f32(0);
  }
  const direct_term *term = work->term, *valid = term + work->valid, *end = term + work->terms;
  for (; term < valid; term++) {
    vf32 a[DIRECT_VECTORS];
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) a[v] = direct_load(full, w + term->w + v * BNN_LANES, t->columns - v * BNN_LANES);
    BNN_UNROLL
    for (int r = 0; r < rows; r++) {
      vf32 b = v_set_f32(x[r][term->x]);
      BNN_UNROLL
      for (int v = 0; v < vectors; v++) sum[r][v] = v_fma_f32(a[v], b, sum[r][v]);
    }
  }
  for (; term < end; term++) {
    vf32 b = v_set_f32(t->constant[term->x]);
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) {
      vf32 a = direct_load(full, w + term->w + v * BNN_LANES, t->columns - v * BNN_LANES);
      BNN_UNROLL
      for (int r = 0; r < rows; r++) sum[r][v] = v_fma_f32(a, b, sum[r][v]);
    }
  }
  float *out = t->out;
  BNN_UNROLL
  for (int r = 0; r < rows; r++, out += t->out_step) {
    if (r == t->rows) break;
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) direct_store(full, out + v * BNN_LANES, sum[r][v], t->columns - v * BNN_LANES);
  }
}

/* Apart, as what it saves and restores would burden the narrow ones. */
BNN_APART void direct_sum_wide(const direct_work *work, const direct_tile *t) {
  if (t->rows > DIRECT_ROWS / 2)
    direct_sum(work, t, DIRECT_ROWS, DIRECT_VECTORS, 1);
  else
    direct_sum(work, t, DIRECT_ROWS / 2, DIRECT_VECTORS, 1);
}

static void direct_sum_tile(const direct_work *work, const direct_tile *t) {
  if (t->columns >= DIRECT_WIDE)
    direct_sum_wide(work, t);
  else if (t->columns >= DIRECT_WIDTH && t->rows > DIRECT_ROWS / 2)
    direct_sum(work, t, DIRECT_ROWS, 2, 1);
  else if (t->columns >= DIRECT_WIDTH)
    direct_sum(work, t, DIRECT_ROWS / 2, 2, 1);
  else if (t->columns > BNN_LANES)
    direct_sum(work, t, DIRECT_ROWS, 2, 0);
  else
    direct_sum(work, t, DIRECT_ROWS, 1, 0);
}

/* Sums of nine terms, as of 3x3 taps of one channel, are too short for what a tile begins and ends with. So their part
 * of w stays in registers while all positions of a run pass. */
BNN_INLINE void direct_hold(const direct_work *work, const direct_tile *t, const int vectors, const int full) {
  const float *x[DIRECT_HELD];
  vf32 w[DIRECT_HELD][DIRECT_VECTORS];
  BNN_UNROLL
  for (int i = 0; i < DIRECT_HELD; i++) {
    x[i] = t->x + work->term[i].x;
    BNN_UNROLL
    for (int v = 0; v < vectors; v++)
      w[i][v] = direct_load(full, t->w + work->term[i].w + v * BNN_LANES, t->columns - v * BNN_LANES);
  }
  float *out = t->out;
  for (int64_t r = 0, at = 0; r < t->rows; r++, at += t->x_step, out += t->out_step) {
    vf32 sum[DIRECT_VECTORS];
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) sum[v] = v_set_f32(0);
    BNN_UNROLL
    for (int i = 0; i < DIRECT_HELD; i++) {
      vf32 b = v_set_f32(x[i][at]);
      BNN_UNROLL
      for (int v = 0; v < vectors; v++) sum[v] = v_fma_f32(w[i][v], b, sum[v]);
    }
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) direct_store(full, out + v * BNN_LANES, sum[v], t->columns - v * BNN_LANES);
  }
}

BNN_APART void direct_hold_tile(const direct_work *work, const direct_tile *t) {
  if (t->columns >= DIRECT_HALF)
    direct_hold(work, t, DIRECT_VECTORS / 2, 1);
  else if (t->columns > BNN_LANES)
    direct_hold(work, t, DIRECT_VECTORS / 2, 0);
  else
    direct_hold(work, t, 1, 0);
}

static void direct_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  direct_work work = {.product = p, .term = scratch};
  while (begin < end) {
    position_run run = position_next(p->schedule, begin, end, end - begin);
    begin += run.count;
    direct_list(&work, run.class_);
    const int held = work.valid == DIRECT_HELD && work.terms == DIRECT_HELD;
    const int64_t tiled = held ? p->columns / DIRECT_WIDE * DIRECT_WIDE : p->columns;
    for (work.group = 0; work.group < p->groups; work.group++) {
      const float *w = (const float *)p->right + work.group * p->columns;
      float *out = (float *)p->out + direct_target(&work, &run);
      direct_tile tile = {.x = direct_source(&work, &run),
                          .constant = p->constant,
                          .x_step = run.source_step * p->groups * p->depth,
                          .out_step = run.target_step * p->groups * p->columns,
                          .rows = run.count};
      for (int64_t column = tiled; column < p->columns; column += DIRECT_HALF) {
        tile.w = w + column;
        tile.out = out + column;
        tile.columns = p->columns - column;
        direct_hold_tile(&work, &tile);
      }
      for (int64_t left = tiled ? run.count : 0; left > 0; left -= DIRECT_ROWS) {
        tile.rows = left < DIRECT_ROWS ? left : DIRECT_ROWS;
        for (int64_t column = 0; column < tiled; column += direct_width(p->columns - column)) {
          tile.w = w + column;
          tile.out = out + column;
          tile.columns = p->columns - column;
          direct_sum_tile(&work, &tile);
        }
        tile.x += DIRECT_ROWS * tile.x_step;
        out += DIRECT_ROWS * tile.out_step;
      }
    }
  }
}

/* ---- kernel gradient ------------------------------------------------------------------------------------------- */

/* Some positions, by the columns from one on. */
typedef struct {
  position_run run[DIRECT_RUNS];
  int64_t runs, column;
  float *out;
  const float *ahead, *end; /* what is left of dy of the next block: each position of a tile asks for a line of it */
} direct_block;

/* Adds the sums of `used` terms over a block to its results, for some vectors of columns. The source of a padded term
 * stays where it is: `follow` is 0. */
BNN_INLINE void direct_reduce_tile(const int rows, const int vectors, const int full, const direct_work *work,
                                   const direct_block *block, const direct_term *term, int64_t used, int64_t follow) {
  const bnn_product *p = work->product;
  const int64_t left = p->columns - block->column;
  const float *ahead = block->ahead;
  const int64_t step = block->ahead < block->end ? DIRECT_LINE : 0;
  vf32 sum[DIRECT_HELD][DIRECT_VECTORS];
  BNN_UNROLL
  for (int r = 0; r < rows; r++) {
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) sum[r][v] = v_set_f32(0);
  }
  for (const position_run *run = block->run, *end = run + block->runs; run < end; run++) {
    const float *source = follow ? direct_source(work, run) : p->constant, *x[DIRECT_HELD];
    const float *dy = (const float *)p->right + direct_target(work, run) + block->column;
    const int64_t x_step = follow * run->source_step * p->groups * p->depth;
    const int64_t dy_step = run->target_step * p->groups * p->columns;
    BNN_UNROLL
    for (int r = 0; r < rows; r++) x[r] = source + term[r < used ? r : 0].x;
    for (int64_t i = 0, at = 0; i < run->count; i++, at += x_step, dy += dy_step) {
      vf32 a[DIRECT_VECTORS];
      fetch_ahead(ahead, 1);
      ahead += step;
      BNN_UNROLL
      for (int v = 0; v < vectors; v++) a[v] = direct_load(full, dy + v * BNN_LANES, left - v * BNN_LANES);
      BNN_UNROLL
      for (int r = 0; r < rows; r++) {
        vf32 b = v_set_f32(x[r][at]);
        BNN_UNROLL
        for (int v = 0; v < vectors; v++) sum[r][v] = v_fma_f32(a[v], b, sum[r][v]);
      }
    }
  }
  BNN_UNROLL
  for (int r = 0; r < rows; r++) {
    if (r == used) break;
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) {
      float *to = block->out + term[r].w + block->column + v * BNN_LANES;
      int64_t here = left - v * BNN_LANES;
      direct_store(full, to, v_add_f32(direct_load(full, to, here), sum[r][v]), here);
    }
  }
}

static void direct_reduce_terms(const direct_work *work, direct_block *block, int64_t first, int64_t end,
                                int64_t follow) {
  const int64_t left = work->product->columns - block->column, most = left >= DIRECT_WIDE ? DIRECT_ROWS : DIRECT_HELD;
  for (int64_t used; first < end; first += used, block->ahead += DIRECT_BLOCK * DIRECT_LINE) {
    const direct_term *term = work->term + first;
    used = end - first < most ? end - first : most;
    if (left >= DIRECT_WIDE && used > DIRECT_ROWS / 2)
      direct_reduce_tile(DIRECT_ROWS, DIRECT_VECTORS, 1, work, block, term, used, follow);
    else if (left >= DIRECT_WIDE)
      direct_reduce_tile(DIRECT_ROWS / 2, DIRECT_VECTORS, 1, work, block, term, used, follow);
    else if (left >= DIRECT_HALF && used > DIRECT_ROWS)
      direct_reduce_tile(DIRECT_HELD, DIRECT_VECTORS / 2, 1, work, block, term, used, follow);
    else if (left >= DIRECT_HALF)
      direct_reduce_tile(DIRECT_ROWS, DIRECT_VECTORS / 2, 1, work, block, term, used, follow);
    else if (left > BNN_LANES)
      direct_reduce_tile(DIRECT_HELD, DIRECT_VECTORS / 2, 0, work, block, term, used, follow);
    else
      direct_reduce_tile(DIRECT_HELD, 1, 0, work, block, term, used, follow);
  }
}

static void direct_reduce_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  direct_work work = {.product = p, .term = scratch};
  int64_t parts = position_parts(p), all = positions_of(p);
  int64_t size = p->schedule->taps * p->depth * p->groups * p->columns;
  for (int64_t part = begin; part < end; part++) {
    float *sums = (float *)p->out + part * size;
    for (int64_t i = 0; i < size; i++) sums[i] = 0;
    int64_t item = all * part / parts, stop = all * (part + 1) / parts;
    while (item < stop) {
      direct_block block = {.runs = 0};
      int64_t room = DIRECT_BLOCK;
      do {
        position_run *run = &block.run[block.runs];
        *run = position_next(p->schedule, item, stop, room);
        if (run->class_ != block.run->class_) break;
        item += run->count;
        room -= run->count;
      } while (++block.runs < DIRECT_RUNS && room > 0 && item < stop);
      direct_list(&work, block.run->class_);
      for (work.group = 0; work.group < p->groups; work.group++) {
        block.out = sums + work.group * p->columns;
        block.ahead = (const float *)p->right + direct_target(&work, block.run) + DIRECT_BLOCK * p->groups * p->columns;
        block.end = block.ahead + DIRECT_BLOCK * p->groups * p->columns;
        for (block.column = 0; block.column < p->columns;
             block.column += p->columns - block.column < DIRECT_WIDE ? DIRECT_HALF : DIRECT_WIDE) {
          direct_reduce_terms(&work, &block, 0, work.valid, 1);
          direct_reduce_terms(&work, &block, work.valid, work.terms, 0);
        }
      }
    }
  }
}
