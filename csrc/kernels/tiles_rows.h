/* signed_right with tiles: floats as fixed point, a few signed bytes each, times signs as +-1 bytes.
 *
 * A scale belongs to the rows that one result may read: to an image, or to a single row where the product is one tap
 * without padding, so that results do not depend on the batch. With m the largest magnitude under a scale, a float x
 * becomes the integer nearest to x / u, where the unit u is the power of two with m / u in [2^21.99, 2^22.99] (three
 * limbs) or [2^29.99, 2^30.99] (four): its balanced digits of base 256 are the limbs. Integers below 2^22 units, and
 * whatever is a multiple of the unit, are exact. A limb's sum over n = taps * depth terms is an exact int32, below
 * 2^24 as n <= 2^16, so neither tiles, threads nor the batch can change it. The sums s0, s1, ... are combined as
 * ((s0 * 256 + s1) * 65536 + (s2 * 256 + s3)) * u, each bracket rounded once. So the error of a result r is below
 *   n * u / 2 + 2^-23 * (|r| + 2^15 * n * u).
 *
 * Three limbs, four, or the kernel of signed_rows.h? A sum of n terms of typical size h has a rounding error of about
 * 0.29 sqrt(n) u here, and of 0.41 n h 2^-24 in a running float32 sum, as in a BLAS, whose blocks make n TILES_CHAIN
 * at most. The first number of limbs will do whose error is at most sqrt(TILES_EXCESS) times that of the float32 sum:
 * 2 (2^23 u / h)^2 <= TILES_EXCESS n. Of a row, h is the root of the mean square, but at most four times the mean
 * magnitude, as an outlier alone is not typical, and at least 1/64 of the largest: where zeros prevail, they are exact
 * in both sums. Of an image it is the harmonic mean over the rows that are not zero, which few rows far above the
 * others cannot lift; so results that read only small rows of an image keep their accuracy. Where four limbs do not
 * suffice, or squares may leave the range of floats, the image or the row is left to signed_rows.h.
 *
 * Sources are staged in lines of 64 bytes per limb, in a flat image: between rows lie so many lines of zeros, shared by
 * the end of one row and the beginning of the next, that whatever a tap reads beyond a border is among them; likewise
 * between planes and images. A tap is then a distance, and sixteen neighbouring lines are the rows of a tile,
 * whichever targets they belong to; those that are none are not stored. A strided backward product is as many such
 * products as there are remainders of a target by the stride, each with the taps that meet it. */

#define TILES_CHAIN 384
#define TILES_EXCESS 2
#define TILES_STAGED (1 << 19) /* bytes of lines to aim at: they are read once per panel, from the second cache */
#define TILES_LEAST 512        /* lines to have with twice as many bytes: signs are expanded once per panel for them */
#define TILES_MOST (4 << 20)   /* the most bytes of lines and of signs */
#define TILES_LIMBS 4
#define TILES_JOINED 4
#define TILES_LINE 64
#define TILES_TILE 1024
#define TILES_PANEL (2 * TILES_TILE) /* bytes of 64 steps of the depth for the columns of a panel */

/* One axis of the flat images. Lattice position q, for remainder r, is target q * phases + r, and tap k of it reads
 * line q + offset(r, k) where that is a source. */
typedef struct {
  int64_t targets, sources; /* of the product */
  int64_t lattice, lines;   /* positions, and lines or blocks of lines in all */
  int64_t lead;             /* lines of padding before the sources */
  int64_t read;             /* sources that are read at all */
  int64_t phases;
  int64_t lowest, highest; /* offsets, lead included */
} tiles_axis;

typedef struct {
  int used;     /* else signed_rows.h is */
  int by_row;   /* a scale per row */
  int constant; /* padding reads the constant row */
  int joined;   /* all limbs of a line stand in one tile, which so holds TILES_JOINED lines: for few rows */
  bnn_geometry geometry;
  int transposed;
  tiles_axis axis[3];
  int64_t phases, taps, terms, blocks, words, panels;
  int64_t image_rows, rows; /* rows of lines: of an image, of all of them */
  int64_t before, after;    /* rows that are read around those of the targets */
  int64_t most;             /* rows of targets that are staged together */
  int64_t lines;            /* staged */
  int64_t images;           /* of which rows are staged together, at most */
  int64_t height, units;    /* rows of an item */
  int64_t width, spans;     /* panels of an item */
} tiles_plan;

/* 0 if tap k of a target with remainder r reads nothing. */
static int tiles_offset(const tiles_plan *plan, int axis, int64_t r, int64_t k, int64_t *offset) {
  const bnn_geometry *g = &plan->geometry;
  int64_t reach = k * g->dilation[axis] - g->pad[axis];
  if (plan->transposed) {
    if ((r - reach) % g->stride[axis]) return 0;
    reach = (r - reach) / g->stride[axis];
  }
  *offset = reach + plan->axis[axis].lead;
  return 1;
}

