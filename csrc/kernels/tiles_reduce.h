/* signed_reduce with tiles: dy in fixed point, as three or four limbs that are signed bytes, times signs.
 *
 * Order of a sum, and so its bits: positions as in signed_reduce.h, in equal chunks of at most TILES_CHUNK steps of
 * TILES_STEP positions, a class beginning a step of its own. In a chunk a column of dy (a filter) is rounded to
 * multiples of a power of two, of which its greatest magnitude counts 2^22 to 2^23, or 2^30 to 2^31 with four limbs.
 * From there the sum over the chunk is of integers, and exact: in which order tiles take the positions does not matter.
 * The limbs are joined in float, the highest first, and the chunks added in order; where the images are summed in equal
 * parts, chunks are of a part, and the parts are added in order at last. With m the greatest magnitude of a column in a
 * chunk of n positions, the error is below the sum over the chunks of
 *
 *   n m 2^-22 / 2 + 4 * 2^-24 |sum of the chunk|, and with four limbs n m 2^-30 / 2 in the place of the first,
 *
 * and 2^-24 (number of chunks and parts) (sum of magnitudes). Roundings are as often up as down, so that of the first
 * about sqrt(n) m 2^-24 is seen. Three limbs are taken where m^2 <= TILES_LIMIT * mean(dy^2) in every column of a tile,
 * less in short chunks, which keeps this near the error of a blocked sum of floats; four otherwise. A tile of columns
 * with one that is not finite, or so small that its scale is not, takes the register tables instead. */

#define TILES_SIDE 16                 /* rows of a tile, and columns of sums */
#define TILES_STEP 64                 /* positions that one product of tiles sums up */
#define TILES_BYTES (TILES_SIDE * 64) /* of a tile */
#define TILES_CELLS (TILES_SIDE * 16) /* sums in a tile */
#define TILES_CHUNK 20                /* most steps of a chunk: the signs of a unit stay in the first cache */
#define TILES_RIGHT 5120              /* most steps times columns of a pass, whose limbs stay in the second cache */
#define TILES_GROUP 64                /* columns whose sums are joined at a time: they stay in the first */
#define TILES_PART 2048               /* least positions of a part of the images */
#define TILES_LIMBS 4                 /* at most */
#define TILES_LIMIT 144.0f
#define TILES_CONSTANT INT32_MIN /* the offset of a padded tap */

typedef struct {
  int64_t cuts;                 /* equal parts of the images, with results of their own */
  int64_t words, units, steps;  /* as in signed_reduce_plan; of positions of a part, padded to whole steps */
  int64_t chunk, columns;       /* steps and columns of a pass */
  int64_t width, blocks, parts; /* columns of an item; how many of them, and parts of the units */
} tiles_reduce_plan;

/* What a chunk has of a tap. */
typedef struct {
  int64_t steps;
  int32_t step[TILES_CHUNK], offset[TILES_CHUNK]; /* of its sources, in words */
  int begun;                                      /* whether an earlier chunk had any */
} tiles_tap;

/* A pass: some units by some columns of a group. The panels are the limbs of all tiles of columns. */
typedef struct {
  const bnn_product *product;
  tiles_reduce_plan plan;
  int64_t group, column, columns;
  int64_t tiles, panels;
  struct tiles_columns {
    int limbs;  /* in this chunk */
    int refuse; /* it takes the tables */
    int64_t first;
    float step[TILES_SIDE]; /* what an integer counts */
  } * tile;
  tiles_tap *taps;
  int32_t *source; /* [chunk * TILES_STEP] in words */
  int64_t *dy;     /* in floats, -1 where a step is only filled up */
  int8_t *left;    /* signs: [chunk][2][channels][positions] */
  int8_t *right;   /* [panels][chunk][positions / 4][columns][4] */
  int32_t *sums;   /* of a unit and TILES_GROUP columns: [panels][2][channels][columns] */
} tiles_reduction;

static int64_t tiles_taps(const bnn_class *class_) { return class_->valid + class_->padded; }

/* Where there are few columns, threads that shared them would each split dy, or each expand the signs: they share the
 * images. */
static int64_t tiles_cuts(const bnn_product *p) {
  int64_t cuts = 4, positions = p->images * p->schedule->pixels;
  while (cuts > 1 && (cuts * p->groups * bnn_ceil(p->columns, TILES_GROUP) > 4 || p->images % cuts ||
                      positions < cuts * TILES_PART))
    cuts /= 2;
  return cuts;
}

