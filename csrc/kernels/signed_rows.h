/* signed_right and signed_left: a result per target pixel and column, summed over taps and depth.
 *
 * Order of a sum, and so its bits: blocks of the depth ascending, of SIGNED_BLOCK elements or, with tables, twice as
 * many; within a block one running sum from zero over taps in schedule order, then depth (in groups of four, each
 * ((a + b) + c) + d, where tables are used); the block's sum is added to the result. With n terms in all the error is
 * below (taps * SIGNED_BLOCK + depth / SIGNED_BLOCK + 4) * 2^-24 * (sum of magnitudes).
 *
 * The left rows that a chunk of positions reads are staged once per block, as signs, floats or register tables.
 */

#define SIGNED_BLOCK 64
#define SIGNED_SEGMENT 24 /* fewest positions of an item: whole tiles */
#define SIGNED_SHARES 8   /* most items for a thread */
#define SIGNED_CHUNK 264  /* positions staged together: tables, 2 KB per source pixel or less, fit the second cache */

typedef struct {
  int bits;                  /* the left operand is packed */
  int table;                 /* its floats are staged as register tables */
  int rows;                  /* of a tile */
  int64_t total;             /* positions of all images */
  int64_t segment, segments; /* positions of an item, and how many of these there are */
  int64_t panels;            /* of 32 columns */
  int64_t width, spans;      /* panels of an item, and how many of these there are */
  int64_t words;
  int64_t block;    /* most depth elements staged together */
  int64_t chunk;    /* and positions */
  int64_t together; /* images whose positions are listed together, class by class */
  int64_t slots;    /* most rows staged together; slot 0 is the constant row */
  int64_t stride;   /* floats of a staged row */
} signed_plan;

/* What an item is. The rows of one are staged for it alone, so it is to be as much as is staged at a time, as long as
 * every thread has some; where positions are few, some columns of them. */
static void signed_share_rows(const bnn_product *p, signed_plan *plan) {
  plan->segment = SIGNED_SEGMENT;
  plan->width = 1;
  if (p->threads && plan->total && plan->panels) {
    int64_t positions = plan->total * p->groups, chunks = bnn_ceil(positions, plan->chunk * p->threads); /* of each */
    int64_t shares = bnn_ceil(chunks, bnn_ceil(chunks, SIGNED_SHARES)) * p->threads;
    shares = bnn_least(shares, positions / (2 * SIGNED_SEGMENT));
    if (shares < 1) shares = 1;
    plan->segment = bnn_ceil(bnn_ceil(positions, shares), plan->rows) * plan->rows;
    plan->width = bnn_ceil(plan->panels, bnn_ceil(p->threads, shares));
  }
  plan->segments = bnn_ceil(plan->total, plan->segment);
  plan->spans = bnn_ceil(plan->panels, plan->width);
}

static signed_plan signed_rows_plan(const bnn_product *p, int bits) {
  const bnn_schedule *s = p->schedule;
  signed_plan plan = {.bits = bits, .table = SIGNED_TABLE && !bits};
  plan.rows = plan.table ? SIGNED_ROWS : SIGNED_FLOAT_ROWS;
  plan.total = p->images * s->pixels;
  plan.panels = bnn_panels(p->columns);
  plan.words = bnn_words(p->depth);
  plan.block = plan.table ? 2 * SIGNED_BLOCK : SIGNED_BLOCK;

  plan.chunk = SIGNED_CHUNK;
  while (plan.chunk > SIGNED_SEGMENT && plan.chunk * s->taps > 9 * SIGNED_CHUNK) plan.chunk -= SIGNED_SEGMENT;

  signed_share_rows(p, &plan);

  plan.together = 1;
  while (plan.together < p->images && (plan.together + 1) * s->pixels <= 2 * plan.chunk &&
         (plan.together + 1) * s->sources <= (1 << 16))
    plan.together++;
  if (plan.total) { /* evenly */
    int64_t blocks = bnn_ceil(p->images, plan.together);
    plan.together = bnn_ceil(p->images, blocks);
  }

  int64_t sources = plan.together * s->sources, reads = plan.chunk * s->taps;
  plan.slots = 1 + (sources < reads ? sources : reads);
  int64_t block = p->depth < plan.block ? p->depth : plan.block;
  if (!block) block = 1; /* where a row is staged is never zero */
  plan.stride = plan.table ? bnn_ceil(block, 4) * BNN_LANES : block;
  return plan;
}

static int64_t signed_rows_items(const bnn_product *p, int bits) {
  signed_plan plan = signed_rows_plan(p, bits);
  return p->groups * plan.segments * plan.spans;
}