static int tiles_axis_plan(tiles_plan *plan, int axis) {
  const bnn_geometry *g = &plan->geometry;
  tiles_axis *a = &plan->axis[axis];
  int64_t low = INT64_MAX, high = INT64_MIN, offset;
  if (g->stride[axis] > 1 && !plan->transposed) return 0;
  *a = (tiles_axis){.targets = plan->transposed ? g->in[axis] : g->out[axis],
                    .sources = plan->transposed ? g->out[axis] : g->in[axis],
                    .phases = g->stride[axis]};
  a->lattice = bnn_ceil(a->targets, a->phases);
  for (int64_t r = 0; r < a->phases && r < a->targets; r++)
    for (int64_t k = 0; k < g->kernel[axis]; k++)
      if (tiles_offset(plan, axis, r, k, &offset)) {
        if (offset < low) low = offset;
        if (offset > high) high = offset;
      }
  if (low > high) low = high = 0;
  int64_t end = a->lattice + high;
  a->read = end < a->sources ? (end > 0 ? end : 0) : a->sources;
  int64_t left = low < 0 ? -low : 0, right = end > a->read ? end - a->read : 0;
  a->lead = plan->constant ? left : 0;
  a->lines = a->read + (plan->constant ? left + right : left > right ? left : right);
  if (a->lines < a->lattice) a->lines = a->lattice;
  a->lowest = low + a->lead;
  a->highest = high + a->lead;
  return a->lines < 1 << 20;
}

/* Where tiles win, measured against signed_rows.h: two fifths of what they multiply are terms of a result, not padding
 * of the depth or of the image, and a result sums two lines at least, or combining limbs takes the time (the figures
 * are in docs/kernels.md). It depends neither on the batch nor, in a product by rows, on the pixels, which may be its
 * batch. */
static int tiles_win(const bnn_product *p, const tiles_plan *plan) {
  const bnn_schedule *s = p->schedule;
  double useful = 0, all = (double)(plan->image_rows * plan->axis[2].lines) * (double)(plan->taps * plan->blocks);
  for (const bnn_class *c = s->class_; c < s->class_ + s->classes; c++)
    useful += (double)c->count * (double)(c->valid + c->padded) * (double)p->depth;
  return 5 * useful >= 2 * TILES_LINE * all && plan->taps * plan->blocks > 1 && plan->terms <= 1 << 16;
}

static tiles_plan tiles_rows_plan(const bnn_product *p) {
  const bnn_schedule *s = p->schedule;
  tiles_plan plan = {.geometry = s->geometry, .transposed = s->transposed, .taps = s->taps, .phases = 1};
  plan.constant = p->constant && !plan.transposed;
  bnn_geometry *g = &plan.geometry;
  plan.terms = plan.taps * p->depth;
  plan.blocks = bnn_ceil(p->depth, TILES_LINE);
  plan.words = bnn_words(p->depth);
  plan.panels = bnn_panels(p->columns);
  if (!p->images || !s->pixels || !plan.terms || !plan.panels) return plan;

  int same = plan.taps == 1, line = 1;
  for (int axis = 0; axis < 3; axis++) {
    same = same && g->in[axis] == g->out[axis] && g->stride[axis] == 1 && !g->pad[axis];
    line = line && (axis == 2 || (g->in[axis] == 1 && g->out[axis] == 1 && g->kernel[axis] == 1 && !g->pad[axis]));
  }
  if (same) { /* lines of one pixel, in any number */
    plan.by_row = 1;
    plan.axis[0] = plan.axis[2] = (tiles_axis){1, 1, 1, 1, 0, 1, 1, 0, 0};
    plan.axis[1] = (tiles_axis){s->pixels, s->pixels, s->pixels, s->pixels, 0, s->pixels, 1, 0, 0};
  } else {
    if (line) { /* likewise */
      int64_t *const field[] = {g->in, g->out, g->kernel, g->stride, g->dilation, g->pad};
      for (int i = 0; i < 6; i++) {
        int64_t kept = field[i][1];
        field[i][1] = field[i][2];
        field[i][2] = kept;
      }
      g->stride[2] = 1;
    }
    for (int axis = 0; axis < 3; axis++)
      if (!tiles_axis_plan(&plan, axis)) return plan;
  }

  const tiles_axis *z = &plan.axis[0], *y = &plan.axis[1], *x = &plan.axis[2];
  plan.phases = z->phases * y->phases * x->phases;
  plan.image_rows = z->lines * y->lines;
  plan.rows = p->images * plan.image_rows;
  if (!tiles_win(p, &plan)) return plan;
  int64_t low = (z->lowest * y->lines + y->lowest) * x->lines + x->lowest;
  int64_t high = (z->highest * y->lines + y->highest) * x->lines + x->highest;
  plan.before = low < 0 ? bnn_ceil(-low, x->lines) : 0;
  plan.after = high > 0 ? bnn_ceil(high, x->lines) : 0;

  int64_t row = x->lines * plan.blocks * TILES_LIMBS * TILES_LINE;
  plan.most = 2 * TILES_STAGED / row < TILES_LEAST / x->lines ? 2 * TILES_STAGED / row : TILES_LEAST / x->lines;
  if (plan.most < TILES_STAGED / row) plan.most = TILES_STAGED / row;
  plan.most -= plan.before + plan.after;
  int64_t few = bnn_ceil(32, x->lines);
  if (plan.most < few) plan.most = few;
  if (((plan.before + few + plan.after) * x->lines + 32) * plan.blocks * TILES_LIMBS * TILES_LINE > TILES_MOST)
    return plan; /* not a matter of the batch */
  if (plan.most > plan.rows) plan.most = plan.rows;
  plan.images = plan.by_row ? 0 : plan.most / plan.image_rows + 2;
  plan.lines = (plan.before + plan.most + plan.after) * x->lines + 32;
  if (plan.taps * plan.blocks * TILES_PANEL > TILES_MOST || plan.phases > 64) return plan;

  plan.joined = plan.by_row && plan.rows <= 2 * TILES_JOINED;

  /* What staging costs is a small part of an item's time, if it has so many panels and a quarter of an image. */
  plan.width = bnn_ceil(24, plan.taps);
  plan.spans = bnn_ceil(plan.panels, plan.width);
  plan.width = bnn_ceil(plan.panels, plan.spans);
  plan.spans = bnn_ceil(plan.panels, plan.width);
  plan.height = (plan.by_row ? plan.rows : plan.image_rows) * plan.spans / 4;
  if (plan.height > plan.most) plan.height = plan.most;
  if (plan.height < few) plan.height = few;
  plan.units = bnn_ceil(plan.rows, plan.height);
  plan.used = 1;
  return plan;
}

