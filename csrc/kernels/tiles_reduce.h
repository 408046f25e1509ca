/* signed_reduce with tiles: dy in fixed point, as three or four limbs that are signed bytes, times signs.
 *
 * Order of a sum, and so its bits: positions as in signed_reduce.h, in chunks of TILES_CHUNK steps of TILES_STEP
 * positions (TILES_PART where a product has more steps than a chunk), a class beginning a step of its own. In a chunk a
 * column of dy (a filter) is rounded to multiples of a power of two, which leaves its greatest magnitude 22 bits or a
 * little less than 23, or 8 more with four limbs. From there the sum over the chunk is of integers, and exact: the
 * order in which tiles take positions does not matter. The limbs are joined in float, the highest first, and the chunks
 * added in order. With m the greatest magnitude of a column and n positions, the error is below
 *
 *   n m 2^-23 + 3 * 2^-24 |sum of a chunk| for each chunk + number of chunks * 2^-24 (sum of magnitudes).
 *
 * Roundings are as often up as down, so the first is rather sqrt(n) m 2^-24. A tile of 16 columns takes three limbs
 * where m^2 <= TILES_LIMIT * mean(dy^2) in each of them, which keeps this below the error of a blocked sum of floats;
 * and four otherwise. A tile with a column that is not finite, or so small that its scale is not, takes the register
 * tables instead. */

#define TILES_SIDE 16                 /* rows of a tile, and columns of sums */
#define TILES_STEP 64                 /* positions that one product of tiles sums up */
#define TILES_BYTES (TILES_SIDE * 64) /* of a tile */
#define TILES_CELLS (TILES_SIDE * 16) /* sums in a tile */
#define TILES_CHUNK 64
#define TILES_PART 32
#define TILES_COLUMNS 256 /* most columns in a pass, of a chunk so short that their limbs stay in the second cache */
#define TILES_PART_COLUMNS 64 /* columns in a pass whatever the chunk */
#define TILES_LEFT 16         /* steps of signs, in the first cache */
#define TILES_LIMBS 4         /* at most */
#define TILES_LIMIT 64.0f
#define TILES_CONSTANT INT64_MIN /* the offset of a padded tap */

typedef struct {
  int64_t words, units, steps;  /* as in signed_reduce_plan; of positions, padded to whole steps */
  int64_t chunk, columns;       /* steps and columns of a pass */
  int64_t width, blocks, parts; /* columns of an item; how many of them, and parts of the units */
} tiles_reduce_plan;

/* What a chunk has of a tap. */
typedef struct {
  int64_t steps;
  int32_t step[TILES_CHUNK];
  int64_t offset[TILES_CHUNK]; /* of its sources, in words */
  int begun;                   /* whether an earlier chunk had any */
} tiles_tap;

/* A pass: some units by at most TILES_COLUMNS columns of a group. The panels are the limbs of all tiles of columns. */
typedef struct {
  const bnn_product *product;
  tiles_reduce_plan plan;
  int64_t group, column, columns;
  int64_t tiles, panels;
  int limbs[TILES_COLUMNS / TILES_SIDE];  /* of a tile of columns, in this chunk */
  int refuse[TILES_COLUMNS / TILES_SIDE]; /* it takes the tables */
  int64_t first[TILES_COLUMNS / TILES_SIDE];
  float step[TILES_COLUMNS]; /* what an integer counts */
  tiles_tap *taps;
  int64_t *source, *dy; /* [chunk * TILES_STEP] in words and floats, of dy -1 where a step is only filled up */
  int8_t *left;         /* signs: [TILES_LEFT][2][channels][positions] */
  int8_t *right;        /* [panels][chunk][positions / 4][columns][4] */
  int32_t *sums;        /* of a unit: [panels][2][channels][columns] */
} tiles_reduction;

static int64_t tiles_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

