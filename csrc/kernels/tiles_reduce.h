/* signed_reduce with tiles: dy in fixed point, as three or four limbs that are signed bytes, times signs.
 *
 * A column of dy (one filter, all images and positions) is rounded to multiples of a power of two that leaves its
 * greatest magnitude 22 to 23 bits with three limbs and 30 to 31 with four. From there all sums are integers and exact,
 * so that the order of the positions, tiles and threads do not matter: the bits of a result depend on its column of dy
 * alone, and on the limbs of its tile of 16 columns. At the end the limbs of a sum are joined in float, the highest
 * first. With n positions that have the tap, the error is below
 *
 *   n 2^-23 max / 256^(limbs - 3) + 4 * 2^-24 |result|,   and about sqrt(n) 2^-24 of the former unless dy conspires.
 *
 * The number of limbs is the least for which max^2 / mean(dy^2) <= min(LIMIT, n / 4) 65536^(limbs - 3), where the mean
 * is over the positions that have a tap, for each tap: then the error is about that of a blocked sum of floats. Columns
 * for which four are too few, or that hold what is not finite, or whose squares a float cannot hold, take the register
 * tables, with the other columns of their tile. */

#define TILES_SIDE 16                 /* rows of a tile, and columns of sums */
#define TILES_STEP 64                 /* positions that one product of tiles sums up */
#define TILES_BYTES (TILES_SIDE * 64) /* of a tile */
#define TILES_CELLS (TILES_SIDE * 16) /* sums in a tile */
#define TILES_COLUMNS 256             /* most columns in a pass */
#define TILES_CHUNK 64                /* most steps that are all of a product */
#define TILES_PART 32                 /* steps at a time of a longer one, */
#define TILES_PART_COLUMNS 64         /* with so many columns */
#define TILES_PART_UNITS 36           /* and units, whose sums stay in the second cache */
#define TILES_LEFT 16                 /* steps of signs, in the first cache */
#define TILES_LIMBS 4                 /* at most */
#define TILES_LIMIT 64.0f
#define TILES_CONSTANT INT64_MIN /* the offset of a padded tap */

typedef struct {
  int64_t words, units, steps;  /* as in signed_reduce_plan; of positions, padded to whole steps */
  int64_t chunk, columns, most; /* steps, columns and units of a pass */
  int64_t width, blocks, parts; /* columns of an item; how many of them, and parts of the units */
} tiles_plan;

/* What a chunk has of a tap. */
typedef struct {
  int64_t steps;
  int32_t step[TILES_CHUNK];
  int64_t offset[TILES_CHUNK]; /* of its sources, in words */
} tiles_tap;

/* A pass: some units by at most TILES_COLUMNS columns of a group. The panels are the limbs of all tiles of columns. */
typedef struct {
  const bnn_product *product;
  tiles_plan plan;
  int64_t group, column, columns;
  int64_t tiles, panels;
  int limbs[TILES_COLUMNS / TILES_SIDE]; /* of a tile of columns; 0: not with tiles */
  int64_t first[TILES_COLUMNS / TILES_SIDE];
  float scale[TILES_COLUMNS], step[TILES_COLUMNS]; /* integers per unit, and the inverse */
  float *squares, *counts;                         /* [taps][TILES_PART_COLUMNS]; [taps] positions */
  tiles_tap *taps;
  int64_t *source, *dy; /* [chunk * TILES_STEP] in words and floats, of dy -1 where a step is only filled up */
  int8_t *left;         /* signs: [TILES_LEFT][2][channels][positions] */
  int8_t *right;        /* [panels][chunk][positions / 4][columns][4] */
  int32_t *sums;        /* [units][panels][2][channels][columns] */
  uint8_t *begun;       /* [units] */
} tiles_reduction;

static int64_t tiles_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

static tiles_plan tiles_plan_reduce(const bnn_product *p) {
  const bnn_schedule *s = p->schedule;
  tiles_plan plan = {.words = bnn_words(p->depth)};
  plan.units = s->taps * plan.words;
  for (int64_t c = 0; c < s->classes; c++)
    if (s->class_[c].valid + s->class_[c].padded) plan.steps += tiles_ceil(s->class_[c].count * p->images, TILES_STEP);
  plan.chunk = plan.steps;
  plan.columns = TILES_COLUMNS;
  plan.most = plan.units;
  while (plan.columns > TILES_PART_COLUMNS && plan.columns * plan.steps > TILES_PART_COLUMNS * TILES_CHUNK)
    plan.columns /= 2;
  if (plan.steps > TILES_CHUNK) {
    plan.chunk = TILES_PART;
    if (plan.most > TILES_PART_UNITS) plan.most = TILES_PART_UNITS;
  }
  plan.width = plan.columns;
  while (plan.width > 2 * TILES_SIDE && p->groups * tiles_ceil(p->columns, plan.width) < 4) plan.width /= 2;
  plan.blocks = tiles_ceil(p->columns, plan.width);
  plan.parts = p->groups * plan.blocks < 4 ? tiles_ceil(4, p->groups * plan.blocks) : 1;
  if (plan.parts > plan.units) plan.parts = plan.units;
  return plan;
}

