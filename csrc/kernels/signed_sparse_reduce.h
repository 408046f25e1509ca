/* The kernel gradient where most of dy is zero, a result per tap, channel and column, summed over images and positions.
 *
 * Order of a sum, and so its bits: blocks of images; within one the classes in schedule order, each in chunks of
 * SPARSE_POSITIONS. Within a chunk one running sum from zero over the positions where dy is not zero, in groups of
 * four, each ((a + b) + c) + d; the chunk's sum is added to the result. The error is below (SPARSE_POSITIONS / 4 +
 * number of chunks + 4) * 2^-24 * (sum of magnitudes), be most zero or not.
 *
 * An item is some columns of one group. */

#if SIGNED_SPARSE

#define SPARSE_POSITIONS 256        /* the signs that they read are in the first cache, and so are their tables */
#define SPARSE_LISTED 64            /* columns: as many lists as are written at once */
#define SPARSE_PIXELS 1024          /* of a block of images: their signs are in the second */
#define SPARSE_MOST_PIXELS 4096     /* of an image, if it is read as a whole */
#define SPARSE_MOST_SUMS (10 << 14) /* of one pass */
#define SPARSE_AHEAD 32             /* positions */
#define SPARSE_SLOTS (SPARSE_POSITIONS + BNN_LANES)

typedef struct {
  int64_t words, apart; /* of the channels of a pixel; and from a tap to the next, as units count them */
  int64_t together;     /* images */
  int64_t taken;        /* words of a unit */
  int64_t most, width;  /* columns of a pass, which read the same signs, and of an item: whole vectors */
} sparse_plan;

/* Whether a unit takes words of several taps: it is put together for the positions of a chunk, where else the signs of
 * a pixel serve all taps. */
static int sparse_joins(const sparse_plan *plan) { return plan->words < SPARSE_WORDS; }

/* Sums of a column. */
static int64_t sparse_length(const bnn_product *p, const sparse_plan *plan) {
  return p->schedule->taps * plan->apart * BNN_WORD;
}

static sparse_plan sparse_plan_reduce(const bnn_product *p) {
  const bnn_schedule *s = p->schedule;
  sparse_plan plan = {.words = bnn_words(p->depth)};
  plan.apart = plan.words < SPARSE_WORDS ? plan.words : bnn_ceil(plan.words, SPARSE_WORDS) * SPARSE_WORDS;
  plan.taken = sparse_taken(s->taps * plan.apart);
  plan.together = SPARSE_PIXELS / s->sources;
  if (plan.together > p->images) plan.together = p->images;
  if (plan.together < 1) plan.together = 1;
  int64_t vectors = SPARSE_MOST_SUMS / (BNN_LANES * sparse_length(p, &plan));
  if (vectors < 1) vectors = 1;
  int64_t all = bnn_ceil(p->columns, BNN_LANES), items = bnn_ceil(p->threads, p->groups);
  if (vectors > all && all) vectors = all;
  if (items < bnn_ceil(all, vectors)) items = bnn_ceil(all, vectors);
  int64_t width = all ? bnn_ceil(all, items) : 1;
  plan.width = width * BNN_LANES;
  plan.most = vectors / width * plan.width;
  return plan;
}

static int sparse_reduces(const bnn_product *p) {
  int64_t most = bnn_words(p->depth) < SPARSE_WORDS ? INT64_MAX : SPARSE_MOST_PIXELS;
  return sparse_suits(p, p->depth) && p->schedule->sources && p->schedule->sources <= most;
}

static int64_t sparse_reduce_items(const bnn_product *p) {
  return p->groups * bnn_ceil(p->columns, sparse_plan_reduce(p).width);
}

/* What is not zero of a column, in a chunk. */
typedef struct {
  int64_t count;
  float value[SPARSE_SLOTS];
  uint32_t place[SPARSE_SLOTS];
} sparse_column;

typedef struct {
  const bnn_product *product;
  sparse_plan plan;
  int64_t group, column, columns; /* columns: whole vectors */
  int64_t image, images;          /* of this block */
  float *sums;                    /* [columns][taps][apart][BNN_WORD] */
  uint32_t *signs;                /* [units][signs_most][BNN_LANES]: of all pixels, or of the positions of a chunk */
  int64_t signs_most;
  int64_t *read;       /* [taps][words]: where a position finds those that are joined */
  sparse_column *list; /* [SPARSE_LISTED] */
  float *tables;       /* [BNN_LANES][SPARSE_POSITIONS / 4][BNN_LANES]: of some columns */
} sparse_reduction;

