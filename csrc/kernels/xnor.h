/* bits x bits -> integers: every dense and convolutional product of two sign operands.
 *
 * A tile is a few rows (output pixels of one class) by BNN_TILE_VECTORS vectors of columns. Its bits are counted with a
 * carry-save adder: two xors and what was left over go into one full adder, the sum stays, and only the carry is
 * counted, so two words cost one population count. More levels would pay only where counting is slow. */

#define BNN_TILE_VECTORS 2
#define XNOR_TILE (BNN_TILE_VECTORS * BNN_LANES)

/* Output pixels per item: enough that loading a panel of weights is nothing, few enough that items are many. */
#define XNOR_BLOCK 96

/* Two words that a tile counts together: where they are from the start of a row, and from the start of the panel. Words
 * of neighbouring taps may pair up, so their number per tap need not be even. */
typedef struct {
  int64_t left[2], right[2];
} xnor_pair;

typedef struct {
  const xnor_pair *pair;
  int64_t words; /* an odd last one is the first half of a pair */
  const uint32_t *panel;
  const int32_t *start; /* result of a lane before any bit differs */
  int64_t columns;      /* of the panel from here on; may exceed the tile */
  bnn_type type;
} xnor_sum;

/* Lists the words of `taps` taps; returns how many. */
static int64_t xnor_pairs(const int32_t *tap, const int32_t *offset, int64_t taps, int64_t words, int64_t reach,
                          xnor_pair *pair) {
  int64_t n = 0;
  for (int64_t i = 0; i < taps; i++)
    for (int64_t w = 0; w < words; w++, n++) {
      pair[n / 2].left[n % 2] = offset[i] * reach + w;
      pair[n / 2].right[n % 2] = (tap[i] * words + w) * BNN_PANEL;
    }
  return n;
}

/* Cell i is row i / BNN_TILE_VECTORS, vector i % BNN_TILE_VECTORS: one loop, so that one hint unrolls it. */
BNN_INLINE void xnor_tile(int rows, const xnor_sum *sum, const uint32_t *const *left, void *const *out) {
  enum { VECTORS = BNN_TILE_VECTORS, CELLS = BNN_TILE_ROWS * VECTORS };
  const int cells = rows * VECTORS;
  const uint32_t *panel = sum->panel;
  const xnor_pair *pair = sum->pair, *end = pair + sum->words / 2;
  vu32 ones[CELLS];  /* the sum bit of every counter */
  vu32 twos[CELLS];  /* carries counted so far, narrow */
  vu32 total[CELLS]; /* carries counted so far, one counter per lane */
  BNN_UNROLL
  for (int i = 0; i < cells; i++) ones[i] = total[i] = v_set(0);

  do {
    const xnor_pair *stop = BNN_COUNT_ROOM && end - pair > BNN_COUNT_ROOM ? pair + BNN_COUNT_ROOM : end;
    BNN_UNROLL
    for (int i = 0; i < cells; i++) twos[i] = v_set(0);
    for (; pair < stop; pair++) {
      BNN_UNROLL
      for (int i = 0; i < cells; i++) {
        const uint32_t *row = left[i / VECTORS], *column = panel + i % VECTORS * BNN_LANES;
        vu32 half = v_xor3(ones[i], v_set(row[pair->left[0]]), v_load(column + pair->right[0]));
        vu32 whole = v_xor3(half, v_set(row[pair->left[1]]), v_load(column + pair->right[1]));
        twos[i] = v_add_counts(twos[i], v_count(v_carry(half, whole, ones[i])));
        ones[i] = whole;
      }
    }
    BNN_UNROLL
    for (int i = 0; i < cells; i++) total[i] = v_add(total[i], v_widen_counts(twos[i]));
  } while (BNN_COUNT_ROOM && pair < end);

  if (sum->words % 2) {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) {
      const uint32_t *row = left[i / VECTORS], *column = panel + i % VECTORS * BNN_LANES;
      vu32 half = v_xor3(ones[i], v_set(row[end->left[0]]), v_load(column + end->right[0]));
      total[i] = v_add(total[i], v_widen_counts(v_count(v_carry(half, half, ones[i]))));
      ones[i] = half;
    }
  }

  BNN_UNROLL
  for (int i = 0; i < cells; i++) {
    vu32 differ = v_add(v_add(total[i], total[i]), v_widen_counts(v_count(ones[i])));
    total[i] = v_sub(v_load(sum->start + i % VECTORS * BNN_LANES), v_add(differ, differ));
  }
  if (sum->type == BNN_FLOAT32) {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) total[i] = v_bits_of(v_float(total[i]));
  }
  if (sum->columns >= XNOR_TILE) {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) v_store((uint32_t *)out[i / VECTORS] + i % VECTORS * BNN_LANES, total[i]);
  } else {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) {
      int lane = i % VECTORS * BNN_LANES;
      if (lane < sum->columns) v_store_part((uint32_t *)out[i / VECTORS] + lane, total[i], sum->columns - lane);
    }
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
  return (size_t)(product->schedule->taps * bnn_words(product->depth) / 2 + 2) * sizeof(xnor_pair);
}