static tiles_reduce_plan tiles_plan_reduce(const bnn_product *p) {
  const bnn_schedule *s = p->schedule;
  tiles_reduce_plan plan = {.words = bnn_words(p->depth)};
  plan.units = s->taps * plan.words;
  for (int64_t c = 0; c < s->classes; c++)
    if (s->class_[c].valid + s->class_[c].padded) plan.steps += tiles_ceil(s->class_[c].count * p->images, TILES_STEP);
  plan.chunk = plan.steps;
  plan.columns = TILES_COLUMNS;
  while (plan.columns > TILES_PART_COLUMNS && plan.columns * plan.steps > TILES_PART_COLUMNS * TILES_CHUNK)
    plan.columns /= 2;
  if (plan.steps > TILES_CHUNK) plan.chunk = TILES_PART;
  plan.width = plan.columns;
  while (plan.width > 2 * TILES_SIDE && p->groups * tiles_ceil(p->columns, plan.width) < 4) plan.width /= 2;
  plan.blocks = tiles_ceil(p->columns, plan.width);
  plan.parts = p->groups * plan.blocks < 4 ? tiles_ceil(4, p->groups * plan.blocks) : 1;
  if (plan.parts > plan.units) plan.parts = plan.units;
  return plan;
}

/* Whether tiles gain. */
static int tiles_gain(const bnn_product *p, const tiles_reduce_plan *plan) {
  (void)p;
  return plan->steps > 0;
}

static int64_t tiles_reduce_items(const bnn_product *p) {
  tiles_reduce_plan plan = tiles_plan_reduce(p);
  return tiles_gain(p, &plan) ? p->groups * plan.blocks * plan.parts : signed_reduce_items(p);
}

/* Lays out the scratch of a pass; how many bytes. */
static size_t tiles_lay_out(tiles_reduction *work, char *scratch) {
  const tiles_reduce_plan *plan = &work->plan;
  size_t panels = (size_t)plan->columns / TILES_SIDE * TILES_LIMBS, chunk = (size_t)plan->chunk;
  size_t taps = (size_t)work->product->schedule->taps;
  char *at = scratch;
#define TILES_TAKE(member, count) \
  work->member = (void *)at;      \
  at += ((count) * sizeof *work->member + BNN_ALIGN - 1) / BNN_ALIGN * BNN_ALIGN
  TILES_TAKE(left, TILES_LEFT * 2 * TILES_BYTES);
  TILES_TAKE(right, panels * chunk * TILES_BYTES);
  TILES_TAKE(sums, panels * 2 * TILES_CELLS);
  TILES_TAKE(taps, taps);
  TILES_TAKE(source, chunk * TILES_STEP);
  TILES_TAKE(dy, chunk * TILES_STEP);
#undef TILES_TAKE
  return (size_t)(at - scratch);
}

static size_t tiles_reduce_scratch(const bnn_product *p) {
  tiles_reduction work = {.product = p, .plan = tiles_plan_reduce(p)};
  size_t tables = signed_reduce_scratch(p), tiles = tiles_gain(p, &work.plan) ? tiles_lay_out(&work, NULL) : 0;
  return tables > tiles ? tables : tiles;
}

/* ---- a chunk of positions ---------------------------------------------------------------------------------------- */

static int64_t tiles_taps(const bnn_class *class_) { return class_->valid + class_->padded; }

/* Fills the next chunk from position `at` of class `c`, both advanced; how many steps it has. */
static int64_t tiles_fill(tiles_reduction *work, int64_t *c, int64_t *at) {
  const bnn_product *p = work->product;
  const bnn_schedule *s = p->schedule;
  const int64_t stride = p->groups * work->plan.words, row = p->groups * p->columns;
  int64_t step = 0;
  for (tiles_tap *tap = work->taps; tap < work->taps + s->taps; tap++) {
    tap->begun |= tap->steps > 0;
    tap->steps = 0;
  }
  while (*c < s->classes && step < work->plan.chunk) {
    const bnn_class *class_ = s->class_ + *c;
    int64_t left = tiles_taps(class_) ? class_->count * p->images - *at : 0;
    int64_t room = (work->plan.chunk - step) * TILES_STEP, count = left < room ? left : room;
    if (count) {
      int64_t image = *at / class_->count, position = class_->first + *at % class_->count;
      int64_t slot = step * TILES_STEP, end = slot + count, steps = tiles_ceil(count, TILES_STEP);
      for (; slot < end; slot++, position++) {
        if (position == class_->first + class_->count) {
          position = class_->first;
          image++;
        }
        work->source[slot] = (image * s->sources + s->base[position]) * stride;
        work->dy[slot] = (image * s->pixels + s->pixel[position]) * row;
      }
      for (; slot % TILES_STEP; slot++) {
        work->source[slot] = work->source[slot - 1];
        work->dy[slot] = -1;
      }
      for (int64_t i = 0; i < tiles_taps(class_); i++) {
        tiles_tap *tap = work->taps + class_->tap[i];
        for (int64_t j = 0; j < steps; j++, tap->steps++) {
          tap->step[tap->steps] = (int32_t)(step + j);
          tap->offset[tap->steps] = i < class_->valid ? class_->offset[i] * stride : TILES_CONSTANT;
        }
      }
      step += steps;
      *at += count;
    }
    if (count == left) {
      ++*c;
      *at = 0;
    }
  }
  return step;
}

