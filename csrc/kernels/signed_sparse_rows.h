/* signed_right where most of the left operand is zero. What is not zero of a source pixel is listed once, and given to
 * every target pixel that reads it: by unit after unit, each of which is for one tap, or for several neighbours.
 *
 * Order of a sum, and so its bits: blocks of the depth ascending; within one the chunks of an image; of each the units,
 * then its pixels. What a pixel gives is one running sum from zero over groups of four of what is not zero, each
 * ((a + b) + c) + d, and is added to the result. The error is below (SPARSE_BLOCK / 4 + taps * (depth / SPARSE_BLOCK +
 * 1) + 4) * 2^-24 * (sum of magnitudes), be most zero or not.
 *
 * An item is an image by some units of columns of one group. */

#if SIGNED_SPARSE

#define SPARSE_BLOCK 512         /* most elements of the depth that are listed together */
#define SPARSE_SIGNS 4608        /* and by taps, so that their signs stay in the second cache */
#define SPARSE_TARGETS (1 << 18) /* of an image: more are not worth to be listed for each thread */
#define SPARSE_CHUNK 32          /* source pixels: what they give and their tables stay in a near cache */
#define SPARSE_ROWS_AHEAD 8      /* pixels */

typedef struct {
  int64_t words, panels; /* of the depth, and of columns */
  int64_t block;         /* of the depth */
  int64_t width, spans;  /* panels of an item, and how many of these there are */
  int64_t hand;          /* most panels whose signs are at hand at once */
  int64_t signs;         /* of SPARSE_WORDS panels or fewer */
  int64_t chunk;         /* pixels, of one image or of several */
  int64_t stride;        /* floats of a pixel's list */
} sparse_rows_plan;

static int sparse_rows(const bnn_product *p) {
  const bnn_schedule *s = p->schedule;
  return sparse_suits(p, p->columns) && p->depth && s->sources && s->sources * s->taps <= SPARSE_TARGETS;
}

/* The list of a pixel is the number of its tables, and tables, values and places of `block` at most, with room for a
 * vector behind values and places. */
static int64_t sparse_room(int64_t block) { return bnn_ceil(block + BNN_LANES, BNN_LANES) * BNN_LANES; }
static int64_t sparse_stride(int64_t block) {
  return BNN_LANES + bnn_ceil(block, 4) * BNN_LANES + 2 * sparse_room(block);
}

static sparse_rows_plan sparse_plan_rows(const bnn_product *p) {
  const bnn_schedule *s = p->schedule;
  sparse_rows_plan plan = {.words = bnn_words(p->depth), .panels = bnn_panels(p->columns)};
  plan.block = bnn_least(SPARSE_BLOCK, SPARSE_SIGNS / s->taps / BNN_WORD * BNN_WORD);
  if (plan.block < BNN_WORD) plan.block = BNN_WORD;
  if (plan.block > p->depth) plan.block = p->depth;
  int64_t images = p->groups * p->images, spans = p->threads && images ? bnn_ceil(p->threads, images) : 1;
  plan.width = bnn_ceil(bnn_ceil(plan.panels, SPARSE_WORDS), spans) * SPARSE_WORDS;
  plan.spans = bnn_ceil(plan.panels, plan.width);
  plan.signs = s->taps * plan.block * BNN_LANES;
  plan.hand = bnn_least(plan.width, bnn_ceil(SPARSE_SIGNS, s->taps * plan.block + 1) * SPARSE_WORDS);
  plan.chunk = s->sources > SPARSE_CHUNK ? SPARSE_CHUNK : SPARSE_CHUNK / s->sources * s->sources;
  plan.stride = sparse_stride(plan.block);
  return plan;
}

static int64_t sparse_rows_items(const bnn_product *p) { return p->groups * p->images * sparse_plan_rows(p).spans; }