static int64_t tiles_rows_items(const bnn_product *p) {
  tiles_plan plan = tiles_rows_plan(p);
  return plan.used ? p->groups * plan.units * plan.spans : signed_right_items(p);
}

typedef struct {
  int limbs;     /* 0 where all is zero, -1 where floats do not fit fixed point */
  float inverse; /* of the unit of as many limbs */
  float unit;    /* of four */
} tiles_scale;

typedef struct {
  int64_t *step;       /* [taps * blocks] bytes from the line of a position to the one a tap reads */
  int64_t *target;     /* [lines] which target a position is, or -1 */
  float *unit;         /* [lines] of its scale */
  int8_t *limbs;       /* [lines] likewise */
  tiles_scale *scales; /* [images] of the images staged together */
  int32_t *sums;       /* [limbs][2 tiles][2 tiles][16][16] */
  uint8_t *staged;     /* [blocks][limbs][lines][64] */
  int8_t *signs;       /* [blocks][taps][2][1024] */
  void *rest;          /* scratch of signed_rows.h, in the place of the last two */
} tiles_areas;

/* One image as a product, or with `one`, one row. */
static bnn_product tiles_part(const bnn_product *p, const tiles_plan *plan, const bnn_schedule *one, int64_t part) {
  bnn_product alone = *p;
  if (plan->by_row) alone.schedule = one;
  alone.images = 1;
  alone.threads = 0;
  alone.left = (const float *)p->left + part * alone.schedule->sources * p->groups * p->depth;
  alone.out = (float *)p->out + part * alone.schedule->pixels * p->groups * p->columns;
  return alone;
}

static const int32_t tiles_zero[1];
static const bnn_class tiles_class = {0, 1, 1, 0, tiles_zero, tiles_zero, 1};
static const bnn_schedule tiles_row_schedule = {.pixels = 1,
                                                .sources = 1,
                                                .taps = 1,
                                                .classes = 1,
                                                .class_ = &tiles_class,
                                                .pixel = tiles_zero,
                                                .base = tiles_zero};

/* Lays the areas out from `base` and returns their size. */
static size_t tiles_rows_areas(const bnn_product *p, const tiles_plan *plan, void *base, tiles_areas *areas) {
  size_t used = 0;
  areas->step = bnn_area(base, &used, plan->taps * plan->blocks * (int64_t)sizeof(int64_t));
  areas->target = bnn_area(base, &used, plan->lines * (int64_t)sizeof(int64_t));
  areas->unit = bnn_area(base, &used, plan->lines * (int64_t)sizeof(float));
  areas->limbs = bnn_area(base, &used, plan->lines);
  areas->scales = bnn_area(base, &used, plan->images * (int64_t)sizeof(tiles_scale));
  areas->sums = bnn_area(base, &used, TILES_LIMBS * 4 * TILES_TILE);
  size_t rest = used;
  areas->staged = bnn_area(base, &used, plan->blocks * TILES_LIMBS * plan->lines * TILES_LINE);
  areas->signs = bnn_area(base, &used, plan->blocks * plan->taps * TILES_PANEL);
  areas->rest = areas->staged;
  bnn_product alone = tiles_part(p, plan, &tiles_row_schedule, 0);
  rest += signed_right_scratch(&alone);
  return rest > used ? rest : used;
}

static size_t tiles_rows_scratch(const bnn_product *p) {
  tiles_plan plan = tiles_rows_plan(p);
  return plan.used ? tiles_rows_areas(p, &plan, NULL, &(tiles_areas){0}) : signed_right_scratch(p);
}

/* ---- scales ---------------------------------------------------------------------------------------------------- */

typedef struct {
  float largest, squares;
  float rows, inverses; /* rows that are not zero, and the sum of their 1 / h */
} tiles_range;

/* Of sixteen rows, a row to a lane. */
typedef struct {
  vf32 largest, squares, inverse; /* 1 / h, or 0 where all is zero */
} tiles_ranges;

