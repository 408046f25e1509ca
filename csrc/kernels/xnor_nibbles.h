/* Products of two planes of signs where a byte of a register can be a table of its own (BNN_NIBBLE_TABLES), as counting
 * by table is. The bits of four steps of the reduction are a nibble. Where those of two pixels are known, so is, for
 * each of the 16 nibbles a column may have, how many of its bits differ from the one and from the other: a register
 * holds these 16 bytes of two counts, and one look-up serves two pixels and a column per byte. The upper counts are
 * taken out after three look-ups, when they could still not have been reached by a carry from the lower ones.
 *
 * The panel is turned for this, a byte to a column and nibbles apart, once for the pixels of a block; and nibbles of
 * pixels are paired once for all panels. A few pixels are not worth that. */

#define NIBBLE_PAIRS 3 /* of pixels, in a tile */
#define NIBBLE_STEPS 3 /* look-ups until upper counts are taken out */
#define NIBBLE_ROOM 63 /* until bytes are full */
#define NIBBLE_LEAST 8 /* pixels */

/* 16-bit sums of counts are full after this many words; longer products are made without tables. */
#define NIBBLE_MOST 2047

enum { NIBBLE_VECTORS = BNN_PANEL / BNN_LANES };

typedef struct {
  int64_t nibbles; /* of a pixel, filled up to steps */
  uint32_t *word[2];
  int has_table;
  uint8_t *table;  /* [256][BNN_PANEL] */
  uint8_t *panel;  /* [nibbles][BNN_PANEL] */
  uint16_t *pixel; /* [XNOR_BLOCK / 2][nibbles] bytes from the first table to that of a pair of nibbles */
} xnor_nibbles;

static int xnor_by_nibbles(const bnn_product *p) {
  return p->left_kind == BNN_SIGN && p->right_kind == BNN_SIGN && p->left_planes == 1 && p->right_planes == 1 &&
         p->schedule->taps * bnn_words(p->depth) <= NIBBLE_MOST;
}

/* Divides scratch; returns how much of it is taken. */
static size_t xnor_nibbles_areas(const bnn_product *p, char *scratch, xnor_nibbles *work) {
  if (!xnor_by_nibbles(p)) return 0;
  int64_t words = p->schedule->taps * bnn_words(p->depth), nibbles = 8 * words + NIBBLE_STEPS;
  size_t used = 0;
  work->has_table = 0;
  for (int i = 0; i < 2; i++) work->word[i] = bnn_area(scratch, &used, words * 4);
  work->table = bnn_area(scratch, &used, 256 * BNN_PANEL);
  work->panel = bnn_area(scratch, &used, nibbles * BNN_PANEL);
  work->pixel = bnn_area(scratch, &used, XNOR_BLOCK / 2 * nibbles * 2);
  return used;
}

/* Pairs the nibbles of the pixels of a block. */
static void xnor_nibbles_pair(const xnor_pair *pair, int64_t words, const uint32_t *const *from, int64_t pixels,
                              xnor_nibbles *work) {
  if (!work->has_table)
    for (unsigned i = 0; i < 256; i++) v_store(work->table + i * BNN_PANEL, v_pair_table(i & 15, i >> 4));
  work->has_table = 1;
  work->nibbles = bnn_ceil(8 * words, NIBBLE_STEPS) * NIBBLE_STEPS;
  for (int64_t i = 0; i < pixels; i++) {
    for (int64_t n = 0; n < words; n++) work->word[i % 2][n] = from[i][pair[n / 2].left[n % 2]];
    if (i % 2 == 0 && i + 1 < pixels) continue; /* the last may stand alone: what it is paired with does not matter */
    const uint8_t *even = (const uint8_t *)work->word[0], *odd = (const uint8_t *)work->word[1];
    uint16_t *nibble = work->pixel + i / 2 * work->nibbles;
    for (int64_t n = 0; n < 4 * words; n++) {
      nibble[2 * n] = (uint16_t)((uint8_t)((even[n] & 15) | odd[n] << 4) * BNN_PANEL);
      nibble[2 * n + 1] = (uint16_t)((even[n] >> 4 | (odd[n] & 0xf0)) * BNN_PANEL);
    }
    for (int64_t n = 8 * words; n < work->nibbles; n++) nibble[n] = 0;
  }
}

