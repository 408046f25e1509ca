/* signed_reduce: the kernel gradient, a result per tap, channel and column, summed over images and positions.
 *
 * Order of a sum, and so its bits: classes in schedule order; within a class the positions of image 0, then 1, ... They
 * fill chunks of SIGNED_POSITIONS slots, a class beginning at a multiple of 4. Within a chunk one running sum from zero
 * over the slots that have the tap (in groups of four, each ((a + b) + c) + d, where tables are used); the chunk's sum
 * is added to the result. The error is below (SIGNED_POSITIONS + number of chunks + 4) * 2^-24 * (sum of magnitudes).
 *
 * A unit is a word of 32 channels of one tap. An item is a part of the units by a block of the columns of one group.
 * The columns of a part come one after another, so that a result of many rows is not swept once per block of columns;
 * and neighbours that one thread has to do are done in one pass. */

#define SIGNED_POSITIONS (SIGNED_TABLE ? 512 : 256)
#define SIGNED_RUNS 16 /* most classes in a chunk */
#define SIGNED_COLUMNS 128
#define SIGNED_UNITS 96 /* most units in one pass over dy, so that their sums stay in a near cache */

typedef struct {
  int64_t words, units;  /* words of channels; units of all taps */
  int64_t width, blocks; /* of columns */
  int64_t parts;         /* of the units; a block of a part is an item */
} signed_reduce_plan;

static signed_reduce_plan signed_plan_reduce(const bnn_product *p) {
  signed_reduce_plan plan = {.words = bnn_words(p->depth)};
  plan.units = p->schedule->taps * plan.words;
  plan.width = SIGNED_COLUMNS;
  plan.parts = bnn_ceil(plan.units, SIGNED_UNITS);
  plan.blocks = bnn_ceil(p->columns, plan.width);
  while (plan.units && p->groups * plan.blocks * plan.parts < p->threads) {
    /* A block more gathers the signs of a part once more, a part more makes the tables of a block once more. */
    if (SIGNED_TABLE && plan.width > 16 && plan.width > bnn_ceil(plan.units, plan.parts))
      plan.blocks = bnn_ceil(p->columns, plan.width /= 2);
    else if (plan.parts < plan.units)
      plan.parts++;
    else
      break;
  }
  return plan;
}

/* The positions of one class in a chunk. */
typedef struct {
  const bnn_class *class_;
  int64_t first, count; /* slots */
} signed_run;

/* The runs of a chunk that have a tap; and the stretches of slots that they fill together, as a tile wants them. */
typedef struct {
  int64_t runs, stretches;
  int32_t run[SIGNED_RUNS], index[SIGNED_RUNS], stretch[SIGNED_RUNS]; /* index: of the tap, in the class of the run */
  int32_t first[SIGNED_RUNS], block[SIGNED_RUNS], length[SIGNED_RUNS], row[SIGNED_RUNS][SIGNED_ROWS];
} signed_tap;

/* What one pass works on: units of one group by at most SIGNED_COLUMNS columns. */
typedef struct {
  const bnn_product *product;
  signed_reduce_plan plan;
  int64_t group, first_unit, end_unit, column, columns;
  int64_t runs;
  signed_run run[SIGNED_RUNS];
  int64_t left[SIGNED_POSITIONS];  /* word of the source that offset 0 reads, counting all images */
  int64_t right[SIGNED_POSITIONS]; /* row of dy; -1 in a slot that only fills up a run */
  int64_t next;                    /* row of dy behind those of this chunk */
  signed_tap *taps;                /* [taps] */
  float *areas;
} signed_reduction;

/* dy of one slot, from the first column of this pass. */
static const float *signed_dy(const signed_reduction *work, int64_t slot) {
  static const float zeros[SIGNED_COLUMNS] = {0};
  const bnn_product *p = work->product;
  if (work->right[slot] < 0) return zeros;
  return (const float *)p->right + (work->right[slot] * p->groups + work->group) * p->columns + work->column;
}