/* Lays the areas out from `base` and returns their size. */
static size_t sparse_reduce_areas(const bnn_product *p, const sparse_plan *plan, void *base, sparse_reduction *work) {
  const bnn_schedule *s = p->schedule;
  const int joins = sparse_joins(plan);
  const int64_t units = bnn_ceil(joins ? s->taps * plan->words : plan->words, SPARSE_WORDS), size = sizeof(float);
  size_t used = 0;
  work->signs_most = joins ? SPARSE_POSITIONS : plan->together * s->sources;
  work->sums = bnn_area(base, &used, plan->most * sparse_length(p, plan) * size);
  work->signs = bnn_area(base, &used, units * work->signs_most * BNN_LANES * size);
  work->list = bnn_area(base, &used, SPARSE_LISTED * (int64_t)sizeof(sparse_column));
  work->tables = bnn_area(base, &used, BNN_LANES * SPARSE_POSITIONS / 4 * BNN_LANES * size);
  work->read = bnn_area(base, &used, joins ? s->taps * plan->words * (int64_t)sizeof(int64_t) : 0);
  return used;
}

static size_t sparse_reduce_scratch(const bnn_product *p) {
  sparse_plan plan = sparse_plan_reduce(p);
  return sparse_reduce_areas(p, &plan, NULL, &(sparse_reduction){0});
}

/* The signs of a unit that a row of words holds, or as many as there are. */
BNN_INLINE vu32 sparse_signs(const uint32_t *words, int64_t count) {
  vu32 signs = v_set(0);
  BNN_UNROLL
  for (int j = 0; j < SPARSE_WORDS; j++)
    if (j < count) signs = sparse_put_word(signs, words[j], j);
  return signs;
}

/* The words of a pixel of these images. */
BNN_INLINE const uint32_t *sparse_pixel(const sparse_reduction *work, int64_t pixel) {
  const bnn_product *p = work->product;
  return (const uint32_t *)p->left +
         ((work->image * p->schedule->sources + pixel) * p->groups + work->group) * work->plan.words;
}

/* The signs of all pixels of the block. */
static void sparse_read_signs(const sparse_reduction *work) {
  int64_t pixels = work->images * work->product->schedule->sources;
  for (int64_t i = 0; i < pixels; i++)
    for (int64_t w = 0; w < work->plan.words; w += SPARSE_WORDS)
      v_store(work->signs + (w / SPARSE_WORDS * work->signs_most + i) * BNN_LANES,
              sparse_signs(sparse_pixel(work, i) + w, work->plan.words - w));
}

/* The signs that the positions of a chunk meet, those of several taps joined. */
static void sparse_join_signs(const sparse_reduction *work, const bnn_class *class_, int64_t image, int64_t at,
                              int64_t count) {
  const bnn_schedule *s = work->product->schedule;
  const int64_t words = work->plan.words, all = class_->valid * words;
  for (int64_t i = 0; i < all; i++)
    work->read[i] = class_->offset[i / words] * work->product->groups * words + i % words;
  for (int64_t j = 0; j < count; j++, at++) {
    if (at == class_->count) at = 0, image++;
    const uint32_t *from = sparse_pixel(work, image * s->sources + s->base[class_->first + at]);
    uint32_t *out = work->signs + j * BNN_LANES;
    for (int64_t i = 0; i < all; i += work->plan.taken, out += SPARSE_POSITIONS * BNN_LANES) {
      const int64_t most = bnn_least(work->plan.taken, all - i), *read = work->read + i;
      vu32 signs = sparse_put_word(v_set(0), from[read[0]], 0);
      if (most > 1) signs = sparse_put_word(signs, from[read[1]], 1);
      if (most > 2) signs = sparse_put_word(signs, from[read[2]], 2);
      if (most > 3) signs = sparse_put_word(signs, from[read[3]], 3);
      v_store(out, signs);
    }
  }
}

/* Where the j-th position of a chunk, whose base is that pixel, finds its signs. */
BNN_INLINE uint32_t sparse_place(const sparse_reduction *work, int64_t pixel, int64_t j) {
  return (uint32_t)((sparse_joins(&work->plan) ? j : pixel) * BNN_LANES);
}