typedef struct {
  const bnn_product *product;
  sparse_rows_plan plan;
  int64_t group, first, last; /* images */
  int64_t panel, panels;      /* whose signs are at hand */
  int64_t begin, depth;       /* of this block */
  float *lists;               /* [chunk][stride] */
  uint32_t *signs;            /* [panels / SPARSE_WORDS][units][block][BNN_LANES] */
  int32_t *target;            /* [sources][taps], -1 where a pixel is read by none */
  int32_t *usual;             /* [taps]: how far behind the first of them the others are, of most pixels */
  uint8_t *strange;           /* [sources]: of which pixels they are not */
  float *none;                /* [BNN_PANEL]: for what is read by none */
} sparse_work;

typedef struct {
  uint32_t *count;
  float *tables, *value;
  uint32_t *place;
} sparse_row;

/* Lays the areas out from `base` and returns their size. */
static size_t sparse_rows_areas(const bnn_product *p, const sparse_rows_plan *plan, void *base, sparse_work *work) {
  const bnn_schedule *s = p->schedule;
  const int64_t size = sizeof(int32_t);
  size_t used = 0;
  work->lists = bnn_area(base, &used, plan->chunk * plan->stride * (int64_t)sizeof(float));
  work->signs = bnn_area(base, &used, plan->hand / SPARSE_WORDS * plan->signs * size);
  work->target = bnn_area(base, &used, s->sources * s->taps * size);
  work->usual = bnn_area(base, &used, s->taps * size);
  work->strange = bnn_area(base, &used, s->sources);
  work->none = bnn_area(base, &used, BNN_PANEL * (int64_t)sizeof(float));
  return used;
}

static size_t sparse_rows_scratch(const bnn_product *p) {
  sparse_rows_plan plan = sparse_plan_rows(p);
  return sparse_rows_areas(p, &plan, NULL, &(sparse_work){0});
}

BNN_INLINE sparse_row sparse_row_of(const sparse_work *work, int64_t i) {
  float *list = work->lists + i * work->plan.stride;
  float *tables = list + BNN_LANES, *value = tables + bnn_ceil(work->plan.block, 4) * BNN_LANES;
  return (sparse_row){(uint32_t *)list, tables, value, (uint32_t *)(value + sparse_room(work->plan.block))};
}

/* Which pixel each tap of a source pixel is read by. */
static void sparse_find_targets(const sparse_work *work) {
  const bnn_schedule *s = work->product->schedule;
  for (int64_t i = 0; i < s->sources * s->taps; i++) work->target[i] = -1;
  for (int64_t t = 0; t < s->taps; t++) work->usual[t] = 0;
  for (const bnn_class *class_ = s->class_; class_ < s->class_ + s->classes; class_++)
    for (int64_t i = 0; i < class_->valid; i++)
      for (int64_t at = class_->first; at < class_->first + class_->count; at++)
        work->target[(s->base[at] + class_->offset[i]) * s->taps + class_->tap[i]] = s->pixel[at];
  for (int64_t i = 0, found = 0; i < s->sources; i++) {
    const int32_t *target = work->target + i * s->taps;
    int strange = 0;
    for (int64_t t = 0; t < s->taps; t++) strange |= target[t] < 0;
    if (!strange && !found)
      for (int64_t t = 0; t < s->taps; t++) work->usual[t] = target[t] - target[0];
    found |= !strange;
    for (int64_t t = 0; t < s->taps; t++) strange |= target[t] - target[0] != work->usual[t];
    work->strange[i] = (uint8_t)strange;
  }
}

/* The words of SPARSE_WORDS panels or fewer: tap after tap, of each panel after panel. Which are added together must
 * not depend on how many panels an item has. */
typedef struct {
  int64_t panel, panels, all; /* words */
  int64_t taken;              /* words of a unit */
  uint32_t *signs;
} sparse_words;

static sparse_words sparse_words_of(const sparse_work *work, int64_t at) {
  const int64_t panels = bnn_least(SPARSE_WORDS, work->panels - at), all = work->product->schedule->taps * panels;
  return (sparse_words){.panel = work->panel + at,
                        .panels = panels,
                        .all = all,
                        .taken = sparse_taken(all),
                        .signs = work->signs + at / SPARSE_WORDS * work->plan.signs};
}