/* The words of channels that a unit reads in a run, one per slot; and those of the next, of the same tap, if wanted. */
static void signed_read_unit(const signed_reduction *work, int64_t unit, int64_t i, uint32_t *restrict out,
                             uint32_t *restrict next) {
  const bnn_product *p = work->product;
  const signed_tap *tap = work->taps + unit / work->plan.words;
  const signed_run *run = work->run + tap->run[i];
  int64_t word = unit % work->plan.words;
  if (tap->index[i] >= run->class_->valid) {
    const uint32_t *constant = (const uint32_t *)p->constant + word;
    for (int64_t j = 0; j < run->count; j++) out[j] = constant[0];
    for (int64_t j = 0; next && j < run->count; j++) next[j] = constant[1];
    return;
  }
  int64_t offset = run->class_->offset[tap->index[i]] * p->groups + work->group;
  const uint32_t *left = (const uint32_t *)p->left + offset * work->plan.words + word;
  const int64_t *at = work->left + run->first;
  if (!next)
    for (int64_t j = 0; j < run->count; j++) out[j] = left[at[j]];
  else
    for (int64_t j = 0; j < run->count; j++) {
      const uint32_t *both = left + at[j];
      out[j] = both[0];
      next[j] = both[1];
    }
}

static signed_tile signed_unit_tile(const signed_reduction *work, int64_t unit) {
  const signed_tap *tap = work->taps + unit / work->plan.words;
  return (signed_tile){.taps = tap->stretches,
                       .tap = tap->block,
                       .length = tap->length,
                       .row = tap->row[0],
                       .out_stride = BNN_PANEL,
                       .add = 1};
}

/* From a channel of the result to the next. */
static int64_t signed_result_stride(const bnn_product *p) { return p->by_group ? p->columns : p->groups * p->columns; }

/* How many channels a unit has, and where its result begins. */
static int64_t signed_result(const bnn_product *p, int64_t group, int64_t unit, int64_t column, float **out) {
  int64_t words = bnn_words(p->depth), tap = unit / words, first = unit % words * BNN_WORD;
  int64_t row = tap * p->depth + first;
  row = p->by_group ? group * p->schedule->taps * p->depth + row : row * p->groups + group;
  *out = (float *)p->out + row * p->columns + column;
  return p->depth - first < BNN_WORD ? p->depth - first : BNN_WORD;
}

static int64_t signed_unit_result(const signed_reduction *work, int64_t unit, float **out) {
  return signed_result(work->product, work->group, unit, work->column, out);
}

#if SIGNED_TABLE

/* Lanes are channels, a term is four positions. Areas: the sums of each unit [SIGNED_COLUMNS][BNN_PANEL], its bits
 * [SIGNED_WORDS][32], and the tables of SIGNED_BESIDE columns. */

#define SIGNED_BESIDE (64 / BNN_LANES) /* columns whose tables, 32 KB, are in the first cache together */
#define SIGNED_TABLE_ROW (SIGNED_POSITIONS / 4 * BNN_LANES) /* floats, for all positions of a column */
#define SIGNED_WORDS (SIGNED_POSITIONS / 32 + SIGNED_RUNS)
#define SIGNED_BITS (SIGNED_WORDS * 32)
#define SIGNED_SUMS (SIGNED_COLUMNS * BNN_PANEL)

static size_t signed_reduce_areas(const bnn_product *p) {
  signed_reduce_plan plan = signed_plan_reduce(p);
  int64_t units = plan.units < SIGNED_UNITS ? plan.units : SIGNED_UNITS;
  return (size_t)(units * (SIGNED_SUMS + SIGNED_BITS) + SIGNED_BESIDE * SIGNED_TABLE_ROW) * sizeof(float);
}

/* A stretch of so many slots; its bits begin where those of the one before have filled a word. */
static void signed_place_stretch(signed_tap *tap, int64_t i, int64_t slots) {
  tap->block[i] = i ? tap->block[i - 1] + (int32_t)bnn_ceil(tap->length[i - 1], 8) : 0;
  tap->length[i] = (int32_t)bnn_ceil(slots, 4);
  for (int r = 0; r < SIGNED_BESIDE; r++) tap->row[i][r] = tap->first[i] / 4 * BNN_LANES + r * SIGNED_TABLE_ROW;
}

static void signed_reduce_begin(const signed_reduction *work) {
  for (int64_t i = 0; i < (work->end_unit - work->first_unit) * SIGNED_SUMS; i++) work->areas[i] = 0;
}

/* How many units from the `u`-th on are of one tile. */
static int64_t signed_together(const signed_reduction *work, int64_t u) {
  int64_t unit = work->first_unit + u, words = work->plan.words;
  return SIGNED_TABLE_WIDTH > BNN_PANEL && unit + 1 < work->end_unit && unit % words + 1 < words ? 2 : 1;
}

