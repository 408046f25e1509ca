/* signed_reduce: the kernel gradient, a result per tap, channel and column, summed over images and positions.
 *
 * Order of a sum, and so its bits: classes that have the tap, in schedule order; within a class its positions of image
 * 0, then 1, ..., in chunks of SIGNED_POSITIONS; within a chunk one running sum from zero (of groups of four, each
 * ((a + b) + c) + d, where tables are used); the chunk's sum is added to the result. The error is below
 * (SIGNED_POSITIONS + number of chunks + 4) * 2^-24 * (sum of magnitudes).
 *
 * A unit is a word of channels of one tap; an item is a unit by SIGNED_COLUMNS columns of one group. Consecutive items
 * of the same columns share what is made of dy. */

#define SIGNED_POSITIONS 256
#define SIGNED_COLUMNS 64
#define SIGNED_UNITS 256 /* most units in one pass over dy: bounds the scratch */
#define SIGNED_NIBBLES (SIGNED_POSITIONS / 4)

typedef struct {
  int64_t words, units, blocks; /* words of channels, units of all taps, blocks of columns */
  int64_t pass;                 /* most units in one pass */
} signed_reduce_plan;

static signed_reduce_plan signed_plan_reduce(const bnn_product *p) {
  signed_reduce_plan plan = {.words = bnn_words(p->depth)};
  plan.units = p->schedule->taps * plan.words;
  plan.blocks = (p->columns + SIGNED_COLUMNS - 1) / SIGNED_COLUMNS;
  plan.pass = plan.units < SIGNED_UNITS ? plan.units : SIGNED_UNITS;
  return plan;
}

static int64_t signed_reduce_items(const bnn_product *p) {
  signed_reduce_plan plan = signed_plan_reduce(p);
  return p->groups * plan.blocks * plan.units;
}

/* What one pass works on: units of one group by at most SIGNED_COLUMNS columns. */
typedef struct {
  const bnn_product *product;
  signed_reduce_plan plan;
  int64_t group, first_unit, end_unit, column, columns;
  const bnn_class *class_;
  int64_t count;                   /* positions of this chunk */
  int64_t left[SIGNED_POSITIONS];  /* source row that offset 0 reads, counting all images */
  int64_t right[SIGNED_POSITIONS]; /* row of dy */
  float *scratch;
} signed_reduction;

/* The word of channels that position j of the chunk reads for tap index i. */
static uint32_t signed_word(const signed_reduction *work, int64_t i, int64_t j, int64_t word) {
  const bnn_product *p = work->product;
  if (i >= work->class_->valid) return ((const uint32_t *)p->constant)[word];
  int64_t row = (work->left[j] + work->class_->offset[i]) * p->groups + work->group;
  return ((const uint32_t *)p->left)[row * work->plan.words + word];
}

static const float *signed_dy(const signed_reduction *work, int64_t j) {
  const bnn_product *p = work->product;
  return (const float *)p->right + (work->right[j] * p->groups + work->group) * p->columns + work->column;
}

#if SIGNED_TABLE

/* Lanes are channels, nibbles four positions. Scratch: sums [pass][columns][BNN_PANEL], the tables of SIGNED_ROWS
 * columns [SIGNED_NIBBLES][SIGNED_ROWS][16], and the bits of each unit [SIGNED_POSITIONS / 32][32 channels]. */

static int64_t signed_reduce_sums(const signed_reduce_plan *plan) { return plan->pass * SIGNED_COLUMNS * BNN_PANEL; }

static size_t signed_reduce_scratch(const bnn_product *p) {
  signed_reduce_plan plan = signed_plan_reduce(p);
  int64_t tables = SIGNED_NIBBLES * SIGNED_ROWS * 16;
  return (size_t)(signed_reduce_sums(&plan) + tables + plan.pass * SIGNED_POSITIONS) * sizeof(float);
}

static void signed_reduce_begin(signed_reduction *work) {
  int64_t sums = (work->end_unit - work->first_unit) * SIGNED_COLUMNS * BNN_PANEL;
  for (int64_t i = 0; i < sums; i++) work->scratch[i] = 0;
}

