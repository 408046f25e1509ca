/* bits x bits -> integers: every dense and convolutional product of two sign operands.
 *
 * A tile is a few rows (output pixels of one class) by BNN_TILE_VECTORS vectors of columns. Its bits are counted with a
 * carry-save adder: two xors and what was left over go into one full adder, the sum stays, and only the carry is
 * counted, so two words cost one population count. More levels would pay only where counting is slow. */

#define BNN_TILE_VECTORS 2
#define XNOR_TILE (BNN_TILE_VECTORS * BNN_LANES)

/* Output pixels per item: enough that loading a panel of weights is nothing, few enough that items are many. */
#define XNOR_BLOCK 96

typedef struct {
  vu32 ones;  /* the sum bit of every counter */
  vu32 twos;  /* carries counted so far, narrow */
  vu32 total; /* carries counted so far, one counter per lane */
} xnor_cell;

/* Taps that a tile sums over, and where to put the result. */
typedef struct {
  const int32_t *tap, *offset;
  int64_t taps, words; /* per tap */
  int64_t reach;       /* words from one source pixel to the next */
  const uint32_t *panel;
  const int32_t *start; /* result of a lane before any bit differs */
  int64_t columns;      /* of the panel from here on; may exceed the tile */
  bnn_type type;
} xnor_sum;

BNN_INLINE void xnor_widen(int rows, xnor_cell (*cell)[BNN_TILE_VECTORS]) {
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < BNN_TILE_VECTORS; v++) {
      cell[r][v].total = v_add(cell[r][v].total, v_widen_counts(cell[r][v].twos));
      cell[r][v].twos = v_set(0);
    }
}

/* `count` pairs of words: one at a, one at b words from each row's start. */
BNN_INLINE void xnor_pairs(int rows, xnor_cell (*cell)[BNN_TILE_VECTORS], int *room, const uint32_t *const *left,
                           int64_t a, const uint32_t *right_a, int64_t b, const uint32_t *right_b, int64_t count,
                           int64_t step) {
  while (count) {
    int64_t now = BNN_COUNT_ROOM && count > *room ? *room : count;
    for (int64_t i = 0; i < now; i++) {
      vu32 first[BNN_TILE_VECTORS], second[BNN_TILE_VECTORS];
      for (int v = 0; v < BNN_TILE_VECTORS; v++) {
        first[v] = v_load(right_a + v * BNN_LANES);
        second[v] = v_load(right_b + v * BNN_LANES);
      }
      for (int r = 0; r < rows; r++) {
        vu32 x = v_set(left[r][a]), y = v_set(left[r][b]);
        for (int v = 0; v < BNN_TILE_VECTORS; v++) {
          xnor_cell *c = &cell[r][v];
          vu32 half = v_xor3(c->ones, x, first[v]), sum = v_xor3(half, y, second[v]);
          c->twos = v_add_counts(c->twos, v_count(v_carry(half, sum, c->ones)));
          c->ones = sum;
        }
      }
      a += step, b += step, right_a += step * BNN_PANEL, right_b += step * BNN_PANEL;
    }
    count -= now;
    if (BNN_COUNT_ROOM && !(*room -= (int)now)) {
      xnor_widen(rows, cell);
      *room = BNN_COUNT_ROOM;
    }
  }
}

BNN_INLINE void xnor_tile(int rows, const xnor_sum *sum, const uint32_t *const *left, void *const *out) {
  xnor_cell cell[BNN_TILE_ROWS][BNN_TILE_VECTORS];
  int room = BNN_COUNT_ROOM;
  int64_t words = sum->words, block = words * BNN_PANEL, i = 0;
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < BNN_TILE_VECTORS; v++) cell[r][v] = (xnor_cell){v_set(0), v_set(0), v_set(0)};

  if (words % 2 == 0)
    for (; i < sum->taps; i++) {
      int64_t a = sum->offset[i] * sum->reach;
      const uint32_t *right = sum->panel + sum->tap[i] * block;
      xnor_pairs(rows, cell, &room, left, a, right, a + 1, right + BNN_PANEL, words / 2, 2);
    }
  /* Words of an odd number find their partner in the next tap. */
  for (; i + 1 < sum->taps; i += 2)
    xnor_pairs(rows, cell, &room, left, sum->offset[i] * sum->reach, sum->panel + sum->tap[i] * block,
               sum->offset[i + 1] * sum->reach, sum->panel + sum->tap[i + 1] * block, words, 1);
  if (i < sum->taps) {
    int64_t a = sum->offset[i] * sum->reach;
    const uint32_t *right = sum->panel + sum->tap[i] * block;
    xnor_pairs(rows, cell, &room, left, a, right, a + 1, right + BNN_PANEL, words / 2, 2);
    a += words - 1, right += block - BNN_PANEL;
    for (int r = 0; r < rows; r++)
      for (int v = 0; v < BNN_TILE_VECTORS; v++) {
        xnor_cell *c = &cell[r][v];
        vu32 half = v_xor3(c->ones, v_set(left[r][a]), v_load(right + v * BNN_LANES));
        c->twos = v_add_counts(c->twos, v_count(v_carry(half, half, c->ones)));
        c->ones = half;
      }
  }
  xnor_widen(rows, cell);

  for (int r = 0; r < rows; r++)
    for (int v = 0; v < BNN_TILE_VECTORS; v++) {
      int lane = v * BNN_LANES;
      if (lane >= sum->columns) break;
      vu32 twice = v_add(cell[r][v].total, cell[r][v].total);
      vu32 differ = v_add(twice, v_widen_counts(v_count(cell[r][v].ones)));
      vu32 result = v_sub(v_load(sum->start + lane), v_add(differ, differ));
      if (sum->type == BNN_FLOAT32) result = v_bits_of(v_float(result));
      if (sum->columns - lane >= BNN_LANES)
        v_store((uint32_t *)out[r] + lane, result);
      else
        v_store_part((uint32_t *)out[r] + lane, result, sum->columns - lane);
    }
}