/* Rows that are not among the first `rows` are zero. */
static tiles_ranges tiles_measure(const float *row, int64_t stride, int64_t rows, int64_t depth) {
  const vf32 zero = v_set_f32(0);
  vf32 sums[BNN_LANES], squares[BNN_LANES], largest[BNN_LANES];
  for (int64_t r = 0; r < BNN_LANES; r++, row += stride) {
    sums[r] = squares[r] = largest[r] = zero;
    for (int64_t k = 0; k < depth && r < rows; k += BNN_LANES) {
      fetch_ahead(row + k + FETCH_AHEAD, 1);
      vf32 x = depth - k < BNN_LANES ? v_load_part_f32(row + k, depth - k) : v_load_f32(row + k);
      squares[r] = v_fma_f32(x, x, squares[r]);
      x = v_abs_f32(x);
      sums[r] = v_add_f32(sums[r], x);
      largest[r] = v_max_f32(x, largest[r]);
    }
  }
  tiles_ranges ranges = {.largest = v_peaks_f32(largest), .squares = v_totals_f32(squares)};
  const vf32 count = v_set_f32((float)depth), mean = v_div_f32(v_totals_f32(sums), count);
  vf32 size = v_root_f32(v_div_f32(ranges.squares, count)), most = v_mul_f32(mean, v_set_f32(4));
  size = v_choose_f32(v_less_f32(most, size), most, size);
  size = v_max_f32(v_mul_f32(ranges.largest, v_set_f32(1.0f / 64)), size);
  ranges.inverse = v_choose_f32(v_less_f32(zero, ranges.largest), v_div_f32(v_set_f32(1), size), zero);
  return ranges;
}

static tiles_scale tiles_scale_of(const tiles_range *range, int64_t terms) {
  const float smallest = 0x1p-56f, largest = 0x1p50f;
  /* NaN is in no maximum, but in the squares. */
  if (range->largest == 0 && range->squares == 0) return (tiles_scale){0, 0, 0};
  int plain = range->largest >= smallest && range->largest <= largest && range->squares >= 0;
  if (!plain) return (tiles_scale){-1, 0, 0};
  /* The power of two above the largest, but for a little room */
  union {
    float x;
    uint32_t bits;
  } power = {.x = range->largest * 1.0078125f};
  power.bits &= 0x7f800000;
  float unit = power.x * 0x1p-30f, chain = (float)(terms < TILES_CHAIN ? terms : TILES_CHAIN);
  float ratio = unit * 0x1p23f * range->inverses / range->rows, excess = ratio * ratio * 2 / chain;
  if (excess * 0x1p16f <= TILES_EXCESS) return (tiles_scale){3, 1 / (unit * 256), unit};
  return (tiles_scale){excess <= TILES_EXCESS ? 4 : -1, 1 / unit, unit};
}

/* ---- staging --------------------------------------------------------------------------------------------------- */

/* What one run works on. */
typedef struct {
  const bnn_product *product;
  tiles_plan plan;
  tiles_areas areas;
  int64_t group, first_panel, end_panel;
  int64_t begin, end; /* rows of lines whose targets are staged together */
  int special;        /* one of them has none */
  int64_t image;      /* the first of which rows are staged */
  int64_t measured;   /* the image that `scale` was last measured of, or -1 */
  tiles_scale scale;
  int64_t steps;
} tiles_work;

static const float *tiles_source(const tiles_work *work, int64_t row) {
  const bnn_product *p = work->product;
  return (const float *)p->left + (row * p->groups + work->group) * p->depth;
}

static void tiles_scale_image(tiles_work *work, int64_t image) {
  const bnn_product *p = work->product;
  if (work->measured == image) return;
  work->measured = image;
  const vf32 zero = v_set_f32(0), one = v_set_f32(1);
  vf32 largest = zero, squares = zero, rows = zero, inverses = zero;
  int64_t sources = p->schedule->sources, all = work->plan.constant ? sources + 1 : sources;
  for (int64_t i = 0, count; i < all; i += count) {
    count = sources - i < BNN_LANES ? sources - i : BNN_LANES;
    if (i == sources) count = 1; /* the constant row */
    const float *row = i == sources ? p->constant : tiles_source(work, image * sources + i);
    tiles_ranges of = tiles_measure(row, p->groups * p->depth, count, p->depth);
    largest = v_max_f32(of.largest, largest);
    squares = v_add_f32(squares, of.squares);
    rows = v_add_f32(rows, v_choose_f32(v_less_f32(zero, of.largest), one, zero));
    inverses = v_add_f32(inverses, of.inverse);
  }
  tiles_range range = {v_peak_f32(largest), v_total_f32(squares), v_total_f32(rows), v_total_f32(inverses)};
  work->scale = tiles_scale_of(&range, work->plan.terms);
}