/* One of the parts as a product. */
static bnn_product tiles_cut(const bnn_product *p, int64_t cuts, int64_t cut) {
  const bnn_schedule *s = p->schedule;
  bnn_product part = *p;
  part.images /= cuts;
  part.left = (const uint32_t *)p->left + cut * part.images * s->sources * p->groups * bnn_words(p->depth);
  part.right = (const float *)p->right + cut * part.images * s->pixels * p->groups * p->columns;
  part.out = (float *)p->out + cut * s->taps * p->depth * p->groups * p->columns;
  return part;
}

static tiles_reduce_plan tiles_plan_reduce(const bnn_product *p) {
  const bnn_schedule *s = p->schedule;
  tiles_reduce_plan plan = {.cuts = tiles_cuts(p), .words = bnn_words(p->depth)};
  plan.units = s->taps * plan.words;
  for (int64_t c = 0; c < s->classes; c++)
    if (tiles_taps(s->class_ + c)) plan.steps += bnn_ceil(s->class_[c].count * p->images / plan.cuts, TILES_STEP);
  if (plan.steps) plan.chunk = bnn_ceil(plan.steps, bnn_ceil(plan.steps, TILES_CHUNK));
  plan.columns = TILES_GROUP;
  while (2 * plan.columns * plan.chunk <= TILES_RIGHT && plan.columns < p->columns) plan.columns *= 2;
  plan.width = plan.columns;
  for (int64_t least = TILES_GROUP, items = 4; items > 1; least /= 2, items /= 2)
    while (plan.width > least && plan.cuts * p->groups * bnn_ceil(p->columns, plan.width) < items) plan.width /= 2;
  plan.blocks = bnn_ceil(p->columns, plan.width);
  plan.parts = plan.cuts * p->groups * plan.blocks < 2 ? 2 : 1;
  if (plan.parts > plan.units) plan.parts = plan.units;
  return plan;
}

/* Tiles gain where half of what they multiply is not padding: of positions to steps, class by class, of columns and of
 * channels. Their time over that of the register tables, with a neighbour who halves the rate of tiles: 0.3 to 0.9
 * above this line (0.5 to 1.0 of dense layers with 32 samples), 1.0 to 2.1 below it for images of 7 x 7, or fewer than
 * 10 columns. */
static int tiles_gain(const bnn_product *p, const tiles_reduce_plan *plan) {
  double useful = 0, padded = 0;
  for (const bnn_class *c = p->schedule->class_; c < p->schedule->class_ + p->schedule->classes; c++) {
    int64_t positions = c->count * p->images / plan->cuts;
    useful += (double)positions * (double)tiles_taps(c);
    padded += (double)bnn_ceil(positions, TILES_STEP) * TILES_STEP * (double)tiles_taps(c);
  }
  useful *= (double)p->columns * (double)p->depth;
  padded *= (double)bnn_ceil(p->columns, TILES_SIDE) * (double)bnn_ceil(p->depth, TILES_SIDE) * TILES_SIDE * TILES_SIDE;
  int64_t words = p->images * p->schedule->sources * p->groups * plan->words;
  return plan->steps && words <= INT32_MAX && 2 * useful >= padded;
}

static int64_t tiles_reduce_items(const bnn_product *p) {
  tiles_reduce_plan plan = tiles_plan_reduce(p);
  return tiles_gain(p, &plan) ? plan.cuts * p->groups * plan.blocks * plan.parts : signed_reduce_items(p);
}

static int64_t tiles_reduce_parts(const bnn_product *p) {
  tiles_reduce_plan plan = tiles_plan_reduce(p);
  return tiles_gain(p, &plan) ? plan.cuts : 1;
}

/* Lays out the scratch of a pass; how many bytes. What says which columns take the tables outlasts their scratch. */
static size_t tiles_lay_out(tiles_reduction *work, char *scratch) {
  const tiles_reduce_plan *plan = &work->plan;
  size_t tiles = (size_t)plan->columns / TILES_SIDE, chunk = (size_t)plan->chunk, size = 0;
  size_t taps = (size_t)work->product->schedule->taps, tables = signed_reduce_scratch(work->product);
#define TILES_TAKE(member, count)                         \
  if (scratch) work->member = (void *)(scratch + size);   \
  size += (count) * sizeof *work->member + BNN_ALIGN - 1; \
  size -= size % BNN_ALIGN
  TILES_TAKE(left, chunk * 2 * TILES_BYTES);
  TILES_TAKE(right, tiles * TILES_LIMBS * chunk * TILES_BYTES);
  TILES_TAKE(sums, TILES_GROUP / TILES_SIDE * TILES_LIMBS * 2 * TILES_CELLS);
  TILES_TAKE(taps, taps);
  TILES_TAKE(source, chunk * TILES_STEP);
  TILES_TAKE(dy, chunk * TILES_STEP);
  if (size < tables) size = tables + BNN_ALIGN - 1 - (tables + BNN_ALIGN - 1) % BNN_ALIGN;
  TILES_TAKE(tile, tiles);
#undef TILES_TAKE
  return size;
}