typedef struct {
  float *staged;      /* [slots][stride] */
  float *panel;       /* [taps][SIGNED_BLOCK][SIGNED_WIDTH]: the right operand as floats; without tables */
  signed_tile *tiles; /* [chunk] */
  int32_t *rows;      /* [chunk][taps][SIGNED_ROWS] of each tile */
  int32_t *length;    /* [taps] */
  int32_t *slot_of;   /* [together * sources] where in `staged`, 0 where it is not */
  int32_t *source;    /* [slots] which row is staged there, -1 for the constant one */
} signed_areas;

/* Floats of the panel for a tap. */
static int64_t signed_panel(const signed_plan *plan) { return plan->table ? 0 : SIGNED_BLOCK * SIGNED_WIDTH; }

/* Lays the areas out from `base` and returns their size. */
static size_t signed_rows_areas(const bnn_product *p, const signed_plan *plan, void *base, signed_areas *areas) {
  const bnn_schedule *s = p->schedule;
  const int64_t size = sizeof(int32_t);
  size_t used = 0;
  areas->staged = bnn_area(base, &used, plan->slots * plan->stride * (int64_t)sizeof(float));
  areas->panel = bnn_area(base, &used, signed_panel(plan) * s->taps * (int64_t)sizeof(float));
  areas->tiles = bnn_area(base, &used, plan->chunk * (int64_t)sizeof(signed_tile));
  areas->rows = bnn_area(base, &used, plan->chunk * s->taps * SIGNED_ROWS * size);
  areas->length = bnn_area(base, &used, s->taps * size);
  areas->slot_of = bnn_area(base, &used, plan->together * s->sources * size);
  areas->source = bnn_area(base, &used, plan->slots * size);
  return used;
}

/* What one run works on: a range of columns of one group, and positions from one set of images. */
typedef struct {
  const bnn_product *product;
  signed_plan plan;
  signed_areas areas;
  int64_t group, first_column, end_column;
  int64_t image;        /* first of the images whose positions are listed together */
  int64_t tiles, rows;  /* tiles and staged rows of this chunk, the constant row included */
  int64_t next;         /* the row behind them, of the images listed together */
  int64_t block, depth; /* first depth element of this block, and their number */
} signed_work;

/* The rows that a tile lacks are its first. */
static void signed_fill_tile(const signed_tile *tile, int32_t *row) {
  for (const int32_t *end = row + tile->taps * SIGNED_ROWS; row < end; row += SIGNED_ROWS)
    for (int r = tile->rows; r < SIGNED_ROWS; r++) row[r] = row[0];
}

/* Makes tiles of the positions from `begin`, at most up to `end`, and lists the rows they read. Returns where the next
 * chunk begins. */
static int64_t signed_collect(signed_work *work, int64_t begin, int64_t end) {
  const bnn_product *p = work->product;
  const bnn_schedule *s = p->schedule;
  const signed_plan *plan = &work->plan;
  signed_areas *areas = &work->areas;

  int64_t listed = plan->together * s->pixels;
  work->image = begin / listed * plan->together;
  int64_t images = p->images - work->image < plan->together ? p->images - work->image : plan->together;
  int64_t count = (work->image + images) * s->pixels - begin;
  if (count > end - begin) count = end - begin;
  int64_t chunks = bnn_ceil(count, plan->chunk);
  count = bnn_ceil(count, chunks);

  int64_t at = begin % listed;
  const bnn_class *c = s->class_;
  while (at >= c->count * images) at -= c++->count * images;
  int64_t image = at / c->count;
  at %= c->count;
  work->tiles = 0;
  work->rows = 1;
  areas->source[0] = -1;
  signed_tile *tile = NULL;
  int32_t *row = NULL, *next = areas->rows;
  for (int64_t e = 0; e < count; e++, at++) {
    if (at == c->count) {
      at = 0;
      image++;
    }
    if (image == images) {
      do c++;
      while (!c->count);
      image = 0;
      if (tile) signed_fill_tile(tile, row);
      tile = NULL;
    }
    int64_t taps = c->valid + c->padded;
    if (!tile || tile->rows == plan->rows) {
      row = next;
      next += taps * SIGNED_ROWS;
      tile = areas->tiles + work->tiles++;
      *tile = (signed_tile){.taps = taps, .tap = c->tap, .length = areas->length, .row = row, .left = areas->staged};
    }
    int64_t position = c->first + at, target = (work->image + image) * s->pixels + s->pixel[position];
    int32_t *to = row + tile->rows, *end = to + c->valid * SIGNED_ROWS;
    const int32_t *offset = c->offset;
    const int64_t source = image * s->sources + s->base[position];
    for (; to < end; to += SIGNED_ROWS) {
      int32_t *slot = areas->slot_of + (source + *offset++);
      if (!*slot) {
        areas->source[work->rows] = (int32_t)(slot - areas->slot_of);
        *slot = (int32_t)(work->rows++ * plan->stride);
      }
      *to = *slot;
    }
    for (int64_t i = 0; i < c->padded; i++, to += SIGNED_ROWS) *to = 0;
    tile->out[tile->rows++] = (float *)p->out + (target * p->groups + work->group) * p->columns;
  }
  if (tile) signed_fill_tile(tile, row);
  work->next = areas->source[work->rows - 1] + 1;
  for (int64_t slot = 1; slot < work->rows; slot++) areas->slot_of[areas->source[slot]] = 0;
  return begin + count;
}