static void xnor_nibbles_turn(const xnor_pair *pair, int64_t words, const uint32_t *panel, const xnor_nibbles *work) {
  for (int64_t n = 0; n < words; n++)
    v_store_nibbles(work->panel + n * 8 * BNN_PANEL, panel + pair[n / 2].right[n % 2]);
  for (int64_t n = 8 * words * BNN_PANEL; n < work->nibbles * BNN_PANEL; n++) work->panel[n] = 0;
}

/* How many bits differ, of each pixel of a few pairs, in 16-bit lanes: the first half of each lane's columns, the
 * second, of the one pixel and of the other. */
BNN_INLINE void xnor_nibbles_count(const int pairs, const xnor_nibbles *work, const uint16_t *pixel,
                                   vu32 total[NIBBLE_PAIRS][4]) {
  const uint8_t *column = work->panel;
  vu32 both[NIBBLE_PAIRS], upper[NIBBLE_PAIRS];
  BNN_UNROLL
  for (int i = 0; i < pairs; i++) total[i][0] = total[i][1] = total[i][2] = total[i][3] = v_set(0);
  for (int64_t left = work->nibbles, here; left; left -= here) {
    here = left < NIBBLE_ROOM ? left : NIBBLE_ROOM;
    BNN_UNROLL
    for (int i = 0; i < pairs; i++) both[i] = upper[i] = v_set(0);
    for (const uint16_t *end = pixel + here; pixel < end; pixel += NIBBLE_STEPS, column += NIBBLE_STEPS * BNN_PANEL) {
      vu32 first = v_load(column), second = v_load(column + BNN_PANEL), third = v_load(column + 2 * BNN_PANEL);
      BNN_UNROLL
      for (int i = 0; i < pairs; i++) {
        const uint16_t *nibble = pixel + i * work->nibbles;
        vu32 counts = v_look_up_counts(v_load(work->table + nibble[0]), first);
        counts = v_add_counts(counts, v_look_up_counts(v_load(work->table + nibble[1]), second));
        counts = v_add_counts(counts, v_look_up_counts(v_load(work->table + nibble[2]), third));
        both[i] = v_add_counts(both[i], counts);
        upper[i] = v_add_counts(upper[i], v_upper_counts(counts));
      }
    }
    BNN_UNROLL
    for (int i = 0; i < pairs; i++) {
      vu32 lower = v_lower_counts(both[i], upper[i]);
      total[i][0] = v_add_halves(total[i][0], v_low_bytes(lower));
      total[i][1] = v_add_halves(total[i][1], v_high_bytes(lower));
      total[i][2] = v_add_halves(total[i][2], v_low_bytes(upper[i]));
      total[i][3] = v_add_halves(total[i][3], v_high_bytes(upper[i]));
    }
  }
}

/* The results of one pixel, from what it counted. */
BNN_INLINE void xnor_nibbles_store(const vu32 half[2], const int32_t *start, bnn_type type, int64_t columns, char *to) {
  vu32 count[NIBBLE_VECTORS] = {v_low_halves(half[0]), v_high_halves(half[0]), v_low_halves(half[1]),
                                v_high_halves(half[1])};
  BNN_UNROLL
  for (int v = 0; v < NIBBLE_VECTORS; v++) {
    int64_t lane = v * BNN_LANES;
    vu32 result = v_sub(v_load(start + lane), v_add(count[v], count[v]));
    if (type == BNN_FLOAT32) result = v_bits_of(v_float(result));
    if (type == BNN_INT16)
      store_halves((int16_t *)to + lane, result, columns - lane);
    else if (columns >= lane + BNN_LANES)
      v_store((uint32_t *)to + lane, result);
    else if (columns > lane)
      v_store_part((uint32_t *)to + lane, result, columns - lane);
  }
}

/* A panel's results for the pixels that are paired. */
static void xnor_nibbles_panel(const xnor_nibbles *work, int64_t pixels, const int32_t *start, bnn_type type,
                               int64_t columns, char *const *to, int64_t at) {
  for (int64_t i = 0, pairs; i < pixels; i += 2 * pairs) {
    const uint16_t *pixel = work->pixel + i / 2 * work->nibbles;
    vu32 total[NIBBLE_PAIRS][4];
    pairs = NIBBLE_PAIRS;
    if (pixels - i > 2 * (NIBBLE_PAIRS - 1))
      xnor_nibbles_count(NIBBLE_PAIRS, work, pixel, total);
    else
      xnor_nibbles_count(pairs = 1, work, pixel, total);
    for (int64_t k = 0; k < 2 * pairs && i + k < pixels; k++)
      xnor_nibbles_store(total[k / 2] + k % 2 * 2, start, type, columns, to[i + k] + at * bnn_size(type));
  }
}