/* Whether tiles gain. */
static int tiles_gain(const bnn_product *p, const tiles_plan *plan) {
  (void)p;
  return plan->steps > 0;
}

static int64_t tiles_reduce_items(const bnn_product *p) {
  tiles_plan plan = tiles_plan_reduce(p);
  return tiles_gain(p, &plan) ? p->groups * plan.blocks * plan.parts : signed_reduce_items(p);
}

/* Lays out the scratch of a pass; how many bytes. */
static size_t tiles_lay_out(tiles_reduction *work, char *scratch) {
  const tiles_plan *plan = &work->plan;
  size_t panels = (size_t)plan->columns / TILES_SIDE * TILES_LIMBS, chunk = (size_t)plan->chunk;
  size_t units = plan->chunk == plan->steps ? 1 : (size_t)plan->most, taps = (size_t)work->product->schedule->taps;
  char *at = scratch;
#define TILES_TAKE(member, count) \
  work->member = (void *)at;      \
  at += ((count) * sizeof *work->member + BNN_ALIGN - 1) / BNN_ALIGN * BNN_ALIGN
  TILES_TAKE(left, TILES_LEFT * 2 * TILES_BYTES);
  TILES_TAKE(right, panels * chunk * TILES_BYTES);
  TILES_TAKE(sums, units * panels * 2 * TILES_CELLS);
  TILES_TAKE(squares, taps * TILES_PART_COLUMNS);
  TILES_TAKE(counts, taps);
  TILES_TAKE(taps, taps);
  TILES_TAKE(source, chunk * TILES_STEP);
  TILES_TAKE(dy, chunk * TILES_STEP);
  TILES_TAKE(begun, units);
#undef TILES_TAKE
  return (size_t)(at - scratch);
}

static size_t tiles_reduce_scratch(const bnn_product *p) {
  tiles_reduction work = {.product = p, .plan = tiles_plan_reduce(p)};
  size_t tables = signed_reduce_scratch(p), tiles = tiles_gain(p, &work.plan) ? tiles_lay_out(&work, NULL) : 0;
  return tables > tiles ? tables : tiles;
}

/* ---- the scale of a column -------------------------------------------------------------------------------------- */

static int64_t tiles_taps(const bnn_class *class_) { return class_->valid + class_->padded; }

/* Maxima, and for each tap the sums of squares over its positions, of `tiles` tiles of columns. */
BNN_INLINE void tiles_measure(const tiles_reduction *work, int64_t first, const int tiles, const int whole,
                              float *maxima) {
  const bnn_product *p = work->product;
  const bnn_schedule *s = p->schedule;
  const float *dy = (const float *)p->right + work->group * p->columns + work->column + first;
  const vu32 magnitude = v_set(0x7fffffff);
  const int64_t columns = work->columns - first;
  vf32 maximum[TILES_PART_COLUMNS / BNN_LANES];
  for (int t = 0; t < tiles; t++) maximum[t] = v_set_f32(0);
  for (int64_t i = 0; i < s->taps * TILES_PART_COLUMNS; i++) work->squares[i] = 0;
  for (const bnn_class *class_ = s->class_; class_ < s->class_ + s->classes; class_++) {
    if (!tiles_taps(class_)) continue;
    vf32 squares[TILES_PART_COLUMNS / BNN_LANES];
    for (int t = 0; t < tiles; t++) squares[t] = v_set_f32(0);
    for (int64_t image = 0; image < p->images; image++)
      for (int64_t i = class_->first; i < class_->first + class_->count; i++) {
        const float *row = dy + (image * s->pixels + s->pixel[i]) * p->groups * p->columns;
        for (int t = 0; t < tiles; t++) {
          vf32 x = whole ? v_load_f32(row + t * BNN_LANES) : v_load_part_f32(row + t * BNN_LANES, columns);
          vf32 size = v_as_float(v_and(v_bits_of(x), magnitude));
          squares[t] = v_fma_f32(x, x, squares[t]);
          maximum[t] = v_choose_f32(v_less_f32(maximum[t], size), size, maximum[t]);
        }
      }
    for (int64_t i = 0; i < tiles_taps(class_); i++)
      for (int t = 0; t < tiles; t++) {
        float *sum = work->squares + class_->tap[i] * TILES_PART_COLUMNS + t * BNN_LANES;
        v_store_f32(sum, v_add_f32(v_load_f32(sum), squares[t]));
      }
  }
  for (int t = 0; t < tiles; t++) v_store_f32(maxima + t * BNN_LANES, maximum[t]);
}