/* Lists columns, of the next `count` positions of a class, of which the first is `at` in that image of the block. */
static void sparse_list_columns(const sparse_reduction *work, int64_t column, int64_t listed, const bnn_class *class_,
                                int64_t image, int64_t at, int64_t count) {
  const bnn_product *p = work->product;
  const bnn_schedule *s = p->schedule;
  const int64_t row = p->groups * p->columns;
  const float *dy = (const float *)p->right + work->image * s->pixels * row + work->group * p->columns + column;
  for (int64_t n = 0; n < listed; n++) work->list[n].count = 0;
  for (int64_t j = 0; j < count; j += BNN_LANES) {
    const float *from[BNN_LANES];
    uint32_t places[BNN_LANES] = {0};
    const int64_t most = bnn_least(BNN_LANES, count - j);
    for (int64_t i = 0; i < most; i++, at++) {
      if (at == class_->count) at = 0, image++;
      const int64_t position = class_->first + at;
      from[i] = dy + (image * s->pixels + s->pixel[position]) * row;
      places[i] = sparse_place(work, image * s->sources + s->base[position], j + i);
      fetch_ahead(from[i] + SPARSE_AHEAD * row, bnn_least(listed, p->columns - column) * (int64_t)sizeof *dy);
    }
    const vu32 where = v_load(places);
    sparse_column *list = work->list;
    for (int64_t v = 0; v < listed; v += BNN_LANES) {
      float turned[BNN_LANES][BNN_LANES];
      vf32 rows[BNN_LANES];
      for (int64_t i = 0; i < BNN_LANES; i++)
        rows[i] = i < most ? v_load_part_f32(from[i] + v, p->columns - column - v) : v_set_f32(0);
      for (int64_t i = 0; i < BNN_LANES; i += 4)
        v_store_turned_f32(turned[0] + i, BNN_LANES, rows[i], rows[i + 1], rows[i + 2], rows[i + 3]);
      for (int64_t n = 0; n < BNN_LANES; n++, list++)
        list->count += sparse_list(v_load_f32(turned[n]), where, list->value + list->count, list->place + list->count);
    }
  }
}

/* The tables of the n-th listed columns; `at` is where one of their positions finds its signs. */
static void sparse_tables_of(const sparse_reduction *work, int64_t n, uint32_t at) {
  for (int64_t i = 0; i < BNN_LANES; i++) {
    sparse_column *list = work->list + n + i;
    const int64_t filled = sparse_fill(list->count, list->value, list->place, at);
    sparse_tables(list->value, filled, work->tables + i * (SPARSE_POSITIONS / 4) * BNN_LANES);
  }
}

/* Adds what the n-th listed columns give for the words of some units from that one on, to columns from that one on. */
static void sparse_add_words(const sparse_reduction *work, const bnn_class *class_, int64_t unit, int64_t units,
                             int64_t words, int64_t n, int64_t column) {
  const sparse_plan *plan = &work->plan;
  const int64_t length = sparse_length(work->product, plan);
  const int64_t columns = bnn_least(BNN_LANES, work->product->columns - column);
  int64_t behind[SPARSE_GROUP];
  const uint32_t *signs[SPARSE_UNITS];
  for (int64_t u = 0; u < units; u++) {
    const int64_t block = (unit + u) / class_->valid, tap = (unit + u) % class_->valid;
    signs[u] = work->signs;
    if (sparse_joins(plan))
      signs[u] += (unit + u) * SPARSE_POSITIONS * BNN_LANES;
    else
      signs[u] += (block * work->signs_most + class_->offset[tap]) * BNN_LANES;
    for (int64_t j = 0; j < words; j++) {
      const int64_t word = (unit + u) * plan->taken + j;
      behind[u * words + j] =
          BNN_WORD * (sparse_joins(plan) ? class_->tap[word / plan->words] * plan->apart + word % plan->words
                                         : class_->tap[tap] * plan->apart + block * SPARSE_WORDS + j);
    }
  }
  sparse_adder *add = sparse_adders[units - 1][words - 1];
  for (int64_t i = 0; i < columns; i++) {
    const sparse_column *list = work->list + n + i;
    const sparse_terms terms = {bnn_ceil(list->count, 4), work->tables + i * (SPARSE_POSITIONS / 4) * BNN_LANES,
                                list->place};
    add(&terms, signs, work->sums + (column - work->column + i) * length, behind, NULL);
  }
}