static const uint32_t *signed_prepared(const signed_work *work, int64_t panel) {
  const bnn_product *p = work->product;
  int64_t first = (work->group * work->plan.panels + panel) * p->schedule->taps * work->plan.words;
  return (const uint32_t *)p->right + (first + work->block / BNN_WORD) * BNN_PANEL;
}

static void signed_stage_floats(const signed_work *work, const float *row, float *staged) {
#if SIGNED_TABLE
  int64_t k = 0;
  for (; k + 4 <= work->depth; k += 4, staged += BNN_LANES)
    v_store_f32(staged, v_table_f32(row[k], row[k + 1], row[k + 2], row[k + 3]));
  if (k < work->depth)
    v_store_f32(staged,
                v_table_f32(row[k], k + 1 < work->depth ? row[k + 1] : 0, k + 2 < work->depth ? row[k + 2] : 0, 0));
#else
  for (int64_t k = 0; k < work->depth; k++) staged[k] = row[k];
#endif
}

/* The rows of this chunk, for this block of the depth. */
static void signed_stage_left(const signed_work *work) {
  const bnn_product *p = work->product;
  const signed_plan *plan = &work->plan;
  const signed_areas *areas = &work->areas;
  int64_t image = work->image * p->schedule->sources;
  if (plan->bits) {
    const uint32_t *left = (const uint32_t *)p->left + work->block / BNN_WORD;
    if (p->constant) signed_expand((const uint32_t *)p->constant + work->block / BNN_WORD, work->depth, areas->staged);
    for (int64_t slot = 1; slot < work->rows; slot++) {
      int64_t row = (image + areas->source[slot]) * p->groups + work->group;
      signed_expand(left + row * plan->words, work->depth, areas->staged + slot * plan->stride);
    }
  } else {
    const float *left = (const float *)p->left + work->block;
    if (p->constant) signed_stage_floats(work, (const float *)p->constant + work->block, areas->staged);
    for (int64_t slot = 1; slot < work->rows; slot++) {
      int64_t row = (image + areas->source[slot]) * p->groups + work->group;
      signed_stage_floats(work, left + row * p->depth, areas->staged + slot * plan->stride);
    }
  }
}

/* The right operand of SIGNED_WIDTH columns as floats, for this block of the depth. */
static void signed_stage_right(const signed_work *work, int64_t column) {
  const bnn_product *p = work->product;
  const vf32 plus = v_set_f32(1), minus = v_set_f32(-1);
  float *out = work->areas.panel;
  int64_t columns = p->columns - column < SIGNED_WIDTH ? p->columns - column : SIGNED_WIDTH;
  for (int64_t tap = 0; tap < p->schedule->taps; tap++)
    for (int64_t k = 0; k < work->depth; k++, out += SIGNED_WIDTH)
      if (work->plan.bits) {
        const float *right = (const float *)p->right;
        right += ((tap * p->depth + work->block + k) * p->groups + work->group) * p->columns + column;
        for (int64_t n = 0; n < columns; n++) out[n] = right[n];
        for (int64_t n = columns; n < SIGNED_WIDTH; n++) out[n] = 0;
      } else {
        const uint32_t *words = signed_prepared(work, column / BNN_PANEL) + column % BNN_PANEL;
        words += (tap * work->plan.words + k / BNN_WORD) * BNN_PANEL;
        vu32 bit = v_set(UINT32_C(1) << k % BNN_WORD);
        for (int v = 0; v < SIGNED_WIDTH; v += BNN_LANES)
          v_store_f32(out + v, v_choose_f32(v_test(v_load(words + v), bit), minus, plus));
      }
}