/* A line of `depth` floats for each limb. */
static void tiles_stage_line(const tiles_work *work, const float *row, int64_t line) {
  const vf32 inverse = v_set_f32(work->scale.inverse);
  const int shift = work->scale.limbs == 3 ? 8 : 0;
  const tiles_plan *plan = &work->plan;
  int64_t depth = work->product->depth, stride = plan->joined ? TILES_LINE : plan->lines * TILES_LINE;
  uint8_t *out = work->areas.staged + line * (plan->joined ? TILES_LIMBS * TILES_LINE : TILES_LINE);
  for (int64_t k = 0; k < depth; k += TILES_LINE, out += plan->lines * TILES_LIMBS * TILES_LINE) {
    vu32 x[4];
    for (int v = 0; v < 4; v++) {
      int64_t rest = depth - k - v * BNN_LANES;
      vf32 part = rest >= BNN_LANES ? v_load_f32(row + k + v * BNN_LANES)
                  : rest > 0        ? v_load_part_f32(row + k + v * BNN_LANES, rest)
                                    : v_set_f32(0);
      x[v] = v_shift_left(v_nearest(v_mul_f32(part, inverse)), shift);
    }
    t_store_digits(out, stride, x[0], x[1], x[2], x[3]);
  }
}

static void tiles_stage_zeros(const tiles_work *work, int64_t line, int64_t count) {
  for (int64_t part = 0; part < work->plan.blocks * TILES_LIMBS; part++) {
    uint8_t *out = work->areas.staged + (part * work->plan.lines + line) * TILES_LINE;
    for (int64_t i = 0; i < count; i++) v_store(out + i * TILES_LINE, v_set(0));
  }
}

static void tiles_stage_rows(tiles_work *work) {
  const bnn_product *p = work->product;
  const tiles_plan *plan = &work->plan;
  work->special = 0;
  float largest[BNN_LANES], squares[BNN_LANES], inverse[BNN_LANES];
  for (int64_t row = work->begin; row < work->end; row++) {
    int64_t lane = (row - work->begin) % BNN_LANES;
    if (lane == 0) {
      tiles_ranges of = tiles_measure(tiles_source(work, row), p->groups * p->depth, work->end - row, p->depth);
      v_store_f32(largest, of.largest);
      v_store_f32(squares, of.squares);
      v_store_f32(inverse, of.inverse);
    }
    tiles_range range = {largest[lane], squares[lane], 1, inverse[lane]};
    work->scale = tiles_scale_of(&range, plan->terms);
    if (work->scale.limbs < 0) work->special = 1;
    if (work->scale.limbs < 0) work->scale.inverse = 0; /* the line is not used, but lies in a tile with others */
    tiles_stage_line(work, tiles_source(work, row), row - work->begin);
    work->areas.unit[row - work->begin] = work->scale.unit;
    work->areas.limbs[row - work->begin] = (int8_t)work->scale.limbs;
    work->areas.target[row - work->begin] = work->scale.limbs < 0 ? -1 : row;
  }
}

/* Of an image, which lies in `begin` .. `end` at least in part, rows `first` up to `last`, its padding included. */
static void tiles_stage_image(tiles_work *work, int64_t image, int64_t first, int64_t last) {
  const bnn_product *p = work->product;
  const tiles_plan *plan = &work->plan;
  const tiles_axis *z = &plan->axis[0], *y = &plan->axis[1], *x = &plan->axis[2];
  int64_t line = (image * plan->image_rows + first - work->begin + plan->before) * x->lines;
  for (int64_t row = first; row < last; row++, line += x->lines) {
    int64_t iz = row / y->lines - z->lead, iy = row % y->lines - y->lead;
    int inside = iz >= 0 && iz < z->read && iy >= 0 && iy < y->read && work->scale.limbs > 0;
    int64_t source = ((image * z->sources + iz) * y->sources + iy) * x->sources, lead = inside ? x->lead : x->lines;
    int64_t end = inside ? lead + x->read : x->lines;
    if (plan->constant && work->scale.limbs > 0) {
      for (int64_t i = 0; i < x->lines; i++)
        if (i < lead || i >= end) tiles_stage_line(work, p->constant, line + i);
    } else {
      tiles_stage_zeros(work, line, lead);
      tiles_stage_zeros(work, line + end, x->lines - end);
    }
    for (int64_t i = lead; i < end; i++) tiles_stage_line(work, tiles_source(work, source + i - lead), line + i);
  }
}

static void tiles_stage_images(tiles_work *work) {
  const tiles_plan *plan = &work->plan;
  int64_t rows = plan->image_rows, from = work->begin - plan->before, to = work->end + plan->after;
  int64_t image = work->image = work->begin / rows, last = (work->end - 1) / rows, lines = plan->axis[2].lines;
  work->special = 0;
  if (from < image * rows) {
    tiles_stage_zeros(work, 0, (image * rows - from) * lines);
    from = image * rows;
  }
  for (; image <= last; image++) {
    int64_t end = to < (image + 1) * rows ? to : (image + 1) * rows;
    tiles_scale_image(work, image);
    if (work->scale.limbs < 0) work->special = 1;
    work->areas.scales[image - work->image] = work->scale;
    tiles_stage_image(work, image, from - image * rows, end - image * rows);
    from = end;
  }
  if (from < to) tiles_stage_zeros(work, (from - work->begin + plan->before) * lines, (to - from) * lines);
}