static size_t tiles_reduce_scratch(const bnn_product *p) {
  tiles_reduce_plan plan = tiles_plan_reduce(p);
  bnn_product part = tiles_cut(p, plan.cuts, 0);
  tiles_reduction work = {.product = &part, .plan = plan};
  return tiles_gain(p, &plan) ? tiles_lay_out(&work, NULL) : signed_reduce_scratch(p);
}

/* ---- a chunk of positions ---------------------------------------------------------------------------------------- */

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
      int64_t slot = step * TILES_STEP, end = slot + count, steps = bnn_ceil(count, TILES_STEP);
      for (; slot < end; slot++, position++) {
        if (position == class_->first + class_->count) {
          position = class_->first;
          image++;
        }
        work->source[slot] = (int32_t)((image * s->sources + s->base[position]) * stride);
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
          tap->offset[tap->steps] = i < class_->valid ? (int32_t)(class_->offset[i] * stride) : TILES_CONSTANT;
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
  vf32 maximum[TILES_GROUP / BNN_LANES], square[TILES_GROUP / BNN_LANES];
  for (int t = 0; t < tiles; t++) maximum[t] = square[t] = v_set_f32(0);
  for (int64_t slot = 0; slot < slots; slot++) {
    if (work->dy[slot] < 0) continue;
    const float *row = dy + work->dy[slot];
    for (int t = 0; t < tiles; t++) {
      vf32 x = whole ? v_load_f32(row + t * BNN_LANES) : v_load_part_f32(row + t * BNN_LANES, work->columns - first);
      square[t] = v_fma_f32(x, x, square[t]);
      maximum[t] = v_max_f32(v_abs_f32(x), maximum[t]);
    }
  }
  for (int t = 0; t < tiles; t++) {
    v_store_f32(maxima + t * BNN_LANES, maximum[t]);
    v_store_f32(squares + t * BNN_LANES, square[t]);
  }
}