/* Results of one tile of positions by the columns of a tile. */
static void signed_position_tile(const signed_work *work, signed_tile *tile, int64_t column) {
  tile->column = column;
  tile->columns = work->end_column - column;
  tile->out_stride = BNN_PANEL;
  tile->add = work->block > 0;
#if SIGNED_TABLE
  if (work->plan.table) {
    tile->right = signed_prepared(work, column / BNN_PANEL) + column % BNN_PANEL;
    tile->tap_stride = work->plan.words * BNN_PANEL;
    tile->panel_stride = work->product->schedule->taps * tile->tap_stride;
    signed_look_up_tile(tile);
    return;
  }
#endif
  tile->step = 1;
  tile->right = work->areas.panel;
  tile->tap_stride = work->depth * SIGNED_WIDTH;
  signed_multiply_add_tile(tile);
}

static void signed_chunk(signed_work *work) {
  int64_t depth = work->product->depth, taps = work->product->schedule->taps;
  signed_tile *tiles = work->areas.tiles;
  const int64_t most = work->plan.block;
  for (work->block = 0; work->block < depth || !work->block; work->block += most) {
    work->depth = depth - work->block < most ? depth - work->block : most;
    for (int64_t i = 0; i < taps; i++)
      work->areas.length[i] = (int32_t)(work->plan.table ? bnn_ceil(work->depth, 4) : work->depth);
    signed_stage_left(work);
    if (work->plan.table) { /* the tables of a tile stay in the first cache */
      const bnn_product *p = work->product;
      const int64_t sources = p->schedule->sources;
      int64_t next = work->image * sources + work->next; /* the next chunk will most likely read from there on */
      for (int64_t i = 0; i < work->tiles; i++, next += work->plan.rows) {
        fetch_rows_ahead((const float *)p->left + work->group * depth + work->block, p->groups * depth,
                         (size_t)work->depth * sizeof(float), next, work->plan.rows, p->images * sources);
        for (int64_t column = work->first_column; column < work->end_column; column += SIGNED_TABLE_WIDTH)
          signed_position_tile(work, tiles + i, column);
      }
    } else {
      for (int64_t column = work->first_column; column < work->end_column; column += SIGNED_WIDTH) {
        signed_stage_right(work, column);
        for (int64_t i = 0; i < work->tiles; i++) signed_position_tile(work, tiles + i, column);
      }
    }
  }
}

/* An item is a segment of positions by a span of panels of one group; consecutive items are merged into rectangles,
 * so that a long range stages its rows once. */
static void signed_rows_run(const bnn_product *p, int bits, int64_t begin, int64_t end, void *scratch) {
  signed_work work = {.product = p, .plan = signed_rows_plan(p, bits)};
  const signed_plan *plan = &work.plan;
  signed_rows_areas(p, plan, scratch, &work.areas);
  for (int64_t i = 0; i < plan->together * p->schedule->sources; i++) work.areas.slot_of[i] = 0;

  while (begin < end) {
    int64_t segment = begin / plan->spans, span = begin % plan->spans;
    int64_t segments = 1, spans = plan->spans - span;
    work.group = segment / plan->segments;
    segment %= plan->segments;
    if (span || end - begin < plan->spans) {
      if (spans > end - begin) spans = end - begin;
    } else {
      segments = bnn_least((end - begin) / plan->spans, plan->segments - segment);
    }
    begin += segments * spans;

    work.first_column = span * plan->width * BNN_PANEL;
    work.end_column = bnn_least((span + spans) * plan->width * BNN_PANEL, p->columns);
    int64_t last = bnn_least((segment + segments) * plan->segment, plan->total);
    for (int64_t position = segment * plan->segment; position < last;) {
      position = signed_collect(&work, position, last);
      signed_chunk(&work);
    }
  }
}

static size_t signed_rows_scratch(const bnn_product *p, int bits) {
  signed_plan plan = signed_rows_plan(p, bits);
  return signed_rows_areas(p, &plan, NULL, &(signed_areas){0});
}

#include "signed_sparse_rows.h"

static int64_t signed_right_items(const bnn_product *p) {
#if SIGNED_SPARSE
  if (sparse_rows(p)) return sparse_rows_items(p);
#endif
  return signed_rows_items(p, 0);
}
static int64_t signed_left_items(const bnn_product *p) { return signed_rows_items(p, 1); }

static size_t signed_right_scratch(const bnn_product *p) {
#if SIGNED_SPARSE
  if (sparse_rows(p)) return sparse_rows_scratch(p);
#endif
  return signed_rows_scratch(p, 0);
}
static size_t signed_left_scratch(const bnn_product *p) { return signed_rows_scratch(p, 1); }

static void signed_right_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
#if SIGNED_SPARSE
  if (sparse_rows(p)) {
    sparse_rows_run(p, begin, end, scratch);
    return;
  }
#endif
  signed_rows_run(p, 0, begin, end, scratch);
}

static void signed_left_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  signed_rows_run(p, 1, begin, end, scratch);
}