/* Maxima and sums of squares, over the chunk, of `tiles` tiles of columns. */
BNN_INLINE void tiles_measure_columns(const tiles_reduction *work, int64_t slots, int64_t first, const int tiles,
                                      const int whole, float *maxima, float *squares) {
  const bnn_product *p = work->product;
  const float *dy = (const float *)p->right + work->group * p->columns + work->column + first;
  const vu32 magnitude = v_set(0x7fffffff);
  vf32 maximum[TILES_PART_COLUMNS / BNN_LANES], square[TILES_PART_COLUMNS / BNN_LANES];
  for (int t = 0; t < tiles; t++) maximum[t] = square[t] = v_set_f32(0);
  for (int64_t slot = 0; slot < slots; slot++) {
    if (work->dy[slot] < 0) continue;
    const float *row = dy + work->dy[slot];
    for (int t = 0; t < tiles; t++) {
      vf32 x = whole ? v_load_f32(row + t * BNN_LANES) : v_load_part_f32(row + t * BNN_LANES, work->columns - first);
      vf32 size = v_as_float(v_and(v_bits_of(x), magnitude));
      square[t] = v_fma_f32(x, x, square[t]);
      maximum[t] = v_choose_f32(v_less_f32(maximum[t], size), size, maximum[t]);
    }
  }
  for (int t = 0; t < tiles; t++) {
    v_store_f32(maxima + t * BNN_LANES, maximum[t]);
    v_store_f32(squares + t * BNN_LANES, square[t]);
  }
}

/* The limbs that a tile of columns needs; 0 where it needs the tables. NaN is in no maximum, but in the squares. */
static int tiles_limbs(const float *maxima, const float *squares, float count) {
  float limit = count / 4 < TILES_LIMIT ? count / 4 : TILES_LIMIT;
  int limbs = 3;
  for (int64_t n = 0; n < TILES_SIDE; n++) {
    float m = maxima[n];
    if (squares[n] != squares[n] || !(m <= 0x1.fffffep127f) || (m > 0 && m < 0x1p-90f)) return 0;
    int plain = m == 0 || (m >= 0x1p-50f && m <= 0x1p50f && m * m * count <= limit * squares[n]);
    if (!plain) limbs = 4;
  }
  return limbs;
}