/* Which targets the positions are, for one remainder by the strides. */
static void tiles_list_targets(const tiles_work *work, const int64_t phase[3]) {
  const tiles_plan *plan = &work->plan;
  const tiles_axis *z = &plan->axis[0], *y = &plan->axis[1], *x = &plan->axis[2];
  int64_t *target = work->areas.target;
  float *unit = work->areas.unit;
  int8_t *limbs = work->areas.limbs;
  for (int64_t row = work->begin; row < work->end; row++, target += x->lines, unit += x->lines, limbs += x->lines) {
    int64_t image = row / plan->image_rows, at = row % plan->image_rows;
    int64_t tz = at / y->lines * z->phases + phase[0], ty = at % y->lines * y->phases + phase[1];
    const tiles_scale *scale = work->areas.scales + image - work->image;
    int inside = tz < z->targets && ty < y->targets && scale->limbs >= 0;
    int64_t first = ((image * z->targets + tz) * y->targets + ty) * x->targets + phase[2];
    for (int64_t i = 0; i < x->lines; i++) {
      target[i] = inside && i * x->phases + phase[2] < x->targets ? first + i * x->phases : -1;
      unit[i] = scale->unit;
      limbs[i] = (int8_t)scale->limbs;
    }
  }
}

/* The taps of one remainder: where they read, and their signs for a panel of columns. */
static void tiles_list_steps(tiles_work *work, const int64_t phase[3], int64_t panel) {
  const bnn_product *p = work->product;
  const tiles_plan *plan = &work->plan;
  const tiles_axis *y = &plan->axis[1], *x = &plan->axis[2];
  const int64_t *kernel = plan->geometry.kernel;
  /* the four bytes of a nibble */
  static const uint32_t nibbles[16] = {0x01010101, 0x010101ff, 0x0101ff01, 0x0101ffff, 0x01ff0101, 0x01ff01ff,
                                       0x01ffff01, 0x01ffffff, 0xff010101, 0xff0101ff, 0xff01ff01, 0xff01ffff,
                                       0xffff0101, 0xffff01ff, 0xffffff01, 0xffffffff};
  const vf32 table = v_as_float(v_load(nibbles));
  const uint32_t *right =
      (const uint32_t *)p->right + (work->group * plan->panels + panel) * plan->taps * plan->words * BNN_PANEL;
  int8_t *signs = work->areas.signs;
  work->steps = 0;
  for (int64_t block = 0; block < plan->blocks; block++)
    for (int64_t tap = 0; tap < plan->taps; tap++) {
      int64_t oz = 0, oy = 0, ox = 0;
      if (!plan->by_row && !(tiles_offset(plan, 0, phase[0], tap / (kernel[2] * kernel[1]), &oz) &&
                             tiles_offset(plan, 1, phase[1], tap / kernel[2] % kernel[1], &oy) &&
                             tiles_offset(plan, 2, phase[2], tap % kernel[2], &ox)))
        continue;
      int64_t lines = block * TILES_LIMBS * plan->lines + (oz * y->lines + oy) * x->lines + ox;
      work->areas.step[work->steps++] = lines * TILES_LINE;
      const uint32_t *words = right + (tap * plan->words + 2 * block) * BNN_PANEL;
      for (int half = 0; half < 2; half++, signs += TILES_TILE)
        for (int w = 0; w < 2; w++) {
          vu32 bits = 2 * block + w < plan->words ? v_load(words + w * BNN_PANEL + half * BNN_LANES) : v_set(0);
          for (int i = 8 * w; i < 8 * w + 8; i++, bits = v_next_nibble(bits))
            v_store(signs + (i % 4 * 4 + i / 4) * TILES_LINE, v_bits_of(v_look_up_f32(table, bits)));
        }
    }
  if (work->steps) return;
  work->areas.step[work->steps++] = 0; /* results that read nothing are a step of zeros */
  for (int i = 0; i < 32; i++) v_store(signs + i * TILES_LINE, v_set(0));
}

/* ---- products -------------------------------------------------------------------------------------------------- */

/* One or two tiles of positions, of which one limb is summed after the other. */
typedef struct {
  int64_t at[2], next; /* their positions, and where the next pair may begin */
  int tiles, limbs, limb;
  const uint8_t *upper, *lower;
} tiles_pair;

/* On to the next limb, or pair; 0 if there is none. */
static int tiles_advance(const tiles_work *work, tiles_pair *pair) {
  const tiles_plan *plan = &work->plan;
  const int64_t lines = plan->axis[2].lines, count = (work->end - work->begin) * lines;
  const int64_t line = plan->joined ? TILES_LIMBS * TILES_LINE : TILES_LINE;
  if (plan->joined || ++pair->limb >= pair->limbs) {
    int64_t position = pair->next;
    for (pair->tiles = 0; pair->tiles < 2; position += plan->joined ? TILES_JOINED : 16) {
      while (position < count && work->areas.target[position] < 0) position++;
      if (position >= count) break;
      pair->at[pair->tiles++] = position;
    }
    if (!pair->tiles) return 0;
    if (pair->tiles < 2) pair->at[1] = pair->at[0];
    pair->next = position;
    pair->limb = 0;
    pair->limbs = 3;
    for (int i = 0; i < 32; i++) {
      int limbs = work->areas.limbs[pair->at[i / 16] + i % 16];
      if (limbs > pair->limbs) pair->limbs = limbs;
    }
  }
  const uint8_t *first = work->areas.staged + (plan->before * lines + pair->limb * plan->lines) * TILES_LINE;
  pair->upper = first + pair->at[0] * line;
  pair->lower = first + pair->at[1] * line;
  return 1;
}