/* Their signs, for this block of the depth. */
static void sparse_stage_right(const sparse_work *work, const sparse_words *w) {
  const bnn_product *p = work->product;
  const int64_t words = work->plan.words, panel = p->schedule->taps * words * BNN_PANEL;
  const uint32_t *right = (const uint32_t *)p->right + (work->group * work->plan.panels + w->panel) * panel +
                          work->begin / BNN_WORD * BNN_PANEL;
  uint32_t *out = w->signs;
  for (int64_t word = 0; word < w->all; word += w->taken) {
    const uint32_t *from[SPARSE_WORDS];
    int64_t count = bnn_least(w->taken, w->all - word);
    for (int64_t j = 0; j < count; j++)
      from[j] = right + (word + j) % w->panels * panel + (word + j) / w->panels * words * BNN_PANEL;
    for (int64_t k = 0; k < work->depth; k++, out += BNN_LANES) {
      vu32 signs = v_set(0), bit = v_set(UINT32_C(1) << k % BNN_WORD);
      BNN_UNROLL
      for (int v = 0; v < SPARSE_VECTORS; v++) {
        if (v / 2 >= count) break;
        vmask set = v_test(v_load(from[v / 2] + k / BNN_WORD * BNN_PANEL + v % 2 * BNN_LANES), bit);
        signs = v_or_where(signs, set, v_set(UINT32_C(1) << (4 * (v / 2) + 16 * (v % 2))));
      }
      v_store(out, signs);
    }
  }
}

/* Lists what is not zero of `count` pixels from that one on. Tables are made when all are listed, for what was just
 * written in vectors is slow to read in parts. */
static void sparse_list_pixels(const sparse_work *work, int64_t pixel, int64_t count) {
  const bnn_product *p = work->product;
  const int64_t apart = p->groups * p->depth;
  const float *from = (const float *)p->left + pixel * apart + work->group * p->depth + work->begin;
  for (int64_t i = 0; i < count; i++, from += apart) {
    const sparse_row row = sparse_row_of(work, i);
    int64_t listed = 0;
    fetch_ahead(from + SPARSE_ROWS_AHEAD * apart, work->depth * (int64_t)sizeof *from);
    for (int64_t k = 0; k < work->depth; k += BNN_LANES) {
      vu32 places = v_mul(v_add(v_lanes(), v_set((uint32_t)k)), v_set(BNN_LANES));
      listed += sparse_list(v_load_part_f32(from + k, work->depth - k), places, row.value + listed, row.place + listed);
    }
    *row.count = (uint32_t)sparse_fill(listed, row.value, row.place, 0) / 4;
  }
  for (int64_t i = 0; i < count; i++) {
    const sparse_row row = sparse_row_of(work, i);
    sparse_tables(row.value, *row.count * 4, row.tables);
  }
}