/* The limbs that a tile of columns needs; 0 where it needs the tables. NaN is in no maximum, but in the squares. */
static int tiles_limbs(const float *maxima, const float *squares, float count) {
  float limit = count / 2 < TILES_LIMIT ? count / 2 : TILES_LIMIT;
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
  static const float zeros[TILES_GROUP] = {0};
  const bnn_product *p = work->product;
  const float *dy = (const float *)p->right + work->group * p->columns + work->column + first * TILES_SIDE;
  const int64_t panel = work->plan.chunk * TILES_BYTES, columns = work->columns - first * TILES_SIDE;
  const vu32 middle = v_set(0x80808080);
  float maxima[TILES_GROUP], squares[TILES_GROUP];
  vf32 scale[TILES_GROUP / TILES_SIDE];
  int limbs[TILES_GROUP / TILES_SIDE];
  int8_t *out[TILES_GROUP / TILES_SIDE];

  tiles_measure_columns(work, slots, first * TILES_SIDE, tiles, whole, maxima, squares);
  for (int t = 0; t < tiles; t++) {
    if (!(limbs[t] = tiles_limbs(maxima + t * TILES_SIDE, squares + t * TILES_SIDE, (float)slots)))
      work->tile[first + t].refuse = 1;
    if (work->tile[first + t].refuse) limbs[t] = 0;
    work->tile[first + t].limbs = limbs[t];
    work->tile[first + t].first = work->panels;
    out[t] = work->right + work->panels * panel;
    work->panels += limbs[t];
    /* A little more than the maximum is below 2^(exponent - 126): the highest limb then has room. */
    uint32_t exponent[TILES_SIDE];
    v_store(exponent, v_bits_of(v_mul_f32(v_load_f32(maxima + t * TILES_SIDE), v_set_f32(1.004f))));
    for (int64_t i = 0; i < TILES_SIDE; i++)
      exponent[i] = (exponent[i] ? (exponent[i] >> 23) + 2 - 8 * (uint32_t)limbs[t] : 127) << 23;
    v_store_f32(work->tile[first + t].step, v_as_float(v_load(exponent)));
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
  enum { MOST = TILES_GROUP / TILES_SIDE };
  work->panels = 0;
  for (int64_t t = 0; t < work->tiles;)
    if (work->columns - t * TILES_SIDE >= TILES_GROUP) {
      tiles_split(work, steps * TILES_STEP, t, MOST, 1);
      t += MOST;
    } else
      tiles_split(work, steps * TILES_STEP, t++, 1, 0);
}

/* Signs of a unit in the steps of its tap. */
static void tiles_signs(const tiles_reduction *work, int64_t unit) {
  const bnn_product *p = work->product;
  const tiles_tap *tap = work->taps + unit / work->plan.words;
  int64_t word = unit % work->plan.words;
  const uint32_t *left = (const uint32_t *)p->left + work->group * work->plan.words + word;
  int8_t *out = work->left;
  for (int64_t i = 0; i < tap->steps; i++) {
    const int32_t *source = work->source + tap->step[i] * TILES_STEP;
    vu32 words[TILES_STEP / BNN_LANES];
    uint64_t turned[BNN_WORD];
    for (int j = 0; j < TILES_STEP / BNN_LANES; j++)
      words[j] = tap->offset[i] == TILES_CONSTANT ? v_set(((const uint32_t *)p->constant)[word])
                                                  : v_gather(left + tap->offset[i], v_load(source + j * BNN_LANES));
    for (int byte = 0; byte < 4; byte++) v_turn_bits(words, byte, turned + 8 * byte);
    for (int64_t k = 0; k < BNN_WORD; k++, out += TILES_STEP) v_store_signs(out, turned[k]);
  }
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

static void tiles_store(int32_t *sums) {
  t_store(0, sums, 64);
  t_store(1, sums + TILES_CELLS, 64);
  t_store(2, sums + 2 * TILES_CELLS, 64);
  t_store(3, sums + 3 * TILES_CELLS, 64);
}

/* The sums of `rows` halves of a unit and `columns` panels, which stay in tiles. Those there go to `before`, one by one
 * behind the first loads and products: a store waits for the last product of its sum. Loads come first, as in
 * tiles_step. */
BNN_INLINE void tiles_multiply(const int8_t *left, const int8_t *right, int64_t panel, const tiles_tap *tap,
                               int32_t *before, const int rows, const int columns) {
  const int8_t *dy = right + tap->step[0] * TILES_BYTES;
  t_stream(6, dy, 64);
  t_load(4, left, 64);
  if (before) t_store(0, before, 64);
  t_zero(0);
  t_dot(0, 4, 6);
  if (rows > 1) t_load(5, left + TILES_BYTES, 64);
  if (before) t_store(1, before + TILES_CELLS, 64);
  t_zero(1);
  if (rows > 1) t_dot(1, 5, 6);
  if (columns > 1) t_stream(7, dy + panel, 64);
  if (before) t_store(2, before + 2 * TILES_CELLS, 64);
  t_zero(2);
  if (columns > 1) t_dot(2, 4, 7);
  if (before) t_store(3, before + 3 * TILES_CELLS, 64);
  t_zero(3);
  if (rows > 1 && columns > 1) t_dot(3, 5, 7);
  for (int64_t i = 1; i < tap->steps; i++) {
    left += 2 * TILES_BYTES;
    dy = right + tap->step[i] * TILES_BYTES;
    t_stream(6, dy, 64);
    if (columns > 1) t_stream(7, dy + panel, 64);
    t_load(4, left, 64);
    if (rows > 1) t_load(5, left + TILES_BYTES, 64);
    t_dot(0, 4, 6);
    if (rows > 1) t_dot(1, 5, 6);
    if (columns > 1) t_dot(2, 4, 7);
    if (rows > 1 && columns > 1) t_dot(3, 5, 7);
  }
}

static int64_t tiles_channels(const tiles_reduction *work, int64_t unit) {
  int64_t channels = work->product->depth - unit % work->plan.words * BNN_WORD;
  return channels < BNN_WORD ? channels : BNN_WORD;
}

/* The sums of a unit and `count` panels from `first`. */
static void tiles_accumulate(const tiles_reduction *work, int64_t unit, int64_t first, int64_t count) {
  const tiles_tap *tap = work->taps + unit / work->plan.words;
  const int64_t panel = work->plan.chunk * TILES_BYTES;
  const int both = tiles_channels(work, unit) > TILES_SIDE;
  const int8_t *right = work->right + first * panel;
  int32_t *before = NULL, *sums = work->sums;
  for (; count > 1; count -= 2, right += 2 * panel, before = sums, sums += 4 * TILES_CELLS)
    if (both)
      tiles_multiply(work->left, right, panel, tap, before, 2, 2);
    else
      tiles_multiply(work->left, right, panel, tap, before, 1, 2);
  if (count) {
    tiles_multiply(work->left, right, panel, tap, before, 2, 1);
    before = sums;
  }
  if (before) tiles_store(before);
}

/* Joins the limbs of a unit's sums of `tiles` tiles of columns, and adds them to the result or begins it. */
BNN_INLINE void tiles_join(const tiles_reduction *work, int64_t unit, int64_t first, const int32_t *sums,
                           const int tiles, const int whole) {
  const bnn_product *p = work->product;
  const struct tiles_columns *tile = work->tile + first;
  const int add = work->taps[unit / work->plan.words].begun;
  const int64_t columns = work->columns - first * TILES_SIDE;
  float *out;
  int64_t channels = signed_result(p, work->group, unit, work->column + first * TILES_SIDE, &out);
  for (int64_t k = 0; k < channels; k++, sums += TILES_SIDE, out += signed_result_stride(p))
    for (int t = 0; t < tiles; t++) {
      const int32_t *limb = sums + (tile[t].first - tile->first) * 2 * TILES_CELLS;
      float *to = out + t * TILES_SIDE;
      if (!tile[t].limbs) continue;
      vf32 sum = v_float(v_load(limb + 4 * TILES_CELLS));
      if (tile[t].limbs > 3) sum = v_fma_f32(v_float(v_load(limb + 6 * TILES_CELLS)), v_set_f32(256), sum);
      sum = v_fma_f32(sum, v_set_f32(256), v_float(v_load(limb + 2 * TILES_CELLS)));
      sum = v_fma_f32(sum, v_set_f32(256), v_float(v_load(limb)));
      sum = v_mul_f32(sum, v_load_f32(tile[t].step));
      if (whole)
        v_store_f32(to, add ? v_add_f32(v_load_f32(to), sum) : sum);
      else
        v_store_part_f32(to, add ? v_add_f32(v_load_part_f32(to, columns), sum) : sum, columns);
    }
}

static void tiles_unit(const tiles_reduction *work, int64_t unit) {
  enum { MOST = TILES_GROUP / TILES_SIDE };
  tiles_signs(work, unit);
  t_stored();
  for (int64_t t = 0, next; t < work->tiles; t = next) {
    next = t + MOST < work->tiles ? t + MOST : work->tiles;
    const struct tiles_columns *tile = work->tile + t, *last = work->tile + next - 1;
    tiles_accumulate(work, unit, tile->first, last->first + last->limbs - tile->first);
    if (work->columns - t * TILES_SIDE >= TILES_GROUP)
      tiles_join(work, unit, t, work->sums, MOST, 1);
    else
      for (; tile <= last; tile++)
        tiles_join(work, unit, tile - work->tile, work->sums + (tile->first - work->tile[t].first) * 2 * TILES_CELLS, 1,
                   0);
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
    for (next = t + 1; next < work->tiles && work->tile[next].refuse == work->tile[t].refuse; next++) continue;
    if (!work->tile[t].refuse) continue;
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
  for (int64_t t = 0; t < work->tiles; t++) work->tile[t].refuse = 0;
  for (int64_t tap = 0; tap < s->taps; tap++) work->taps[tap].begun = 0, work->taps[tap].steps = 0;
  for (int64_t c = 0, at = 0, steps; (steps = tiles_fill(work, &c, &at)) > 0;) {
    tiles_split_all(work, steps);
    for (int64_t unit = first; unit < end; unit++)
      if (work->taps[unit / work->plan.words].steps) tiles_unit(work, unit);
  }
  for (int64_t unit = first; unit < end; unit++)
    if (!work->taps[unit / work->plan.words].begun) tiles_clear(work, unit);
}

static void tiles_reduce_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  bnn_product one = *p;
  tiles_reduction work = {.product = &one, .plan = tiles_plan_reduce(p)};
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
    int64_t blocks = parts == plan->parts ? (end - begin) / parts : 1; /* as many as share their signs */
    if (blocks > plan->blocks - block) blocks = plan->blocks - block;
    if (blocks > plan->columns / plan->width) blocks = plan->columns / plan->width;
    work.group = begin / (plan->parts * plan->blocks) % p->groups;
    one = tiles_cut(p, plan->cuts, begin / (plan->parts * plan->blocks * p->groups));
    begin += blocks * parts;

    work.column = block * plan->width;
    work.columns = p->columns - work.column < blocks * plan->width ? p->columns - work.column : blocks * plan->width;
    work.tiles = bnn_ceil(work.columns, TILES_SIDE);
    int64_t units = bnn_ceil(plan->units, plan->parts), unit = part * units, last = unit + parts * units;
    if (last > plan->units) last = plan->units;
    tiles_pass(&work, unit, last);
    tiles_look_up(&work, unit, last, scratch);
  }
  t_end();
}