/* A step of one limb, by one or two tiles of positions and of columns. All loads come before the products: the same
 * time alone, but where another thread of the core runs, a load between products delays those behind it, a tenth of the
 * whole. */
BNN_INLINE void tiles_step(const tiles_pair *pair, int64_t step, const int8_t *signs, const int tall, const int wide) {
  t_load(6, signs, TILES_LINE);
  if (wide) t_load(7, signs + TILES_TILE, TILES_LINE);
  t_load(4, pair->upper + step, TILES_LINE);
  if (tall) t_load(5, pair->lower + step, TILES_LINE);
  t_dot(0, 4, 6);
  if (tall) t_dot(2, 5, 6);
  if (wide) t_dot(1, 4, 7);
  if (tall && wide) t_dot(3, 5, 7);
}

/* Stores the sums of a limb, if there was one, and does the first step of the next. What a product has not finished
 * waits in the scheduler, sixteen stores a tile; with all four tiles there is no room for what comes after them. So
 * each follows loads, and a product of the next limb follows it: 279 ns for 36 products and their stores, and not 324.
 */
BNN_INLINE void tiles_turn(const tiles_pair *pair, int64_t step, const int8_t *signs, int32_t *sums, const int tall,
                           const int wide) {
  t_load(6, signs, TILES_LINE);
  t_load(4, pair->upper + step, TILES_LINE);
  if (sums) t_store(0, sums, TILES_LINE);
  t_zero(0);
  t_dot(0, 4, 6);
  if (tall) {
    t_load(5, pair->lower + step, TILES_LINE);
    if (sums) t_store(2, sums + 512, TILES_LINE);
    t_zero(2);
    t_dot(2, 5, 6);
  }
  if (wide) {
    t_load(7, signs + TILES_TILE, TILES_LINE);
    if (sums) t_store(1, sums + 256, TILES_LINE);
    t_zero(1);
    t_dot(1, 4, 7);
  }
  if (tall && wide) {
    if (sums) t_store(3, sums + 768, TILES_LINE);
    t_zero(3);
    t_dot(3, 5, 7);
  }
}

/* The results of one or two tiles of columns from the sums of their limbs; `joined` limbs of a line are neighbours. */
BNN_INLINE void tiles_combine_rows(const tiles_work *work, int64_t position, const int32_t *sums, int64_t column,
                                   const int four, const int joined, const int whole) {
  const bnn_product *p = work->product;
  const vf32 byte = v_set_f32(0x1p8f), pair = v_set_f32(0x1p16f);
  const int64_t columns = p->columns - column, width = p->groups * p->columns;
  const int64_t *target = work->areas.target + position;
  const float *unit = work->areas.unit + position;
  float *first = (float *)p->out + work->group * p->columns + column;
  const int limb = joined ? 16 : 1024;
  for (int r = 0; r < (joined ? TILES_JOINED : 16); r++, sums += joined ? TILES_LIMBS * 16 : 16) {
    if (target[r] < 0) continue;
    float *out = first + target[r] * width;
    const vf32 scale = v_set_f32(unit[r]);
    for (int half = 0; half < 2 && (whole || half * BNN_LANES < columns); half++) {
      const int32_t *sum = sums + half * 256;
      vf32 high = v_fma_f32(v_float(v_load(sum)), byte, v_float(v_load(sum + limb)));
      vf32 low = v_mul_f32(v_float(v_load(sum + 2 * limb)), byte);
      if (four) low = v_add_f32(low, v_float(v_load(sum + 3 * limb)));
      vf32 y = v_mul_f32(v_fma_f32(high, pair, low), scale);
      if (whole)
        v_store_f32(out + half * BNN_LANES, y);
      else
        v_store_part_f32(out + half * BNN_LANES, y, columns - half * BNN_LANES);
    }
  }
}

static void tiles_combine(const tiles_work *work, const tiles_pair *pair, int64_t column) {
  const int whole = work->product->columns - column >= 2 * BNN_LANES;
  for (int i = 0; i < pair->tiles; i++) {
    const int32_t *sums = work->areas.sums + i * 512;
    if (work->plan.joined)
      tiles_combine_rows(work, pair->at[i], sums, column, 1, 1, 0);
    else if (pair->limbs > 3)
      tiles_combine_rows(work, pair->at[i], sums, column, 1, 0, 0);
    else if (whole)
      tiles_combine_rows(work, pair->at[i], sums, column, 0, 0, 1);
    else
      tiles_combine_rows(work, pair->at[i], sums, column, 0, 0, 0);
  }
}

/* Asks for the lines that some results of a tile will be written to. */
static void tiles_expect(const tiles_work *work, int64_t position, int64_t column, int64_t first, int64_t end) {
  const bnn_product *p = work->product;
  float *out = (float *)p->out + work->group * p->columns + column;
  for (int64_t r = first; r < end && r < 16; r++) {
    int64_t target = work->areas.target[position + r];
    if (target >= 0) fetch_to_write(out + target * p->groups * p->columns, BNN_PANEL * sizeof *out);
  }
}

/* The pairs from `pair` on. While the second limb is summed, the lines are asked for that the results of the first tile
 * are written to, and then those of the second, a few a step: a store that waits for its line holds up the loads of
 * tiles behind it. */
