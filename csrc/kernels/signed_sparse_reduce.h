/* The kernel gradient where most of dy is zero, a result per tap, channel and column, summed over images and positions.
 *
 * Order of a sum, and so its bits: blocks of images; within one the classes in schedule order; of each, in chunks of
 * SPARSE_POSITIONS, the positions where dy is not zero, in groups of four, each ((a + b) + c) + d, which are added to
 * the result one after another. The error is below (positions / 4 + 4) * 2^-24 * (sum of magnitudes), of positions
 * that are not zero.
 *
 * An item is some columns of one group. */

#if SIGNED_SPARSE

#define SPARSE_POSITIONS 256        /* the signs that they read are in the first cache, and so are their tables */
#define SPARSE_PIXELS 1024          /* of a block of images: their signs are in the second */
#define SPARSE_MOST_PIXELS 4096     /* of an image */
#define SPARSE_MOST_SUMS (10 << 14) /* of one pass */
#define SPARSE_AHEAD 32             /* positions */
#define SPARSE_SLOTS (SPARSE_POSITIONS + BNN_LANES)

typedef struct {
  int64_t words, blocks; /* of the channels of a pixel; a block is SPARSE_WIDTH channels */
  int64_t together;      /* images */
  int64_t most, width;   /* columns of a pass, which read the same signs, and of an item: whole vectors */
} sparse_plan;

static sparse_plan sparse_plan_reduce(const bnn_product *p) {
  const bnn_schedule *s = p->schedule;
  sparse_plan plan = {.words = bnn_words(p->depth), .blocks = bnn_ceil(p->depth, SPARSE_WIDTH)};
  plan.together = SPARSE_PIXELS / s->sources;
  if (plan.together > p->images) plan.together = p->images;
  if (plan.together < 1) plan.together = 1;
  int64_t vectors = SPARSE_MOST_SUMS / (BNN_LANES * s->taps * plan.blocks * SPARSE_WIDTH);
  if (vectors < 1) vectors = 1;
  int64_t all = bnn_ceil(p->columns, BNN_LANES), items = bnn_ceil(p->threads, p->groups);
  if (items < bnn_ceil(all, vectors)) items = bnn_ceil(all, vectors);
  int64_t width = all ? bnn_ceil(all, items) : 1;
  plan.width = width * BNN_LANES;
  plan.most = vectors / width * plan.width;
  return plan;
}

static int sparse_reduces(const bnn_product *p) {
  return sparse_suits(p) && 2 * p->depth >= SPARSE_WIDTH && p->schedule->sources &&
         p->schedule->sources <= SPARSE_MOST_PIXELS;
}

static int64_t sparse_reduce_items(const bnn_product *p) {
  return p->groups * bnn_ceil(p->columns, sparse_plan_reduce(p).width);
}

/* What is not zero of a vector of columns, in a chunk. */
typedef struct {
  int64_t count[BNN_LANES]; /* tables */
  float value[BNN_LANES][SPARSE_SLOTS];
  uint32_t place[BNN_LANES][SPARSE_SLOTS];
  float tables[BNN_LANES][SPARSE_POSITIONS / 4 * BNN_LANES];
} sparse_columns;

typedef struct {
  const bnn_product *product;
  sparse_plan plan;
  int64_t group, column, columns; /* columns: whole vectors */
  int64_t image, images;          /* of this block */
  float *sums;                    /* [columns][taps][blocks][SPARSE_WIDTH] */
  uint32_t *signs;                /* [blocks][together * sources][BNN_LANES] */
  sparse_columns *list;
} sparse_reduction;

/* Lays the areas out from `base` and returns their size. */
static size_t sparse_reduce_areas(const bnn_product *p, const sparse_plan *plan, char *base, sparse_reduction *work) {
  const bnn_schedule *s = p->schedule;
  const int64_t sizes[] = {
      plan->most * s->taps * plan->blocks * SPARSE_WIDTH * (int64_t)sizeof(float),
      plan->blocks * plan->together * s->sources * BNN_LANES * (int64_t)sizeof(uint32_t),
      (int64_t)sizeof(sparse_columns),
  };
  size_t at[4] = {0};
  for (int i = 0; i < 3; i++) at[i + 1] = at[i] + (size_t)bnn_ceil(sizes[i], BNN_ALIGN) * BNN_ALIGN;
  if (base) {
    work->sums = (float *)(base + at[0]);
    work->signs = (uint32_t *)(base + at[1]);
    work->list = (sparse_columns *)(base + at[2]);
  }
  return at[3];
}

static size_t sparse_reduce_scratch(const bnn_product *p) {
  sparse_plan plan = sparse_plan_reduce(p);
  return sparse_reduce_areas(p, &plan, NULL, NULL);
}

/* The signs of all pixels of the block. */
static void sparse_read_signs(const sparse_reduction *work) {
  const bnn_product *p = work->product;
  int64_t sources = p->schedule->sources, apart = work->plan.together * sources * BNN_LANES;
  const uint32_t *words =
      (const uint32_t *)p->left + (work->image * sources * p->groups + work->group) * work->plan.words;
  uint32_t *out = work->signs;
  for (int64_t i = 0; i < work->images * sources; i++, words += p->groups * work->plan.words, out += BNN_LANES)
    for (int64_t block = 0; block < work->plan.blocks; block++)
      v_store(out + block * apart,
              sparse_signs(words + block * (SPARSE_WIDTH / BNN_WORD), p->depth - block * SPARSE_WIDTH));
}