static void sparse_add_chunk(const sparse_reduction *work, const bnn_class *class_, int64_t first, int64_t count) {
  const sparse_plan *plan = &work->plan;
  const int64_t image = first / class_->count, at = first % class_->count;
  const int64_t all = class_->valid * plan->apart, taken = plan->taken;
  const bnn_schedule *s = work->product->schedule;
  const uint32_t place = sparse_place(work, image * s->sources + s->base[class_->first + at], 0);
  if (sparse_joins(plan)) sparse_join_signs(work, class_, image, at, count);
  for (int64_t column = 0; column < work->columns; column += SPARSE_LISTED) {
    const int64_t listed = bnn_least(SPARSE_LISTED, work->columns - column);
    sparse_list_columns(work, work->column + column, listed, class_, image, at, count);
    for (int64_t n = 0; n < listed; n += BNN_LANES) {
      sparse_tables_of(work, n, place);
      for (int64_t word = 0; word < all;) {
        /* Whole units together, and the last by itself. */
        const int64_t words = bnn_least(taken, all - word), units = bnn_least(SPARSE_UNITS, (all - word) / words);
        sparse_add_words(work, class_, word / taken, units, words, n, work->column + column + n);
        word += units * words;
      }
    }
  }
}

/* From one column after another to the order of the result. */
static void sparse_reduce_end(const sparse_reduction *work) {
  const bnn_product *p = work->product;
  int64_t length = sparse_length(p, &work->plan);
  for (int64_t column = 0; column < work->columns; column += BNN_LANES)
    for (int64_t unit = 0; unit < p->schedule->taps * work->plan.words; unit++) {
      float turned[BNN_WORD][BNN_LANES], *out;
      int64_t at = unit / work->plan.words * work->plan.apart + unit % work->plan.words;
      const float *sums = work->sums + column * length + at * BNN_WORD;
      for (int64_t n = 0; n < BNN_LANES; n += 4, sums += 4 * length)
        for (int64_t k = 0; k < BNN_WORD; k += BNN_LANES)
          v_store_turned_f32(turned[k] + n, BNN_LANES, v_load_f32(sums + k), v_load_f32(sums + length + k),
                             v_load_f32(sums + 2 * length + k), v_load_f32(sums + 3 * length + k));
      int64_t channels = signed_result(p, work->group, unit, work->column + column, &out);
      for (int64_t k = 0; k < channels; k++, out += signed_result_stride(p))
        v_store_part_f32(out, v_load_f32(turned[k]), p->columns - work->column - column);
    }
}

static void sparse_reduce_run(const bnn_product *p, int64_t begin, int64_t end, void *scratch) {
  const bnn_schedule *s = p->schedule;
  sparse_reduction work = {.product = p, .plan = sparse_plan_reduce(p)};
  sparse_reduce_areas(p, &work.plan, scratch, &work);
  const int64_t width = work.plan.width, length = sparse_length(p, &work.plan);
  const int64_t items = bnn_ceil(p->columns, width);
  while (begin < end) {
    int64_t item = begin % items, count = bnn_least(work.plan.most / width, bnn_least(items - item, end - begin));
    work.group = begin / items;
    work.column = item * width;
    work.columns = bnn_least(count * width, bnn_ceil(p->columns - work.column, BNN_LANES) * BNN_LANES);
    begin += count;

    for (int64_t i = 0; i < work.columns * length; i++) work.sums[i] = 0;
    for (work.image = 0; work.image < p->images; work.image += work.plan.together) {
      work.images = bnn_least(work.plan.together, p->images - work.image);
      if (!sparse_joins(&work.plan)) sparse_read_signs(&work);
      for (const bnn_class *class_ = s->class_; class_ < s->class_ + s->classes; class_++) {
        int64_t positions = work.images * class_->count;
        for (int64_t first = 0; first < positions; first += SPARSE_POSITIONS)
          sparse_add_chunk(&work, class_, first, bnn_least(SPARSE_POSITIONS, positions - first));
      }
    }
    sparse_reduce_end(&work);
  }
}

#endif