/* The tile sizes as functions of their own: the row count is a literal in each, and every loop over it unrolls. */
static void xnor_tile_1(const xnor_sum *sum, const uint32_t *const *left, void *const *out) {
  xnor_tile(1, sum, left, out);
}
static void xnor_tile_2(const xnor_sum *sum, const uint32_t *const *left, void *const *out) {
  xnor_tile(2, sum, left, out);
}
#if BNN_TILE_ROWS == 3
static void xnor_tile_3(const xnor_sum *sum, const uint32_t *const *left, void *const *out) {
  xnor_tile(3, sum, left, out);
}
#endif
static void (*const xnor_tiles[])(const xnor_sum *, const uint32_t *const *, void *const *) = {
    xnor_tile_1,
    xnor_tile_2,
#if BNN_TILE_ROWS == 3
    xnor_tile_3,
#endif
};

static int64_t xnor_blocks(const bnn_product *product, const bnn_class *class_) {
  return (class_->count * product->images + XNOR_BLOCK - 1) / XNOR_BLOCK;
}

/* An item is a block of output pixels by a panel; neighbouring items share the pixels. */
static int64_t xnor_items(const bnn_product *product) {
  int64_t blocks = 0;
  for (int64_t i = 0; i < product->schedule->classes; i++)
    blocks += xnor_blocks(product, &product->schedule->class_[i]);
  return blocks * product->groups * bnn_panels(product->columns);
}

static size_t xnor_scratch(const bnn_product *product) {
  (void)product;
  return 0;
}

static void xnor_item(const bnn_product *product, const bnn_class *class_, int64_t block, int64_t group,
                      int64_t panel) {
  const bnn_schedule *schedule = product->schedule;
  int64_t words = bnn_words(product->depth), reach = words * product->groups;
  int64_t columns = product->columns - panel * BNN_PANEL, row = product->groups * product->columns;
  const uint32_t *left = (const uint32_t *)product->left + group * words;
  const uint32_t *right = (const uint32_t *)product->right +
                          (group * bnn_panels(product->columns) + panel) * schedule->taps * words * BNN_PANEL;
  char *out = (char *)product->out + (group * product->columns + panel * BNN_PANEL) * 4; /* both types have 4 bytes */
  int64_t all = class_->count * product->images, begin = block * XNOR_BLOCK;
  int64_t end = all - begin < XNOR_BLOCK ? all : begin + XNOR_BLOCK;
  int32_t start[BNN_PANEL];

  for (int64_t lane = 0; lane < BNN_PANEL && lane < columns; lane += XNOR_TILE) {
    /* What padded taps add is the same for every pixel of the class. */
    for (int i = 0; i < XNOR_TILE; i++) start[i] = (int32_t)((class_->valid + class_->padded) * product->depth);
    xnor_sum sum = {.tap = class_->tap + class_->valid,
                    .offset = class_->offset + class_->valid,
                    .taps = class_->padded,
                    .words = words,
                    .reach = reach,
                    .panel = right + lane,
                    .start = start,
                    .columns = XNOR_TILE,
                    .type = BNN_INT32};
    if (class_->padded) xnor_tile_1(&sum, (const uint32_t *const[]){product->constant}, (void *const[]){start});
    sum.tap = class_->tap;
    sum.offset = class_->offset;
    sum.taps = class_->valid;
    sum.columns = columns - lane;
    sum.type = product->out_type;

    int64_t image = begin / class_->count, position = class_->first + begin % class_->count;
    for (int64_t i = begin; i < end;) {
      const uint32_t *rows[BNN_TILE_ROWS];
      void *results[BNN_TILE_ROWS];
      int count = 0;
      for (; count < BNN_TILE_ROWS && i < end; count++, i++) {
        rows[count] = left + (image * schedule->sources + schedule->base[position]) * reach;
        results[count] = out + ((image * schedule->pixels + schedule->pixel[position]) * row + lane) * 4;
        if (++position == class_->first + class_->count) position = class_->first, image++;
      }
      xnor_tiles[count - 1](&sum, rows, results);
    }
  }
}

static void xnor_run(const bnn_product *product, int64_t begin, int64_t end, void *scratch) {
  (void)scratch;
  int64_t panels = bnn_panels(product->columns), across = panels * product->groups;
  const bnn_class *class_ = product->schedule->class_;
  int64_t skipped = 0; /* blocks of the classes before */
  for (int64_t item = begin; item < end; item++) {
    int64_t block = item / across, rest = item % across;
    while (block - skipped >= xnor_blocks(product, class_)) skipped += xnor_blocks(product, class_++);
    xnor_item(product, class_, block - skipped, rest / panels, rest % panels);
  }
}