/* Lists a vector of columns: of the next `count` positions of a class, of which the first is `at` in that image of the
 * block. */
static void sparse_read_columns(const sparse_reduction *work, int64_t column, const bnn_class *class_, int64_t image,
                                int64_t at, int64_t count) {
  const bnn_product *p = work->product;
  const bnn_schedule *s = p->schedule;
  sparse_columns *list = work->list;
  int64_t row = p->groups * p->columns, columns = p->columns - column;
  const float *dy = (const float *)p->right + work->group * p->columns + column;
  for (int64_t n = 0; n < BNN_LANES; n++) list->count[n] = 0;
  for (int64_t j = 0; j < count; j += BNN_LANES) {
    float turned[BNN_LANES][BNN_LANES];
    uint32_t places[BNN_LANES];
    vf32 rows[BNN_LANES];
    for (int64_t i = 0; i < BNN_LANES; i++, at++) {
      rows[i] = v_set_f32(0), places[i] = 0;
      if (j + i >= count) continue;
      if (at == class_->count) at = 0, image++;
      int64_t position = class_->first + at;
      const float *from = dy + ((work->image + image) * s->pixels + s->pixel[position]) * row;
      fetch_ahead(from + SPARSE_AHEAD * row, BNN_ALIGN);
      rows[i] = v_load_part_f32(from, columns);
      places[i] = (uint32_t)((image * s->sources + s->base[position]) * BNN_LANES);
    }
    for (int64_t i = 0; i < BNN_LANES; i += 4)
      v_store_turned_f32(turned[0] + i, BNN_LANES, rows[i], rows[i + 1], rows[i + 2], rows[i + 3]);
    vu32 where = v_load(places);
    for (int64_t n = 0; n < BNN_LANES; n++) {
      int64_t *end = &list->count[n];
      *end += sparse_list(v_load_f32(turned[n]), where, list->value[n] + *end, list->place[n] + *end);
    }
  }
  for (int64_t n = 0; n < BNN_LANES; n++) {
    list->count[n] = sparse_fill(list->count[n], list->value[n], list->place[n]) / 4;
    sparse_tables(list->value[n], list->count[n] * 4, list->tables[n]);
  }
}

/* Adds what column n of the list gives for each tap of the class and a block of channels. */
BNN_INLINE void sparse_add(const sparse_reduction *work, int64_t n, const bnn_class *class_, int64_t block,
                           const int vectors, float *sums) {
  const sparse_columns *list = work->list;
  const uint32_t *signs = work->signs + block * work->plan.together * work->product->schedule->sources * BNN_LANES;
  for (int64_t i = 0; i < class_->valid; i++) {
    float *out = sums + (class_->tap[i] * work->plan.blocks + block) * SPARSE_WIDTH;
    vf32 sum[SPARSE_VECTORS];
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) sum[v] = v_load_f32(out + v * BNN_LANES);
    sparse_look_up(list->tables[n], list->place[n], list->count[n], signs + class_->offset[i] * BNN_LANES, vectors,
                   sum);
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) v_store_f32(out + v * BNN_LANES, sum[v]);
  }
}

static void sparse_add_chunk(const sparse_reduction *work, const bnn_class *class_, int64_t first, int64_t count) {
  const bnn_product *p = work->product;
  int64_t length = p->schedule->taps * work->plan.blocks * SPARSE_WIDTH;
  for (int64_t column = 0; column < work->columns; column += BNN_LANES) {
    sparse_read_columns(work, work->column + column, class_, first / class_->count, first % class_->count, count);
    for (int64_t block = 0; block < work->plan.blocks; block++)
      for (int64_t n = 0; n < BNN_LANES && work->column + column + n < p->columns; n++) {
        float *sums = work->sums + (column + n) * length;
#define CALL(vectors) sparse_add(work, n, class_, block, vectors, sums)
        SPARSE_BY_WIDTH(p->depth - block * SPARSE_WIDTH, CALL);
#undef CALL
      }
  }
}

/* From one column after another to the order of the result. */
static void sparse_reduce_end(const sparse_reduction *work) {
  const bnn_product *p = work->product;
  int64_t length = p->schedule->taps * work->plan.blocks * SPARSE_WIDTH;
  for (int64_t column = 0; column < work->columns; column += BNN_LANES)
    for (int64_t unit = 0; unit < p->schedule->taps * work->plan.words; unit++) {
      float turned[BNN_WORD][BNN_LANES], *out;
      int64_t tap = unit / work->plan.words, first = unit % work->plan.words * BNN_WORD;
      const float *sums = work->sums + column * length + tap * work->plan.blocks * SPARSE_WIDTH + first;
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
  const int64_t width = work.plan.width, length = s->taps * work.plan.blocks * SPARSE_WIDTH;
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
      sparse_read_signs(&work);
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