/* The listed pixels, from that one of the image on, for the words of some units. */
static void sparse_give_units(const sparse_work *work, int64_t pixel, int64_t count, const sparse_words *w,
                              int64_t word, int64_t units, int64_t words) {
  const bnn_product *p = work->product;
  const bnn_schedule *s = p->schedule;
  const int64_t apart = p->groups * p->columns;
  int64_t tap[SPARSE_GROUP], column[SPARSE_GROUP], columns[SPARSE_GROUP], usual[SPARSE_GROUP], strange[SPARSE_GROUP];
  int whole = 1;
  for (int64_t j = 0; j < units * words; j++) {
    tap[j] = (word + j) / w->panels;
    column[j] = (w->panel + (word + j) % w->panels) * BNN_PANEL;
    columns[j] = p->columns - column[j];
    whole &= columns[j] >= BNN_PANEL;
    usual[j] = work->usual[tap[j]] * apart + column[j];
  }
  const uint32_t *signs[SPARSE_UNITS];
  for (int64_t u = 0; u < units; u++) signs[u] = w->signs + (word / w->taken + u) * work->depth * BNN_LANES;
  sparse_adder *add = sparse_adders[units - 1][words - 1];
  for (int64_t i = 0; i < count; i++) {
    const sparse_row row = sparse_row_of(work, i);
    const sparse_terms terms = {*row.count, row.tables, row.place};
    if (!terms.count) continue;
    const int64_t image = (pixel + i) / s->sources, source = (pixel + i) % s->sources;
    const int32_t *target = work->target + source * s->taps;
    float *out = (float *)p->out + image * s->pixels * apart + work->group * p->columns;
    const int64_t *behind = usual;
    if (work->strange[source]) {
      const int64_t none = work->none - out;
      for (int64_t j = 0; j < units * words; j++) { /* without a branch */
        const int64_t to = target[tap[j]], lacks = -(to < 0);
        strange[j] = (none & lacks) | ((to * apart + column[j]) & ~lacks);
      }
      behind = strange;
    } else {
      out += target[0] * apart;
    }
    add(&terms, signs, out, behind, whole ? NULL : columns);
  }
}

static void sparse_give_pixels(const sparse_work *work, int64_t pixel, int64_t count) {
  for (int64_t at = 0; at < work->panels; at += SPARSE_WORDS) {
    const sparse_words w = sparse_words_of(work, at);
    for (int64_t word = 0; word < w.all;) {
      /* Whole units together, and the last by itself. */
      const int64_t words = bnn_least(w.taken, w.all - word), units = bnn_least(SPARSE_UNITS, (w.all - word) / words);
      sparse_give_units(work, pixel, count, &w, word, units, words);
      word += units * words;
    }
  }
}

/* The images, for the panels that are at hand. */
static void sparse_give_images(sparse_work *work) {
  const bnn_product *p = work->product;
  const int64_t sources = p->schedule->sources;
  for (work->begin = 0; work->begin < p->depth; work->begin += work->plan.block) {
    work->depth = bnn_least(work->plan.block, p->depth - work->begin);
    for (int64_t at = 0; at < work->panels; at += SPARSE_WORDS) {
      const sparse_words w = sparse_words_of(work, at);
      sparse_stage_right(work, &w);
    }
    for (int64_t at = work->first * sources; at < work->last * sources;) {
      /* Whole images, or of one alone: what is added first must not depend on where the items begin. */
      int64_t most = sources > work->plan.chunk ? sources - at % sources : work->last * sources - at;
      int64_t count = bnn_least(work->plan.chunk, most);
      sparse_list_pixels(work, at, count);
      sparse_give_pixels(work, at, count);
      at += count;
    }
  }
}

static void sparse_rows_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  const bnn_schedule *s = p->schedule;
  sparse_work work = {.product = p, .plan = sparse_plan_rows(p)};
  const sparse_rows_plan *plan = &work.plan;
  sparse_rows_areas(p, plan, scratch, &work);
  sparse_find_targets(&work);
  const int64_t apart = p->groups * p->columns;
  while (begin < end) {
    const int64_t image = begin % p->images, span = begin / p->images % plan->spans;
    work.group = begin / p->images / plan->spans;
    work.first = image;
    work.last = bnn_least(p->images, image + end - begin);
    begin += work.last - work.first;

    const int64_t first = span * plan->width, last = bnn_least(plan->panels, first + plan->width);
    const int64_t columns = bnn_least(last * BNN_PANEL, p->columns) - first * BNN_PANEL;
    float *out = (float *)p->out + work.group * p->columns + first * BNN_PANEL;
    for (int64_t pixel = work.first * s->pixels; pixel < work.last * s->pixels; pixel++)
      for (int64_t n = 0; n < columns; n++) out[pixel * apart + n] = 0;
    for (work.panel = first; work.panel < last; work.panel += work.panels) {
      work.panels = bnn_least(plan->hand, last - work.panel);
      sparse_give_images(&work);
    }
  }
}

#endif