/* dy of the chunk as limbs, of `tiles` tiles of columns from `first`. */
BNN_INLINE void tiles_split(tiles_reduction *work, int64_t slots, int64_t first, const int tiles, const int whole) {
  static const float zeros[TILES_PART_COLUMNS] = {0};
  const bnn_product *p = work->product;
  const float *dy = (const float *)p->right + work->group * p->columns + work->column + first * TILES_SIDE;
  const int64_t panel = work->plan.chunk * TILES_BYTES, columns = work->columns - first * TILES_SIDE;
  const vu32 middle = v_set(0x80808080);
  float maxima[TILES_PART_COLUMNS], squares[TILES_PART_COLUMNS];
  vf32 scale[TILES_PART_COLUMNS / TILES_SIDE];
  int limbs[TILES_PART_COLUMNS / TILES_SIDE];
  int8_t *out[TILES_PART_COLUMNS / TILES_SIDE];

  tiles_measure_columns(work, slots, first * TILES_SIDE, tiles, whole, maxima, squares);
  for (int t = 0; t < tiles; t++) {
    if (!(limbs[t] = tiles_limbs(maxima + t * TILES_SIDE, squares + t * TILES_SIDE, (float)slots)))
      work->refuse[first + t] = 1;
    if (work->refuse[first + t]) limbs[t] = 0;
    work->limbs[first + t] = limbs[t];
    work->first[first + t] = work->panels;
    out[t] = work->right + work->panels * panel;
    work->panels += limbs[t];
    /* A little more than the maximum is below 2^(exponent - 126): the highest limb then has room. */
    uint32_t exponent[TILES_SIDE];
    v_store(exponent, v_bits_of(v_mul_f32(v_load_f32(maxima + t * TILES_SIDE), v_set_f32(1.004f))));
    for (int64_t i = 0; i < TILES_SIDE; i++)
      exponent[i] = (exponent[i] ? (exponent[i] >> 23) + 2 - 8 * (uint32_t)limbs[t] : 127) << 23;
    v_store_f32(work->step + (first + t) * TILES_SIDE, v_as_float(v_load(exponent)));
    scale[t] = v_as_float(v_sub(v_set(254u << 23), v_load(exponent)));
  }

  for (int64_t slot = 0; slot < slots; slot += 4) {
    const float *row[4];
    for (int i = 0; i < 4; i++) row[i] = work->dy[slot + i] < 0 ? zeros : dy + work->dy[slot + i];
    for (int t = 0; t < tiles; t++) {
      vu32 x[4];
      if (!limbs[t]) continue;
      for (int i = 0; i < 4; i++) {
        vf32 value = whole ? v_load_f32(row[i] + t * TILES_SIDE) : v_load_part_f32(row[i] + t * TILES_SIDE, columns);
        x[i] = v_xor(v_add(v_nearest(v_mul_f32(value, scale[t])), middle), middle); /* limbs of -128 to 127 */
      }
      v_turn_bytes(x);
      int8_t *to = out[t] + slot * TILES_SIDE;
      for (int i = 0; i < 3; i++) v_store(to + i * panel, x[i]);
      if (limbs[t] > 3) v_store(to + 3 * panel, x[3]);
    }
  }
}

static void tiles_split_all(tiles_reduction *work, int64_t steps) {
  enum { MOST = TILES_PART_COLUMNS / TILES_SIDE };
  work->panels = 0;
  for (int64_t t = 0; t < work->tiles;)
    if (work->columns - t * TILES_SIDE >= TILES_PART_COLUMNS) {
      tiles_split(work, steps * TILES_STEP, t, MOST, 1);
      t += MOST;
    } else
      tiles_split(work, steps * TILES_STEP, t++, 1, 0);
}