static void signed_reduce_chunk(signed_reduction *work) {
  const bnn_class *c = work->class_;
  float *tables = work->scratch + signed_reduce_sums(&work->plan);
  uint32_t *bits = (uint32_t *)(tables + SIGNED_NIBBLES * SIGNED_ROWS * 16), *next = bits;
  int64_t nibbles = (work->count + 3) / 4;

  for (int64_t i = 0; i < c->valid + c->padded; i++)
    for (int64_t word = 0; word < work->plan.words; word++) {
      int64_t unit = c->tap[i] * work->plan.words + word;
      if (unit < work->first_unit || unit >= work->end_unit) continue;
      for (int64_t j = 0; j < work->count; j++) next[j] = signed_word(work, i, j, word);
      for (int64_t j = work->count; j % 32; j++) next[j] = 0;
      for (int64_t j = 0; j < work->count; j += 32) v_transpose_bits(next + j);
      next += SIGNED_POSITIONS;
    }

  static const int32_t zero = 0;
  static const int32_t row[SIGNED_ROWS] = {0, 16, 32, 48, 64, 80, 96, 112};
  for (int64_t column = 0; column < work->columns; column += SIGNED_ROWS) {
    int64_t columns = work->columns - column < SIGNED_ROWS ? work->columns - column : SIGNED_ROWS;
    for (int64_t nibble = 0; nibble < nibbles; nibble++) {
      const float *dy[4];
      float keep[4];
      for (int64_t j = 0; j < 4; j++) {
        keep[j] = nibble * 4 + j < work->count;
        dy[j] = signed_dy(work, keep[j] ? nibble * 4 + j : nibble * 4) + column;
      }
      float *table = tables + nibble * SIGNED_ROWS * 16;
      for (int64_t n = 0; n < columns; n++)
        v_store_f32(table + n * 16, v_table_f32(dy[0][n], keep[1] ? dy[1][n] : 0, keep[2] ? dy[2][n] : 0,
                                                keep[3] ? dy[3][n] : 0));
    }

    next = bits;
    for (int64_t i = 0; i < c->valid + c->padded; i++)
      for (int64_t word = 0; word < work->plan.words; word++) {
        int64_t unit = c->tap[i] * work->plan.words + word;
        if (unit < work->first_unit || unit >= work->end_unit) continue;
        signed_tile tile = {.taps = 1,
                            .tap = &zero,
                            .left = tables,
                            .length = nibbles,
                            .step = SIGNED_ROWS * 16,
                            .right = next,
                            .rows = (int)columns,
                            .columns = BNN_PANEL,
                            .add = 1};
        float *sums = work->scratch + ((unit - work->first_unit) * SIGNED_COLUMNS + column) * BNN_PANEL;
        for (int r = 0; r < SIGNED_ROWS; r++) {
          tile.row[r] = row + (r < columns ? r : columns - 1);
          tile.out[r] = sums + r * BNN_PANEL;
        }
        signed_look_up_tile(&tile);
        next += SIGNED_POSITIONS;
      }
  }
}

/* From lane = channel to the order of the result. */
static void signed_reduce_end(signed_reduction *work) {
  const bnn_product *p = work->product;
  int64_t stride = p->groups * p->columns;
  const float *sums = work->scratch;
  for (int64_t unit = work->first_unit; unit < work->end_unit; unit++, sums += SIGNED_COLUMNS * BNN_PANEL) {
    int64_t tap = unit / work->plan.words, first = unit % work->plan.words * BNN_WORD;
    int64_t channels = p->depth - first < BNN_WORD ? p->depth - first : BNN_WORD;
    float *out = (float *)p->out + (tap * p->depth + first) * stride + work->group * p->columns + work->column;
    for (int64_t k = 0; k < channels; k++)
      for (int64_t n = 0; n < work->columns; n++) out[k * stride + n] = sums[n * BNN_PANEL + k];
  }
}

#else

/* Lanes are columns. Scratch: dy [columns / SIGNED_WIDTH][positions][SIGNED_WIDTH], and the signs of one unit
 * [positions][32 channels]. The sums are in the result itself. */

static size_t signed_reduce_scratch(const bnn_product *p) {
  (void)p;
  return SIGNED_POSITIONS * (SIGNED_COLUMNS + BNN_WORD) * sizeof(float);
}

static void signed_reduce_begin(signed_reduction *work) {
  const bnn_product *p = work->product;
  int64_t stride = p->groups * p->columns;
  for (int64_t unit = work->first_unit; unit < work->end_unit; unit++) {
    int64_t tap = unit / work->plan.words, first = unit % work->plan.words * BNN_WORD;
    int64_t channels = p->depth - first < BNN_WORD ? p->depth - first : BNN_WORD;
    float *out = (float *)p->out + (tap * p->depth + first) * stride + work->group * p->columns + work->column;
    for (int64_t k = 0; k < channels; k++)
      for (int64_t n = 0; n < work->columns; n++) out[k * stride + n] = 0;
  }
}