static void signed_reduce_chunk(const signed_reduction *work) {
  int64_t units = work->end_unit - work->first_unit;
  uint32_t *bits = (uint32_t *)(work->areas + units * SIGNED_SUMS);
  float *tables = (float *)(bits + units * SIGNED_BITS);

  for (int64_t u = 0, together; u < units; u += together) {
    const signed_tap *tap = work->taps + (work->first_unit + u) / work->plan.words;
    together = signed_together(work, u);
    uint32_t *words = bits + u * SIGNED_BITS;
    for (int64_t i = 0; i < tap->runs; i++) {
      const signed_run *run = work->run + tap->run[i];
      const int64_t stretch = tap->stretch[i], first = tap->block[stretch] * 32 + run->first - tap->first[stretch];
      signed_read_unit(work, work->first_unit + u, i, words + first,
                       together == 2 ? words + SIGNED_BITS + first : NULL);
      for (int64_t k = 0; k < together; k++)
        for (int64_t j = first + run->count; j % 32; j++) words[k * SIGNED_BITS + j] = 0;
    }
    const int64_t last = tap->stretches - 1, end = last < 0 ? 0 : tap->block[last] * 32 + tap->length[last] * 4;
    for (int64_t k = 0; k < together; k++)
      for (int64_t j = 0; j < end; j += 32) v_transpose_bits(words + k * SIGNED_BITS + j);
  }

  const float *dy[SIGNED_POSITIONS];
  for (const signed_run *run = work->run; run < work->run + work->runs; run++)
    for (int64_t slot = run->first; slot < run->first + bnn_ceil(run->count, 4) * 4; slot++)
      dy[slot] = signed_dy(work, slot);
  /* Of dy of the next chunk, each few columns ask for a share. */
  const bnn_product *p = work->product;
  const int64_t share = bnn_ceil(SIGNED_POSITIONS * SIGNED_BESIDE, work->columns);
  int64_t next = work->next;
  for (int64_t column = 0; column < work->columns; column += SIGNED_BESIDE, next += share) {
    fetch_rows_ahead((const float *)p->right + work->group * p->columns + work->column, p->groups * p->columns,
                     (size_t)work->columns * sizeof(float), next, share, p->images * p->schedule->pixels);
    int64_t columns = work->columns - column < SIGNED_BESIDE ? work->columns - column : SIGNED_BESIDE;
    for (const signed_run *run = work->run; run < work->run + work->runs; run++)
      for (int64_t slot = run->first; slot < run->first + run->count; slot += 4) {
        const float *a = dy[slot] + column, *b = dy[slot + 1] + column;
        const float *c = dy[slot + 2] + column, *d = dy[slot + 3] + column;
        float *table = tables + slot / 4 * BNN_LANES;
        for (int64_t n = 0; n < columns; n++)
          v_store_f32(table + n * SIGNED_TABLE_ROW, v_table_f32(a[n], b[n], c[n], d[n]));
        for (int64_t n = columns; n < SIGNED_BESIDE; n++) v_store_f32(table + n * SIGNED_TABLE_ROW, v_set_f32(0));
      }
    for (int64_t u = 0, together; u < units; u += together) {
      signed_tile tile = signed_unit_tile(work, work->first_unit + u);
      tile.left = tables;
      tile.tap_stride = BNN_PANEL;
      tile.panel_stride = SIGNED_BITS;
      tile.rows = (int)columns;
      tile.out_stride = SIGNED_SUMS;
      for (int r = 0; r < tile.rows; r++) tile.out[r] = work->areas + u * SIGNED_SUMS + (column + r) * BNN_PANEL;
      together = signed_together(work, u);
      for (int64_t k = 0; k < together * BNN_PANEL; k += SIGNED_TABLE_WIDTH) {
        tile.right = bits + u * SIGNED_BITS + k;
        tile.column = k;
        tile.columns = together * BNN_PANEL - k;
        signed_look_up_tile(&tile);
      }
    }
  }
}

/* From lane = channel to the order of the result, of which each row is written at once: rows far apart may share a set
 * of the cache. */