/* What the items of one class share. */
typedef struct {
  const bnn_class *class_;
  xnor_pair *valid, *padded;
  int64_t valid_words, padded_words;
} xnor_lists;

static void xnor_item(const bnn_product *product, const xnor_lists *lists, int64_t block, int64_t group,
                      int64_t panel) {
  const bnn_schedule *schedule = product->schedule;
  const bnn_class *class_ = lists->class_;
  int64_t words = bnn_words(product->depth), reach = words * product->groups;
  int64_t columns = product->columns - panel * BNN_PANEL, row = product->groups * product->columns;
  const uint32_t *left = (const uint32_t *)product->left + group * words;
  const uint32_t *right = (const uint32_t *)product->right +
                          (group * bnn_panels(product->columns) + panel) * schedule->taps * words * BNN_PANEL;
  char *out = (char *)product->out + (group * product->columns + panel * BNN_PANEL) * 4; /* both types have 4 bytes */
  int64_t all = class_->count * product->images, begin = block * XNOR_BLOCK;
  int64_t end = all - begin < XNOR_BLOCK ? all : begin + XNOR_BLOCK;
  int32_t start[XNOR_TILE];

  for (int64_t lane = 0; lane < BNN_PANEL && lane < columns; lane += XNOR_TILE) {
    for (int i = 0; i < XNOR_TILE; i++) start[i] = (int32_t)((class_->valid + class_->padded) * product->depth);
    xnor_sum sum = {lists->padded, lists->padded_words, right + lane, start, XNOR_TILE, BNN_INT32};
    /* What padded taps add is the same for every pixel of the class. */
    if (class_->padded) xnor_tile_1(&sum, (const uint32_t *const[]){product->constant}, (void *const[]){start});

    sum = (xnor_sum){lists->valid, lists->valid_words, right + lane, start, columns - lane, product->out_type};
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
  int64_t panels = bnn_panels(product->columns), across = panels * product->groups;
  int64_t words = bnn_words(product->depth);
  const bnn_class *class_ = product->schedule->class_;
  int64_t skipped = 0; /* blocks of the classes before */
  xnor_lists lists = {0};
  for (int64_t item = begin; item < end; item++) {
    int64_t block = item / across, rest = item % across;
    while (block - skipped >= xnor_blocks(product, class_)) skipped += xnor_blocks(product, class_++);
    if (class_ != lists.class_) {
      lists.class_ = class_;
      lists.valid = scratch;
      lists.valid_words =
          xnor_pairs(class_->tap, class_->offset, class_->valid, words, words * product->groups, lists.valid);
      lists.padded = lists.valid + (lists.valid_words + 1) / 2;
      lists.padded_words = xnor_pairs(class_->tap + class_->valid, class_->offset + class_->valid, class_->padded,
                                      words, 0, lists.padded);
    }
    xnor_item(product, &lists, block - skipped, rest / panels, rest % panels);
  }
}