BNN_INLINE void tiles_pairs(const tiles_work *work, tiles_pair pair, int64_t column, const int tall, const int wide) {
  const int64_t *step = work->areas.step, steps = work->steps, some = steps > 1 ? (14 + steps) / (steps - 1) : 0;
  const int8_t *signs = work->areas.signs;
  tiles_pair last = pair;
  int32_t *sums = NULL;
  for (int more = 1; more; more = tiles_advance(work, &pair)) {
    tiles_turn(&pair, step[0], signs, sums, tall, wide);
    if (sums && !pair.limb) tiles_combine(work, &last, column);
    for (int64_t i = 1; i < steps; i++) {
      tiles_step(&pair, step[i], signs + i * TILES_PANEL, tall, wide);
      if (pair.limb == 1 || pair.limb == 2)
        tiles_expect(work, pair.at[pair.limb - 1], column, (i - 1) * some, i * some);
    }
    sums = work->areas.sums + pair.limb * 1024;
    last = pair;
  }
  tiles_turn(&last, step[0], signs, sums, tall, wide);
  tiles_combine(work, &last, column);
}

static void tiles_panel(const tiles_work *work, int64_t column) {
  const int wide = work->product->columns - column > 16;
  tiles_pair pair = {.next = 0};
  t_stored();
  if (!tiles_advance(work, &pair)) return;
  if (pair.tiles > 1 && wide)
    tiles_pairs(work, pair, column, 1, 1);
  else if (pair.tiles > 1)
    tiles_pairs(work, pair, column, 1, 0);
  else if (wide)
    tiles_pairs(work, pair, column, 0, 1);
  else
    tiles_pairs(work, pair, column, 0, 0);
}

/* Images and rows without a scale: of an image, the share of its results that falls to these rows and panels. */
static void tiles_leave(const tiles_work *work) {
  const bnn_product *p = work->product;
  const tiles_plan *plan = &work->plan;
  int64_t rows = plan->by_row ? 1 : plan->image_rows;
  for (int64_t row = work->begin; row < work->end;) {
    int64_t part = row / rows, first = row % rows, last = rows;
    if (work->end < (part + 1) * rows) last = work->end - part * rows;
    row += last - first;
    if (plan->by_row ? work->areas.target[part - work->begin] >= 0 : work->areas.scales[part - work->image].limbs >= 0)
      continue;
    bnn_product alone = tiles_part(p, plan, &tiles_row_schedule, part);
    int64_t segments = signed_right_items(&alone) / (p->groups * plan->panels);
    for (int64_t i = first * segments / rows; i < last * segments / rows; i++) {
      int64_t item = (work->group * segments + i) * plan->panels;
      signed_right_run(&alone, item + work->first_panel, item + work->end_panel, work->areas.rest);
    }
  }
}

static void tiles_rectangle(tiles_work *work) {
  const tiles_plan *plan = &work->plan;
  if (plan->by_row)
    tiles_stage_rows(work);
  else
    tiles_stage_images(work);
  int64_t lines = (work->end - work->begin) * plan->axis[2].lines;
  for (int64_t i = lines; i < lines + 16; i++) {
    work->areas.target[i] = -1;
    work->areas.limbs[i] = 0;
  }
  for (int64_t i = 0; i < plan->phases; i++) {
    int64_t last = plan->axis[2].phases, next = plan->axis[1].phases;
    const int64_t phase[3] = {i / last / next, i / last % next, i % last};
    if (!plan->by_row) tiles_list_targets(work, phase);
    t_begin();
    for (int64_t panel = work->first_panel; panel < work->end_panel; panel++) {
      tiles_list_steps(work, phase, panel);
      tiles_panel(work, panel * BNN_PANEL);
    }
    t_end();
  }
  if (work->special) tiles_leave(work);
}

/* An item is a unit of rows by a span of panels of one group; consecutive items are merged into rectangles, so that a
 * long range stages its rows once. */
static void tiles_rows_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  tiles_work work = {.product = p, .plan = tiles_rows_plan(p), .measured = -1};
  const tiles_plan *plan = &work.plan;
  if (!plan->used) {
    signed_right_run(p, begin, end, scratch);
    return;
  }
  tiles_rows_areas(p, plan, scratch, &work.areas);
  while (begin < end) {
    int64_t unit = begin / plan->spans, span = begin % plan->spans, group = unit / plan->units;
    int64_t units = 1, spans = plan->spans - span;
    unit %= plan->units;
    if (span || end - begin < plan->spans) {
      if (spans > end - begin) spans = end - begin;
    } else {
      units = (end - begin) / plan->spans;
      if (units > plan->units - unit) units = plan->units - unit;
    }
    begin += units * spans;

    if (group != work.group) work.measured = -1;
    work.group = group;
    work.first_panel = span * plan->width;
    work.end_panel = (span + spans) * plan->width;
    if (work.end_panel > plan->panels) work.end_panel = plan->panels;
    int64_t row = unit * plan->height, last = (unit + units) * plan->height;
    if (last > plan->rows) last = plan->rows;
    while (row < last) {
      int64_t chunks = bnn_ceil(last - row, plan->most);
      work.begin = row;
      work.end = row += bnn_ceil(last - row, chunks);
      tiles_rectangle(&work);
    }
  }
}