static void signed_reduce_end(const signed_reduction *work) {
  const bnn_product *p = work->product;
  float turned[BNN_PANEL][SIGNED_COLUMNS];
  for (int64_t unit = work->first_unit; unit < work->end_unit; unit++) {
    const float *sums = work->areas + (unit - work->first_unit) * SIGNED_SUMS;
    for (int64_t n = 0; n < work->columns; n += 4, sums += 4 * BNN_PANEL)
      for (int64_t k = 0; k < BNN_PANEL; k += BNN_LANES)
        v_store_turned_f32(turned[k] + n, SIGNED_COLUMNS, v_load_f32(sums + k), v_load_f32(sums + BNN_PANEL + k),
                           v_load_f32(sums + 2 * BNN_PANEL + k), v_load_f32(sums + 3 * BNN_PANEL + k));
    float *out;
    int64_t channels = signed_unit_result(work, unit, &out);
    for (int64_t k = 0; k < channels; k++, out += signed_result_stride(p))
      for (int64_t n = 0; n < work->columns; n++) out[n] = turned[k][n];
  }
}

#else

/* Lanes are columns, the sums are in the result itself. Areas: dy [columns / SIGNED_WIDTH][SIGNED_POSITIONS]
 * [SIGNED_WIDTH], and the signs of one unit [SIGNED_POSITIONS][BNN_WORD]. */

static size_t signed_reduce_areas(const bnn_product *p) {
  (void)p;
  return SIGNED_POSITIONS * (SIGNED_COLUMNS + BNN_WORD) * sizeof(float);
}

static void signed_place_stretch(signed_tap *tap, int64_t i, int64_t slots) {
  tap->block[i] = tap->first[i];
  tap->length[i] = (int32_t)slots;
  for (int r = 0; r < SIGNED_ROWS; r++) tap->row[i][r] = tap->first[i] * BNN_WORD + r;
}

static void signed_reduce_begin(const signed_reduction *work) {
  const bnn_product *p = work->product;
  for (int64_t unit = work->first_unit; unit < work->end_unit; unit++) {
    float *out;
    int64_t channels = signed_unit_result(work, unit, &out);
    for (int64_t k = 0; k < channels; k++, out += signed_result_stride(p))
      for (int64_t n = 0; n < work->columns; n++) out[n] = 0;
  }
}

static void signed_reduce_chunk(const signed_reduction *work) {
  const bnn_product *p = work->product;
  float *dy = work->areas, *signs = dy + SIGNED_POSITIONS * SIGNED_COLUMNS;

  for (const signed_run *run = work->run; run < work->run + work->runs; run++)
    for (int64_t slot = run->first; slot < run->first + run->count; slot++) {
      const float *row = signed_dy(work, slot);
      for (int64_t n = 0; n < work->columns; n += SIGNED_WIDTH)
        for (int64_t v = 0; v < SIGNED_WIDTH; v += BNN_LANES) {
          int64_t columns = work->columns - n - v;
          v_store_f32(dy + n * SIGNED_POSITIONS + slot * SIGNED_WIDTH + v,
                      columns > 0 ? v_load_part_f32(row + n + v, columns) : v_set_f32(0));
        }
    }

  for (int64_t unit = work->first_unit; unit < work->end_unit; unit++) {
    const signed_tap *tap = work->taps + unit / work->plan.words;
    for (int64_t i = 0; i < tap->runs; i++) {
      const signed_run *run = work->run + tap->run[i];
      uint32_t words[SIGNED_POSITIONS];
      signed_read_unit(work, unit, i, words, NULL);
      for (int64_t j = 0; j < run->count; j++) signed_expand(words + j, BNN_WORD, signs + (run->first + j) * BNN_WORD);
    }
    float *out;
    int64_t channels = signed_unit_result(work, unit, &out);
    for (int64_t n = 0; n < work->columns; n += SIGNED_WIDTH)
      for (int64_t k = 0; k < channels; k += SIGNED_ROWS) {
        signed_tile tile = signed_unit_tile(work, unit);
        tile.left = signs + k;
        tile.step = BNN_WORD;
        tile.right = dy + n * SIGNED_POSITIONS;
        tile.tap_stride = SIGNED_WIDTH;
        tile.rows = (int)(channels - k < SIGNED_ROWS ? channels - k : SIGNED_ROWS);
        tile.column = n;
        tile.columns = work->columns - n;
        for (int r = 0; r < tile.rows; r++) tile.out[r] = out + (k + r) * signed_result_stride(p);
        signed_multiply_add_tile(&tile);
      }
  }
}

static void signed_reduce_end(const signed_reduction *work) { (void)work; }

#endif

#include "signed_sparse_reduce.h"

static int64_t signed_reduce_items(const bnn_product *p) {
#if SIGNED_SPARSE
  if (sparse_reduces(p)) return sparse_reduce_items(p);
#endif
  signed_reduce_plan plan = signed_plan_reduce(p);
  return p->groups * plan.blocks * plan.parts;
}