static void signed_reduce_chunk(signed_reduction *work) {
  const bnn_product *p = work->product;
  const bnn_class *c = work->class_;
  int64_t stride = p->groups * p->columns;
  float *dy = work->scratch, *signs = dy + SIGNED_POSITIONS * SIGNED_COLUMNS;

  for (int64_t j = 0; j < work->count; j++) {
    const float *row = signed_dy(work, j);
    for (int64_t n = 0; n < work->columns; n += SIGNED_WIDTH) {
      float *out = dy + (n * SIGNED_POSITIONS + j * SIGNED_WIDTH);
      int64_t columns = work->columns - n < SIGNED_WIDTH ? work->columns - n : SIGNED_WIDTH;
      for (int64_t m = 0; m < columns; m++) out[m] = row[n + m];
      for (int64_t m = columns; m < SIGNED_WIDTH; m++) out[m] = 0;
    }
  }

  static const int32_t zero = 0;
  for (int64_t i = 0; i < c->valid + c->padded; i++)
    for (int64_t word = 0; word < work->plan.words; word++) {
      int64_t unit = c->tap[i] * work->plan.words + word;
      if (unit < work->first_unit || unit >= work->end_unit) continue;
      for (int64_t j = 0; j < work->count; j++) {
        uint32_t bits = signed_word(work, i, j, word);
        signed_expand(&bits, BNN_WORD, signs + j * BNN_WORD);
      }
      int64_t first = word * BNN_WORD, channels = p->depth - first < BNN_WORD ? p->depth - first : BNN_WORD;
      float *out = (float *)p->out + (c->tap[i] * p->depth + first) * stride + work->group * p->columns + work->column;
      for (int64_t n = 0; n < work->columns; n += SIGNED_WIDTH)
        for (int64_t k = 0; k < channels; k += SIGNED_ROWS) {
          signed_tile tile = {.taps = 1,
                              .tap = &zero,
                              .left = signs + k,
                              .length = work->count,
                              .step = BNN_WORD,
                              .right = dy + n * SIGNED_POSITIONS,
                              .rows = (int)(channels - k < SIGNED_ROWS ? channels - k : SIGNED_ROWS),
                              .columns = work->columns - n,
                              .add = 1};
          static const int32_t row[SIGNED_ROWS] = {0, 1, 2, 3, 4, 5};
          for (int r = 0; r < SIGNED_ROWS; r++) {
            tile.row[r] = row + (r < tile.rows ? r : tile.rows - 1);
            tile.out[r] = out + (k + r) * stride + n;
          }
          signed_multiply_add_tile(&tile);
        }
    }
}

static void signed_reduce_end(signed_reduction *work) { (void)work; }

#endif

static void signed_reduce_pass(signed_reduction *work) {
  const bnn_product *p = work->product;
  const bnn_schedule *s = p->schedule;
  signed_reduce_begin(work);
  for (int64_t i = 0; i < s->classes; i++) {
    const bnn_class *c = work->class_ = s->class_ + i;
    for (int64_t first = 0; first < c->count * p->images; first += SIGNED_POSITIONS) {
      work->count = c->count * p->images - first < SIGNED_POSITIONS ? c->count * p->images - first : SIGNED_POSITIONS;
      int64_t image = first / c->count, at = first % c->count;
      for (int64_t j = 0; j < work->count; j++) {
        work->left[j] = image * s->sources + s->base[c->first + at];
        work->right[j] = image * s->pixels + s->pixel[c->first + at];
        if (++at == c->count) {
          at = 0;
          image++;
        }
      }
      signed_reduce_chunk(work);
    }
  }
  signed_reduce_end(work);
}

static void signed_reduce_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  signed_reduction work = {.product = p, .plan = signed_plan_reduce(p), .scratch = scratch};
  while (begin < end) {
    int64_t block = begin / work.plan.units, unit = begin % work.plan.units, units = work.plan.units - unit;
    if (units > work.plan.pass) units = work.plan.pass;
    if (units > end - begin) units = end - begin;
    begin += units;

    work.group = block / work.plan.blocks;
    work.column = block % work.plan.blocks * SIGNED_COLUMNS;
    work.columns = p->columns - work.column < SIGNED_COLUMNS ? p->columns - work.column : SIGNED_COLUMNS;
    work.first_unit = unit;
    work.end_unit = unit + units;
    signed_reduce_pass(&work);
  }
}