/* Signs of a unit in `count` steps from `first` of its tap. */
static void tiles_signs(const tiles_reduction *work, int64_t unit, int64_t first, int64_t count) {
  const bnn_product *p = work->product;
  const tiles_tap *tap = work->taps + unit / work->plan.words;
  int64_t word = unit % work->plan.words;
  const uint32_t *left = (const uint32_t *)p->left + work->group * work->plan.words + word;
  int8_t *out = work->left;
  for (int64_t i = first; i < first + count; i++) {
    const int64_t *source = work->source + tap->step[i] * TILES_STEP;
    uint32_t words[TILES_STEP];
    uint64_t turned[BNN_WORD];
    if (tap->offset[i] == TILES_CONSTANT)
      for (int64_t j = 0; j < TILES_STEP; j++) words[j] = ((const uint32_t *)p->constant)[word];
    else
      for (int64_t j = 0; j < TILES_STEP; j++) words[j] = left[source[j] + tap->offset[i]];
    v_turn_bits(words, turned);
    for (int64_t k = 0; k < BNN_WORD; k++, out += TILES_STEP) v_store_signs(out, turned[k]);
  }
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

/* Adds to the sums of `rows` halves of a unit and `columns` panels. */
BNN_INLINE void tiles_multiply(const int8_t *left, const int8_t *right, int64_t panel, const int32_t *step,
                               int64_t steps, int32_t *sums, int add, const int rows, const int columns) {
  if (add) {
    t_load(0, sums, 64);
    if (rows > 1) t_load(1, sums + TILES_CELLS, 64);
    if (columns > 1) t_load(2, sums + 2 * TILES_CELLS, 64);
    if (rows > 1 && columns > 1) t_load(3, sums + 3 * TILES_CELLS, 64);
  } else {
    t_zero(0);
    t_zero(1);
    t_zero(2);
    t_zero(3);
  }
  for (int64_t i = 0; i < steps; i++, left += 2 * TILES_BYTES) {
    const int8_t *dy = right + step[i] * TILES_BYTES;
    t_load(4, left, 64);
    t_load(6, dy, 64);
    t_dot(0, 4, 6);
    if (rows > 1) {
      t_load(5, left + TILES_BYTES, 64);
      t_dot(1, 5, 6);
    }
    if (columns > 1) {
      t_load(7, dy + panel, 64);
      t_dot(2, 4, 7);
      if (rows > 1) t_dot(3, 5, 7);
    }
  }
  t_store(0, sums, 64);
  if (rows > 1) t_store(1, sums + TILES_CELLS, 64);
  if (columns > 1) t_store(2, sums + 2 * TILES_CELLS, 64);
  if (rows > 1 && columns > 1) t_store(3, sums + 3 * TILES_CELLS, 64);
}

static int64_t tiles_channels(const tiles_reduction *work, int64_t unit) {
  int64_t channels = work->product->depth - unit % work->plan.words * BNN_WORD;
  return channels < BNN_WORD ? channels : BNN_WORD;
}

/* The sums of a unit over the chunk. */
static void tiles_accumulate(const tiles_reduction *work, int64_t unit) {
  const tiles_tap *tap = work->taps + unit / work->plan.words;
  const int64_t panel = work->plan.chunk * TILES_BYTES;
  const int both = tiles_channels(work, unit) > TILES_SIDE;
  for (int64_t i = 0; i < tap->steps; i += TILES_LEFT) {
    int64_t steps = tap->steps - i < TILES_LEFT ? tap->steps - i : TILES_LEFT, n = 0;
    tiles_signs(work, unit, i, steps);
    for (; n + 2 <= work->panels; n += 2) {
      const int8_t *right = work->right + n * panel;
      int32_t *sums = work->sums + n * 2 * TILES_CELLS;
      if (both)
        tiles_multiply(work->left, right, panel, tap->step + i, steps, sums, i > 0, 2, 2);
      else
        tiles_multiply(work->left, right, panel, tap->step + i, steps, sums, i > 0, 1, 2);
    }
    if (n < work->panels)
      tiles_multiply(work->left, work->right + n * panel, panel, tap->step + i, steps, work->sums + n * 2 * TILES_CELLS,
                     i > 0, 2, 1);
  }
}

/* Joins the limbs of a unit's sums, and adds them to the result or begins it. */
static void tiles_join(const tiles_reduction *work, int64_t unit) {
  const bnn_product *p = work->product;
  const int add = work->taps[unit / work->plan.words].begun;
  const int32_t *sums = work->sums;
  float *out;
  int64_t channels = signed_result(p, work->group, unit, work->column, &out);
  for (int64_t k = 0; k < channels; k++, sums += TILES_SIDE, out += signed_result_stride(p))
    for (int64_t t = 0; t < work->tiles; t++) {
      const int64_t n = t * TILES_SIDE, columns = work->columns - n;
      const int32_t *limb = sums + work->first[t] * 2 * TILES_CELLS;
      if (!work->limbs[t]) continue;
      vf32 sum = v_float(v_load(limb + 2 * 2 * TILES_CELLS));
      if (work->limbs[t] > 3) sum = v_fma_f32(v_float(v_load(limb + 3 * 2 * TILES_CELLS)), v_set_f32(256), sum);
      sum = v_fma_f32(sum, v_set_f32(256), v_float(v_load(limb + 2 * TILES_CELLS)));
      sum = v_fma_f32(sum, v_set_f32(256), v_float(v_load(limb)));
      sum = v_mul_f32(sum, v_load_f32(work->step + n));
      if (add) sum = v_add_f32(v_load_part_f32(out + n, columns), sum);
      v_store_part_f32(out + n, sum, columns);
    }
}

/* What no position has. */
static void tiles_clear(const tiles_reduction *work, int64_t unit) {
  const bnn_product *p = work->product;
  float *out;
  int64_t channels = signed_result(p, work->group, unit, work->column, &out);
  for (int64_t k = 0; k < channels; k++, out += signed_result_stride(p))
    for (int64_t n = 0; n < work->columns; n++) out[n] = 0;
}

/* The columns that tiles don't take, after all that needs the scratch. */
static void tiles_look_up(const tiles_reduction *work, int64_t first, int64_t end, void *scratch) {
  const bnn_product *p = work->product;
  signed_reduction tables = {.product = p,
                             .plan = signed_plan_reduce(p),
                             .group = work->group,
                             .areas = scratch,
                             .taps = (signed_tap *)((char *)scratch + signed_reduce_areas(p))};
  for (int64_t t = 0, next; t < work->tiles; t = next) {
    for (next = t + 1; next < work->tiles && work->refuse[next] == work->refuse[t]; next++) continue;
    if (!work->refuse[t]) continue;
    int64_t end_column = next * TILES_SIDE < work->columns ? next * TILES_SIDE : work->columns;
    for (int64_t column = t * TILES_SIDE; column < end_column; column += SIGNED_COLUMNS)
      for (int64_t unit = first; unit < end; unit += SIGNED_UNITS) {
        tables.column = work->column + column;
        tables.columns = end_column - column < SIGNED_COLUMNS ? end_column - column : SIGNED_COLUMNS;
        tables.first_unit = unit;
        tables.end_unit = end - unit < SIGNED_UNITS ? end : unit + SIGNED_UNITS;
        signed_reduce_pass(&tables);
      }
  }
}

static void tiles_pass(tiles_reduction *work, int64_t first, int64_t end) {
  const bnn_schedule *s = work->product->schedule;
  for (int64_t t = 0; t < work->tiles; t++) work->refuse[t] = 0;
  for (int64_t tap = 0; tap < s->taps; tap++) work->taps[tap].begun = 0, work->taps[tap].steps = 0;
  for (int64_t c = 0, at = 0, steps; (steps = tiles_fill(work, &c, &at)) > 0;) {
    tiles_split_all(work, steps);
    for (int64_t unit = first; unit < end; unit++)
      if (work->taps[unit / work->plan.words].steps) {
        tiles_accumulate(work, unit);
        tiles_join(work, unit);
      }
  }
  for (int64_t unit = first; unit < end; unit++)
    if (!work->taps[unit / work->plan.words].begun) tiles_clear(work, unit);
}

static void tiles_reduce_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  tiles_reduction work = {.product = p, .plan = tiles_plan_reduce(p)};
  const tiles_reduce_plan *plan = &work.plan;
  if (!tiles_gain(p, plan)) {
    signed_reduce_run(p, begin, end, scratch);
    return;
  }
  tiles_lay_out(&work, scratch);
  t_begin();
  while (begin < end) {
    int64_t part = begin % plan->parts, block = begin / plan->parts % plan->blocks;
    int64_t parts = plan->parts - part < end - begin ? plan->parts - part : end - begin;
    int64_t blocks = plan->parts == 1 ? plan->columns / plan->width : 1; /* as many as share their signs */
    if (blocks > plan->blocks - block) blocks = plan->blocks - block;
    if (blocks > end - begin) blocks = end - begin;
    work.group = begin / (plan->parts * plan->blocks);
    begin += plan->parts == 1 ? blocks : parts;

    work.column = block * plan->width;
    work.columns = p->columns - work.column < blocks * plan->width ? p->columns - work.column : blocks * plan->width;
    work.tiles = tiles_ceil(work.columns, TILES_SIDE);
    int64_t units = tiles_ceil(plan->units, plan->parts), unit = part * units, last = unit + parts * units;
    if (last > plan->units) last = plan->units;
    tiles_pass(&work, unit, last);
    tiles_look_up(&work, unit, last, scratch);
  }
  t_end();
}