/* How many limbs a tile of columns needs; 0: tables. */
static int tiles_limbs(const tiles_reduction *work, const float *maxima, const float *squares) {
  int limbs = 3;
  for (int64_t n = 0; n < TILES_SIDE; n++) {
    float maximum = maxima[n];
    if (maximum == 0) continue;
    if (!(maximum >= 0x1p-50f && maximum <= 0x1p50f)) return 0;
    for (int64_t tap = 0; tap < work->product->schedule->taps; tap++) {
      float count = work->counts[tap], limit = count / 4 < TILES_LIMIT ? count / 4 : TILES_LIMIT;
      float has = maximum * maximum * count, may = limit * squares[tap * TILES_PART_COLUMNS + n];
      if (has <= may) continue;
      if (!(has <= 65536 * may)) return 0;
      limbs = 4;
    }
  }
  return limbs;
}

/* Limbs and scales of all columns, from the data of each alone. */
static void tiles_scale(tiles_reduction *work) {
  const bnn_product *p = work->product;
  const bnn_schedule *s = p->schedule;
  for (int64_t tap = 0; tap < s->taps; tap++) work->counts[tap] = 0;
  for (const bnn_class *class_ = s->class_; class_ < s->class_ + s->classes; class_++)
    for (int64_t i = 0; i < tiles_taps(class_); i++) work->counts[class_->tap[i]] += (float)(class_->count * p->images);

  const int64_t most = TILES_PART_COLUMNS / TILES_SIDE;
  work->panels = 0;
  for (int64_t t = 0, next; t < work->tiles; t = next) {
    float maxima[TILES_PART_COLUMNS];
    int64_t first = t * TILES_SIDE;
    if (work->columns - first >= TILES_PART_COLUMNS) {
      tiles_measure(work, first, TILES_PART_COLUMNS / TILES_SIDE, 1, maxima);
      next = t + most;
    } else {
      tiles_measure(work, first, 1, 0, maxima);
      next = t + 1;
    }
    for (; t < next; t++) {
      int64_t n = t * TILES_SIDE - first;
      int limbs = work->limbs[t] = tiles_limbs(work, maxima + n, work->squares + n);
      work->first[t] = work->panels;
      work->panels += limbs;
      if (!limbs) continue;
      /* A little more than the maximum is below 2^(exponent - 126): the highest limb then has room. */
      vu32 exponents = v_bits_of(v_mul_f32(v_load_f32(maxima + n), v_set_f32(1.004f)));
      uint32_t exponent[BNN_LANES];
      v_store(exponent, exponents);
      for (int64_t i = 0; i < TILES_SIDE; i++) {
        uint32_t inverse = maxima[n + i] ? (exponent[i] >> 23) + 2 - 8 * (uint32_t)limbs : 127;
        exponent[i] = inverse << 23;
      }
      v_store_f32(work->step + t * TILES_SIDE, v_as_float(v_load(exponent)));
      v_store_f32(work->scale + t * TILES_SIDE, v_as_float(v_sub(v_set(254u << 23), v_load(exponent))));
    }
  }
}

/* ---- a chunk of positions ---------------------------------------------------------------------------------------- */