static size_t signed_reduce_scratch(const bnn_product *p) {
#if SIGNED_SPARSE
  if (sparse_reduces(p)) return sparse_reduce_scratch(p);
#endif
  return signed_reduce_areas(p) + (size_t)p->schedule->taps * sizeof(signed_tap);
}

/* Gives the tap, in its class the i-th, to the newest run. */
static void signed_add_run(const signed_reduction *work, signed_tap *tap, int64_t i) {
  const int64_t newest = work->runs - 1, n = tap->runs++;
  const signed_run *run = work->run + newest;
  tap->run[n] = (int32_t)newest;
  tap->index[n] = (int32_t)i;
  /* Only tables have slots that fill up a run. */
  if (!n || tap->run[n - 1] != newest - 1 || !(SIGNED_TABLE || run[-1].count % 4 == 0))
    tap->first[tap->stretches++] = (int32_t)run->first;
  const int64_t stretch = tap->stretches - 1;
  tap->stretch[n] = (int32_t)stretch;
  signed_place_stretch(tap, stretch, run->first + run->count - tap->first[stretch]);
}

/* Fills the next chunk from position `at` of class `c`, both advanced. */
static void signed_fill(signed_reduction *work, int64_t *c, int64_t *at) {
  const bnn_product *p = work->product;
  const bnn_schedule *s = p->schedule;
  for (int64_t tap = 0; tap < s->taps; tap++) work->taps[tap].runs = work->taps[tap].stretches = 0;
  work->runs = 0;
  for (int64_t slot = 0; *c < s->classes && slot < SIGNED_POSITIONS && work->runs < SIGNED_RUNS;
       slot = bnn_ceil(slot, 4) * 4) {
    const bnn_class *class_ = s->class_ + *c;
    int64_t left = class_->count * p->images - *at, room = SIGNED_POSITIONS - slot;
    const signed_run run = {class_, slot, left < room ? left : room};
    if (run.count) {
      int64_t image = *at / class_->count, position = class_->first + *at % class_->count;
      for (; slot < run.first + run.count; slot++, position++) {
        if (position == class_->first + class_->count) {
          position = class_->first;
          image++;
        }
        work->left[slot] = (image * s->sources + s->base[position]) * p->groups * work->plan.words;
        work->right[slot] = image * s->pixels + s->pixel[position];
      }
      work->next = work->right[slot - 1] + 1;
      for (int64_t empty = slot; empty % 4; empty++) work->right[empty] = -1;
      work->run[work->runs++] = run;
      for (int64_t i = 0; i < class_->valid + class_->padded; i++) signed_add_run(work, work->taps + class_->tap[i], i);
      *at += run.count;
    }
    if (run.count == left) {
      ++*c;
      *at = 0;
    }
  }
}

static void signed_reduce_pass(signed_reduction *work) {
  signed_reduce_begin(work);
  for (int64_t c = 0, at = 0; c < work->product->schedule->classes;) {
    signed_fill(work, &c, &at);
    signed_reduce_chunk(work);
  }
  signed_reduce_end(work);
}

static void signed_reduce_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
#if SIGNED_SPARSE
  if (sparse_reduces(p)) {
    sparse_reduce_run(p, begin, end, scratch);
    return;
  }
#endif
  signed_reduction work = {.product = p, .plan = signed_plan_reduce(p), .areas = scratch};
  const signed_reduce_plan *plan = &work.plan;
  work.taps = (signed_tap *)((char *)scratch + signed_reduce_areas(p));
  while (begin < end) {
    int64_t block = begin % plan->blocks, part = begin / plan->blocks % plan->parts;
    int64_t units = bnn_ceil(plan->units, plan->parts);
    /* As many as share their signs; and, where these are all blocks, their tables. */
    int64_t blocks = bnn_least(SIGNED_COLUMNS / plan->width, bnn_least(plan->blocks - block, end - begin));
    int64_t parts = blocks < plan->blocks ? 1 : bnn_least(plan->parts - part, (end - begin) / blocks);
    if (parts > 1) parts = bnn_least(parts, SIGNED_UNITS / units);
    work.group = begin / (plan->blocks * plan->parts);
    begin += blocks * parts;

    work.column = block * plan->width;
    work.columns = bnn_least(p->columns - work.column, blocks * plan->width);
    work.first_unit = bnn_least(part * units, plan->units);
    work.end_unit = bnn_least((part + parts) * units, plan->units);
    signed_reduce_pass(&work);
  }
}