/* Fills the next chunk from position `at` of class `c`, both advanced; how many steps it has. */
static int64_t tiles_fill(tiles_reduction *work, int64_t *c, int64_t *at) {
  const bnn_product *p = work->product;
  const bnn_schedule *s = p->schedule;
  const int64_t stride = p->groups * work->plan.words, row = p->groups * p->columns;
  int64_t step = 0;
  for (int64_t tap = 0; tap < s->taps; tap++) work->taps[tap].steps = 0;
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

/* dy of the chunk as limbs. */
static void tiles_split(const tiles_reduction *work, int64_t steps) {
  static const float zeros[TILES_COLUMNS] = {0};
  const bnn_product *p = work->product;
  const float *dy = (const float *)p->right + work->group * p->columns + work->column;
  const int64_t panel = work->plan.chunk * TILES_BYTES;
  const vu32 middle = v_set(0x80808080);
  for (int64_t slot = 0; slot < steps * TILES_STEP; slot += 4) {
    const float *row[4];
    for (int i = 0; i < 4; i++) row[i] = work->dy[slot + i] < 0 ? zeros : dy + work->dy[slot + i];
    for (int64_t t = 0; t < work->tiles; t++) {
      int8_t *out = work->right + work->first[t] * panel + slot * TILES_SIDE;
      const int64_t n = t * TILES_SIDE, columns = work->columns - n;
      const vf32 scale = v_load_f32(work->scale + n);
      vu32 x[4];
      if (!work->limbs[t]) continue;
      for (int i = 0; i < 4; i++) {
        vf32 value = columns < TILES_SIDE ? v_load_part_f32(row[i] + n, columns) : v_load_f32(row[i] + n);
        x[i] = v_xor(v_add(v_round_f32(v_mul_f32(value, scale)), middle), middle); /* each limb from -128 to 127 */
      }
      v_turn_bytes(x);
      for (int i = 0; i < 3; i++) v_store(out + i * panel, x[i]);
      if (work->limbs[t] > 3) v_store(out + 3 * panel, x[3]);
    }
  }
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

/* Adds this chunk to the sums of a unit, or begins them; whether they have begun. */
static int tiles_accumulate(const tiles_reduction *work, int64_t unit, int32_t *sums, int add) {
  const tiles_tap *tap = work->taps + unit / work->plan.words;
  const int64_t panel = work->plan.chunk * TILES_BYTES;
  const int both = tiles_channels(work, unit) > TILES_SIDE;
  for (int64_t i = 0; i < tap->steps; i += TILES_LEFT, add = 1) {
    int64_t steps = tap->steps - i < TILES_LEFT ? tap->steps - i : TILES_LEFT, n = 0;
    tiles_signs(work, unit, i, steps);
    for (; n + 2 <= work->panels; n += 2) {
      const int8_t *right = work->right + n * panel;
      if (both)
        tiles_multiply(work->left, right, panel, tap->step + i, steps, sums + n * 2 * TILES_CELLS, add, 2, 2);
      else
        tiles_multiply(work->left, right, panel, tap->step + i, steps, sums + n * 2 * TILES_CELLS, add, 1, 2);
    }
    if (n < work->panels)
      tiles_multiply(work->left, work->right + n * panel, panel, tap->step + i, steps, sums + n * 2 * TILES_CELLS, add,
                     2, 1);
  }
  return add;
}

/* Joins the limbs of a unit's sums, or writes zeros where no position has the tap. */
static void tiles_join(const tiles_reduction *work, int64_t unit, const int32_t *sums, int begun) {
  const bnn_product *p = work->product;
  float *out;
  int64_t channels = signed_result(p, work->group, unit, work->column, &out);
  for (int64_t k = 0; k < channels; k++, sums += TILES_SIDE, out += signed_result_stride(p)) {
    for (int64_t t = 0; t < work->tiles; t++) {
      if (!work->limbs[t]) continue;
      vf32 sum = v_set_f32(0);
      const int32_t *limb = sums + (work->first[t] + work->limbs[t]) * 2 * TILES_CELLS;
      for (int i = 0; begun && i < work->limbs[t]; i++) {
        limb -= 2 * TILES_CELLS;
        sum = v_fma_f32(sum, v_set_f32(256), v_float(v_load(limb)));
      }
      const int64_t n = t * TILES_SIDE;
      v_store_part_f32(out + n, v_mul_f32(sum, v_load_f32(work->step + n)), work->columns - n);
    }
  }
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
    for (next = t + 1; next < work->tiles && !work->limbs[next] == !work->limbs[t]; next++) continue;
    if (work->limbs[t]) continue;
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
  const int at_once = work->plan.chunk == work->plan.steps;
  const int64_t size = work->panels * 2 * TILES_CELLS;
  for (int64_t unit = first; unit < end && !at_once; unit++) work->begun[unit - first] = 0;
  for (int64_t c = 0, at = 0, steps; (steps = tiles_fill(work, &c, &at)) > 0;) {
    tiles_split(work, steps);
    for (int64_t unit = first; unit < end; unit++) {
      if (at_once)
        tiles_join(work, unit, work->sums, tiles_accumulate(work, unit, work->sums, 0));
      else
        work->begun[unit - first] =
            (uint8_t)tiles_accumulate(work, unit, work->sums + (unit - first) * size, work->begun[unit - first]);
    }
  }
  for (int64_t unit = first; unit < end && !at_once; unit++)
    tiles_join(work, unit, work->sums + (unit - first) * size, work->begun[unit - first]);
}

static void tiles_reduce_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  tiles_reduction work = {.product = p, .plan = tiles_plan_reduce(p)};
  const tiles_plan *plan = &work.plan;
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
    tiles_scale(&work);
    int64_t units = tiles_ceil(plan->units, plan->parts), unit = part * units, last = unit + parts * units;
    if (last > plan->units) last = plan->units;
    if (work.panels)
      for (int64_t first = unit; first < last; first += plan->most)
        tiles_pass(&work, first, last - first < plan->most ? last : first + plan->most);
    tiles_look_up(&work, unit, last, scratch);
  }
  t_end();
}
