/* bits x bits -> integers: every dense and convolutional product of two packed operands.
 *
 * The value of an operand is a constant plus the bits of its planes, each times a weight: 2^k - 1 and -2, -4, -8 .. for
 * signs, 0 and 1, 2, 4 .. for units, 0 and -2 (sign), 1 (not zero) for ternary values. So a product is a sum of
 * *terms*, each the count of the bits where a plane of the left and a plane of the right meet, times a coefficient; and
 * of counts of one operand alone, which belong to a row or to a column and are taken once for it:
 *
 *   sign x sign        xor, for a sign and a sign differ where their product is -1
 *   ternary x sign     xor where the value is not zero; ternary x ternary likewise, and where neither is zero
 *   unit x anything    and, of every plane with every plane
 *
 * A tile is a few rows (output pixels of one class) by BNN_TILE_VECTORS vectors of columns. Its bits are counted with a
 * carry-save adder: two words of combined bits and what was left over go into one full adder, the sum stays, and only
 * the carry is counted, so two words cost one population count. Where counting is slow (BNN_CARRY_LEVELS is 3), carries
 * go through two more levels of adders, and eight words cost one count; where it is as fast as an addition (0), there
 * is no adder. */

#define XNOR_TILE (BNN_TILE_VECTORS * BNN_LANES)
#define XNOR_GROUP (BNN_CARRY_LEVELS > 1 ? 4 : 1) /* pairs of words that are counted together */
/* Pairs until narrow counts are full. */
#define XNOR_ROOM (BNN_CARRY_LEVELS ? BNN_COUNT_ROOM * XNOR_GROUP : BNN_COUNT_ROOM / 2)

#ifndef BNN_TILE_PANELS
#define BNN_TILE_PANELS 1 /* of a tile with one row */
#endif

/* Output pixels per item: enough that loading a panel of weights is nothing, few enough that items are many. */
#define XNOR_BLOCK 96

/* Pixels that are few enough for items of several panels. */
#define XNOR_FEW 64

/* Words of a row and panel that are counted while one is folded. */
#define XNOR_FOLD_GAIN 2

/* How far ahead memory is asked for, in pixels whose results will be written: a store waits for its line. */
#define XNOR_PIXELS_AHEAD 12

/* Two words that a tile counts together: where they are from the start of a row, and from the start of the panel. Words
 * of neighbouring taps may pair up, so their number per tap need not be even. */
typedef struct {
  int64_t left[2], right[2];
} xnor_pair;

/* How the bits of two words meet. LEFT, RIGHT and BOTH are a xor where the ternary values of that side are not zero, by
 * their masks. SIGNS is a xor with a factor of 2, a product of two planes of signs: a multiplication would take long.
 */
typedef enum { XNOR_SIGNS, XNOR_XOR, XNOR_AND, XNOR_LEFT, XNOR_RIGHT, XNOR_BOTH } xnor_meeting;

/* What a tile sums: one term. Distances are in words. */
typedef struct {
  const xnor_pair *pair;
  int64_t words; /* an odd last one is the first half of a pair */
  const uint32_t *panel;
  int64_t across;                /* to the next panel */
  int64_t left_mask, right_mask; /* from a plane to its mask */
  const int32_t *const *from;    /* the sums so far, for each row */
  int32_t factor;
  bnn_type type;
  int64_t at;      /* the first result, from that of a row */
  int64_t columns; /* of the panel from here on; may exceed the tile */
} xnor_sum;

typedef struct {
  xnor_meeting meeting;
  int64_t left;  /* the plane, from that of the last term */
  int64_t right; /* the plane, from the first */
  xnor_sum sum;
} xnor_term;

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

/* The bits that meet. */
BNN_INLINE vu32 xnor_meet(xnor_meeting meeting, const xnor_sum *sum, const uint32_t *row, const uint32_t *column) {
  vu32 a = v_set(row[0]), b = v_load(column);
  switch (meeting) {
    case XNOR_AND:
      return v_and(a, b);
    case XNOR_LEFT:
      return v_and_xor(v_set(row[sum->left_mask]), a, b);
    case XNOR_RIGHT:
      return v_and_xor(v_load(column + sum->right_mask), a, b);
    case XNOR_BOTH:
      return v_and(v_load(column + sum->right_mask), v_and_xor(v_set(row[sum->left_mask]), a, b));
    default:
      return v_xor(a, b);
  }
}

/* ones + the bits that meet, without carry: one ternary operation where there are any. */
BNN_INLINE vu32 xnor_add(xnor_meeting meeting, const xnor_sum *sum, vu32 ones, const uint32_t *row,
                         const uint32_t *column) {
  vu32 a = v_set(row[0]), b = v_load(column);
  switch (meeting) {
    case XNOR_AND:
      return v_xor_and(ones, a, b);
    case XNOR_LEFT:
      return v_xor_and(ones, v_set(row[sum->left_mask]), v_xor(a, b));
    case XNOR_RIGHT:
      return v_xor_and(ones, v_load(column + sum->right_mask), v_xor(a, b));
    case XNOR_BOTH:
      return v_xor_and(ones, v_load(column + sum->right_mask), v_and_xor(v_set(row[sum->left_mask]), a, b));
    default:
      return v_xor3(ones, a, b);
  }
}

/* The carry out of adding two words to a counter whose sum bit is `ones`. */
BNN_INLINE vu32 xnor_add_pair(xnor_meeting meeting, const xnor_sum *sum, const xnor_pair *pair, const uint32_t *row,
                              const uint32_t *column, vu32 *ones) {
  vu32 half = xnor_add(meeting, sum, *ones, row + pair->left[0], column + pair->right[0]);
  vu32 whole = xnor_add(meeting, sum, half, row + pair->left[1], column + pair->right[1]);
  vu32 carry = v_carry(half, whole, *ones);
  *ones = whole;
  return carry;
}

#if BNN_CARRY_LEVELS > 1
/* The carry out of adding two carries to a counter of carries. */
BNN_INLINE vu32 xnor_add_carries(vu32 a, vu32 b, vu32 *sum) {
  vu32 carry = v_majority(a, b, *sum);
  *sum = v_xor3(*sum, a, b);
  return carry;
}
#endif

/* Whole groups of pairs: what each cell has counted so far, narrow. */
BNN_INLINE vu32 xnor_count_group(xnor_meeting meeting, const xnor_sum *sum, const xnor_pair *pair, const uint32_t *row,
                                 const uint32_t *column, vu32 *ones, vu32 *twos, vu32 *fours) {
#if BNN_CARRY_LEVELS == 0
  (void)ones, (void)twos, (void)fours;
  return v_add_counts(v_count(xnor_meet(meeting, sum, row + pair->left[0], column + pair->right[0])),
                      v_count(xnor_meet(meeting, sum, row + pair->left[1], column + pair->right[1])));
#elif BNN_CARRY_LEVELS == 1
  (void)twos, (void)fours;
  return v_count(xnor_add_pair(meeting, sum, pair, row, column, ones));
#else
  vu32 a = xnor_add_pair(meeting, sum, pair, row, column, ones);
  vu32 b = xnor_add_pair(meeting, sum, pair + 1, row, column, ones);
  vu32 low = xnor_add_carries(a, b, twos);
  a = xnor_add_pair(meeting, sum, pair + 2, row, column, ones);
  b = xnor_add_pair(meeting, sum, pair + 3, row, column, ones);
  return v_count(xnor_add_carries(low, xnor_add_carries(a, b, twos), fours));
#endif
}

/* Where vector i of a tile's columns begins: their first panel, and the next ones. */
BNN_INLINE int64_t xnor_column(const xnor_sum *sum, int i) {
  return i / BNN_TILE_VECTORS * sum->across + i % BNN_TILE_VECTORS * BNN_LANES;
}

#ifdef BNN_ADD_FOUR
/* Pairs two at a time, while there are two. A tile of several panels reads each word once: then memory is the limit,
 * and is asked for ahead. */
BNN_INLINE const xnor_pair *xnor_count_fours(const int rows, const int vectors, const xnor_sum *sum,
                                             const xnor_pair *pair, const xnor_pair *end, const uint32_t *const *left,
                                             vu32 *ones, vu32 *count) {
  enum { WORDS_AHEAD = 16 * BNN_PANEL };
  for (; end - pair >= 2; pair += 2) {
    const int64_t at[] = {pair[0].left[0], pair[0].left[1], pair[1].left[0], pair[1].left[1]};
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) {
      const uint32_t *column = sum->panel + xnor_column(sum, v);
      vu32 word[4];
      BNN_UNROLL
      for (int n = 0; n < 4; n++) {
        const uint32_t *from = column + pair[n / 2].right[n % 2];
        word[n] = v_load(from);
        if (vectors > BNN_TILE_VECTORS) fetch_ahead(from + WORDS_AHEAD, BNN_ALIGN);
      }
      BNN_UNROLL
      for (int r = 0; r < rows; r++) {
        const int i = r * vectors + v;
        vu32 first, second;
        v_add_four(left[r], at[0], at[1], at[2], at[3], word[0], word[1], word[2], word[3], &ones[i], &first, &second);
        count[i] = v_add_counts(v_add_counts(count[i], v_count(first)), v_count(second));
      }
    }
  }
  return pair;
}
#endif

/* to = from - factor * count, for `rows` rows by `panels` panels. Cell i is row i / vectors, vector i % vectors: one
 * loop, so that one hint unrolls it. */
BNN_INLINE void xnor_tile(xnor_meeting meeting, const int rows, const int panels, const xnor_sum *sum,
                          const uint32_t *const *left, char *const *to) {
  enum { CELLS = BNN_TILE_ROWS * BNN_TILE_VECTORS };
  const int vectors = panels * BNN_TILE_VECTORS, cells = rows * vectors;
  const xnor_pair *pair = sum->pair, *last = pair + sum->words / 2, *end = last - sum->words / 2 % XNOR_GROUP;
  vu32 ones[CELLS], twos[CELLS], fours[CELLS]; /* the sum bits of every counter */
  vu32 count[CELLS], single[CELLS];            /* what a group counts, and a word, narrow */
  vu32 total[CELLS];                           /* the same, one counter per lane */
  BNN_UNROLL
  for (int i = 0; i < cells; i++) ones[i] = twos[i] = fours[i] = total[i] = v_set(0);

  do {
    const xnor_pair *stop = BNN_COUNT_ROOM && end - pair > XNOR_ROOM ? pair + XNOR_ROOM : end;
    BNN_UNROLL
    for (int i = 0; i < cells; i++) count[i] = v_set(0);
#ifdef BNN_ADD_FOUR
    if (meeting == XNOR_SIGNS || meeting == XNOR_XOR)
      pair = xnor_count_fours(rows, vectors, sum, pair, stop, left, ones, count);
#endif
    for (; pair < stop; pair += XNOR_GROUP) {
      BNN_UNROLL
      for (int i = 0; i < cells; i++)
        count[i] = v_add_counts(
            count[i], xnor_count_group(meeting, sum, pair, left[i / vectors],
                                       sum->panel + xnor_column(sum, i % vectors), &ones[i], &twos[i], &fours[i]));
    }
    BNN_UNROLL
    for (int i = 0; i < cells; i++) total[i] = v_add(total[i], v_widen_counts(count[i]));
  } while (BNN_COUNT_ROOM && pair < end);

  /* What does not fill a group. */
  BNN_UNROLL
  for (int i = 0; i < cells; i++) count[i] = v_set(0);
  if (XNOR_GROUP > 1 && end > sum->pair) {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) {
      vu32 pairs = v_count(fours[i]);
      count[i] = v_add_counts(v_count(twos[i]), v_add_counts(pairs, pairs));
    }
  }
  for (; XNOR_GROUP > 1 && pair < last; pair++) {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) {
      const uint32_t *row = left[i / vectors], *column = sum->panel + xnor_column(sum, i % vectors);
      count[i] = v_add_counts(count[i], v_count(xnor_add_pair(meeting, sum, pair, row, column, &ones[i])));
    }
  }
  /* The last of an odd number of words is counted by itself. */
  BNN_UNROLL
  for (int i = 0; i < cells; i++) single[i] = v_set(0);
  if (sum->words % 2) {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) {
      const uint32_t *row = left[i / vectors], *column = sum->panel + xnor_column(sum, i % vectors);
      single[i] = v_count(xnor_meet(meeting, sum, row + pair->left[0], column + pair->right[0]));
    }
  }
  if (sum->words == 1) {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) total[i] = v_widen_counts(single[i]);
  } else {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) {
      vu32 left_over = v_add_counts(single[i], v_add_counts(count[i], count[i]));
      if (BNN_CARRY_LEVELS) left_over = v_add_counts(left_over, v_count(ones[i]));
      for (int level = 0; level < BNN_CARRY_LEVELS; level++) total[i] = v_add(total[i], total[i]);
      total[i] = v_add(total[i], v_widen_counts(left_over));
    }
  }

  BNN_UNROLL
  for (int i = 0; i < cells; i++) {
    vu32 product = meeting == XNOR_SIGNS ? v_add(total[i], total[i]) : v_mul(total[i], v_set((uint32_t)sum->factor));
    total[i] = v_sub(v_load(sum->from[i / vectors] + i % vectors * BNN_LANES), product);
  }
  if (sum->type == BNN_INT16) {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) {
      int lane = i % vectors * BNN_LANES;
      store_halves((int16_t *)to[i / vectors] + sum->at + lane, total[i], sum->columns - lane);
    }
    return;
  }
  if (sum->type == BNN_FLOAT32) {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) total[i] = v_bits_of(v_float(total[i]));
  }
  if (sum->columns >= panels * XNOR_TILE) {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) v_store((uint32_t *)to[i / vectors] + sum->at + i % vectors * BNN_LANES, total[i]);
  } else {
    BNN_UNROLL
    for (int i = 0; i < cells; i++) {
      int lane = i % vectors * BNN_LANES;
      if (lane < sum->columns)
        v_store_part((uint32_t *)to[i / vectors] + sum->at + lane, total[i], sum->columns - lane);
    }
  }
}

/* The tiles of some rows, whose results are those of pixels: as a function of its own, meeting is a literal in each, as
 * row counts are, and every loop over rows unrolls. */
typedef void xnor_tiles_of(const xnor_sum *sum, int64_t rows, const uint32_t *const *left, char *const *to);
#define XNOR_TILES(meeting)                                                                                           \
  static void xnor_tiles_##meeting(const xnor_sum *sum, int64_t rows, const uint32_t *const *left, char *const *to) { \
    for (; rows >= BNN_TILE_ROWS; rows -= BNN_TILE_ROWS, left += BNN_TILE_ROWS, to += BNN_TILE_ROWS) {                \
      BNN_UNROLL                                                                                                      \
      for (int k = 0; k < BNN_TILE_ROWS; k++)                                                                         \
        fetch_ahead(to[k + XNOR_PIXELS_AHEAD] + sum->at * bnn_size(sum->type), XNOR_TILE * 4);                        \
      xnor_tile(XNOR_##meeting, BNN_TILE_ROWS, 1, sum, left, to);                                                     \
    }                                                                                                                 \
    if (BNN_TILE_ROWS > 3 && rows == 3) xnor_tile(XNOR_##meeting, 3, 1, sum, left, to);                               \
    if (BNN_TILE_ROWS > 2 && rows == 2) xnor_tile(XNOR_##meeting, 2, 1, sum, left, to);                               \
    if (rows == 1) xnor_tile(XNOR_##meeting, 1, 1, sum, left, to);                                                    \
  }
XNOR_TILES(SIGNS)
XNOR_TILES(XOR)
XNOR_TILES(AND)
XNOR_TILES(LEFT)
XNOR_TILES(RIGHT)
XNOR_TILES(BOTH)
#undef XNOR_TILES

#if BNN_TILE_PANELS > 1
/* Of one row, and of two: as many panels as fill a tile. */
BNN_APART void xnor_tile_few_1(const xnor_sum *sum, const uint32_t *const *left, char *const *to) {
  xnor_tile(XNOR_SIGNS, 1, BNN_TILE_PANELS, sum, left, to);
}
BNN_APART void xnor_tile_few_2(const xnor_sum *sum, const uint32_t *const *left, char *const *to) {
  xnor_tile(XNOR_SIGNS, 2, BNN_TILE_PANELS / 2, sum, left, to);
}
#endif

static xnor_tiles_of *const xnor_tiles[] = {
    [XNOR_SIGNS] = xnor_tiles_SIGNS, [XNOR_XOR] = xnor_tiles_XOR,     [XNOR_AND] = xnor_tiles_AND,
    [XNOR_LEFT] = xnor_tiles_LEFT,   [XNOR_RIGHT] = xnor_tiles_RIGHT, [XNOR_BOTH] = xnor_tiles_BOTH,
};

#ifdef BNN_NIBBLE_TABLES
#include "xnor_nibbles.h"
#endif

/* ---- operands as weighted planes ------------------------------------------------------------------------------- */

static int32_t xnor_constant(bnn_kind kind, int planes) { return kind == BNN_SIGN ? (1 << planes) - 1 : 0; }

static int32_t xnor_weight(bnn_kind kind, int plane) {
  if (kind == BNN_TERNARY) return plane ? 1 : -2;
  return kind == BNN_SIGN ? -(2 << plane) : 1 << plane;
}

/* What a bit counts by itself, where the other operand's constant meets it. Two signs meet by xor, which has counted
 * it; so has the xor of a ternary sign. */
static int32_t xnor_alone(bnn_kind kind, int plane, bnn_kind other, int other_planes) {
  if ((kind == BNN_SIGN && other == BNN_SIGN) || (kind == BNN_TERNARY && plane == 0)) return 0;
  return xnor_weight(kind, plane) * xnor_constant(other, other_planes);
}

static int64_t xnor_left_plane(const bnn_product *p) {
  return p->images * p->schedule->sources * p->groups * bnn_words(p->depth);
}

static int64_t xnor_right_plane(const bnn_product *p) {
  return p->groups * bnn_panels(p->columns) * p->schedule->taps * bnn_words(p->depth) * BNN_PANEL;
}

/* Lists the terms, of planes that lie so far apart; returns how many, never more than left_planes * right_planes. */
static int xnor_terms(const bnn_product *p, int64_t left, int64_t right, xnor_term *term) {
  int by_and = p->left_kind == BNN_UNIT || p->right_kind == BNN_UNIT;
  int left_masked = !by_and && p->left_kind == BNN_TERNARY, right_masked = !by_and && p->right_kind == BNN_TERNARY;
  xnor_meeting meeting = by_and                        ? XNOR_AND
                         : left_masked && right_masked ? XNOR_BOTH
                         : left_masked                 ? XNOR_LEFT
                         : right_masked                ? XNOR_RIGHT
                                                       : XNOR_XOR;
  if (meeting == XNOR_XOR && p->left_planes == 1 && p->right_planes == 1) meeting = XNOR_SIGNS;
  int n = 0;
  if (meeting == XNOR_BOTH) /* where neither is zero: then the product is 1, or -1 if their signs differ */
    term[n++] = (xnor_term){.meeting = XNOR_AND, .left = left, .right = right, .sum.factor = -1};
  for (int i = 0; i < (left_masked ? 1 : p->left_planes); i++)
    for (int j = 0; j < (right_masked ? 1 : p->right_planes); j++) {
      int32_t factor = by_and ? -xnor_weight(p->left_kind, i) * xnor_weight(p->right_kind, j) : 2 << (i + j);
      term[n++] = (xnor_term){meeting, i * left, j * right, {.left_mask = left, .right_mask = right, .factor = factor}};
    }
  return n;
}

/* start[lane] += weight * bits of that column in the listed words of a plane. */
static void xnor_count_columns(const xnor_pair *pair, int64_t words, const uint32_t *panel, int32_t weight,
                               int32_t *start) {
  for (int v = 0; v < BNN_TILE_VECTORS; v++) {
    vu32 total = v_set(0);
    for (int64_t n = 0; n < words; n++)
      total = v_add(total, v_widen_counts(v_count(v_load(panel + v * BNN_LANES + pair[n / 2].right[n % 2]))));
    int32_t *lanes = start + v * BNN_LANES;
    v_store(lanes, v_add(v_load(lanes), v_mul(total, v_set((uint32_t)weight))));
  }
}

/* The bits that the valid taps of a class read of one plane; `reach` words lie between pixels. */
BNN_INLINE int32_t xnor_count_row(const bnn_class *class_, const uint32_t *row, int64_t words, int64_t reach) {
  vu32 total = v_set(0);
  for (int64_t tap = 0; tap < class_->valid;) {
    const uint32_t *word = row + class_->offset[tap] * reach;
    int64_t length = words; /* of taps that lie side by side */
    for (tap++; tap < class_->valid && class_->offset[tap] == class_->offset[tap - 1] + 1 && reach == words; tap++)
      length += words;
    for (; length >= BNN_LANES; length -= BNN_LANES, word += BNN_LANES)
      total = v_add(total, v_widen_counts(v_count(v_load(word))));
    if (length) total = v_add(total, v_widen_counts(v_count(v_load_part(word, length))));
  }
  int32_t lanes[BNN_LANES], count = 0;
  v_store(lanes, total);
  for (int i = 0; i < BNN_LANES; i++) count += lanes[i];
  return count;
}

/* ---- folded taps ------------------------------------------------------------------------------------------------ */

/* Where channels leave much of their last word empty, the bits that a pixel reads are put next to each other before
 * they are counted: of the pixels of a block once for all panels, and of a panel for each block. A word of neighbouring
 * pixels, or columns, lies in neighbouring lanes. */

/* Words of all taps together, or 0 where it would not gain: what is saved is counted for every panel and pair of
 * planes, what folding costs is not. */
static int64_t xnor_folded(const bnn_product *p) {
  int64_t taps = p->schedule->taps, apart = taps * bnn_words(p->depth), folded = bnn_words(taps * p->depth);
  return (apart - folded) * bnn_panels(p->columns) * p->right_planes * XNOR_FOLD_GAIN > apart ? folded : 0;
}

/* A word of a tap: where it is from the start of a row, and from that of the panel; how many bits of the word that it
 * is appended to come before it, and whether it fills that. */
typedef struct {
  int64_t left, right;
  int before, fills;
} xnor_piece;

static int64_t xnor_pieces(const bnn_class *class_, int64_t depth, int64_t reach, xnor_piece *piece) {
  int64_t words = bnn_words(depth), n = 0;
  for (int64_t i = 0; i < class_->valid; i++)
    for (int64_t w = 0; w < words; w++, n++) {
      int64_t bits = w + 1 < words ? BNN_WORD : depth - w * BNN_WORD;
      int before = (int)((i * depth + w * BNN_WORD) % BNN_WORD);
      piece[n].left = class_->offset[i] * reach + w;
      piece[n].right = (class_->tap[i] * words + w) * BNN_PANEL;
      piece[n].before = before;
      piece[n].fills = before + bits >= BNN_WORD;
    }
  return n;
}

/* Folds the pieces of up to BNN_LANES pixels that lie `step` apart, or columns; words of a lane are `across` apart. One
 * more than there are may be written. */
BNN_INLINE void xnor_fold(const xnor_piece *piece, int64_t pieces, int columns, const uint32_t *from,
                          const int64_t step, int64_t lanes, uint32_t *to, int64_t across) {
  vu32 word = v_set(0);
  for (const xnor_piece *end = piece + pieces; piece < end; piece++) {
    const uint32_t *at = from + (columns ? piece->right : piece->left);
    vu32 x = step == 1 ? v_load_part(at, lanes) : v_load_apart(at, step, lanes);
    word = v_xor(word, v_shift_left(x, piece->before));
    if (!piece->fills) continue;
    v_store_part(to, word, lanes);
    to += across;
    word = piece->before ? v_shift_right(x, BNN_WORD - piece->before) : v_set(0);
  }
  if (pieces) v_store_part(to, word, lanes);
}

/* ---- items ------------------------------------------------------------------------------------------------------ */

static int64_t xnor_blocks(const bnn_product *product, const bnn_class *class_) {
  return bnn_ceil(class_->count * product->images, XNOR_BLOCK);
}

/* Whether the bits of a row count by themselves. */
static int xnor_rows_count(const bnn_product *p) {
  return p->left_kind != BNN_SIGN && xnor_constant(p->right_kind, p->right_planes);
}

/* Panels of an item: several share what their rows count, or the words of a few rows. */
static int64_t xnor_panels(const bnn_product *product) {
  return xnor_rows_count(product) || product->images * product->schedule->pixels <= XNOR_FEW ? 4 : 1;
}

/* Items that share the pixels of a block. */
static int64_t xnor_across(const bnn_product *product) {
  int64_t panels = xnor_panels(product);
  return bnn_ceil(bnn_panels(product->columns), panels) * product->groups;
}

/* An item is a block of output pixels by a few panels. */
static int64_t xnor_items(const bnn_product *product) {
  int64_t blocks = 0;
  for (int64_t i = 0; i < product->schedule->classes; i++)
    blocks += xnor_blocks(product, &product->schedule->class_[i]);
  return blocks * xnor_across(product);
}

/* What the items of one call and of one class share. */
typedef struct {
  xnor_term *term;
  int terms;
  int64_t last;        /* from the first plane to that of the last term */
  int64_t folded;      /* words of the folded taps, or 0 */
  int64_t right_plane; /* from a plane of a panel to the next */
  uint32_t *pixels;    /* [left_planes][folded + 1][XNOR_BLOCK] */
  uint32_t *panel;     /* [right_planes][folded + 1][BNN_PANEL] */
  xnor_piece *piece;
  int64_t pieces;
  int32_t *rows; /* what each pixel of a block counts by itself, or NULL */
  const bnn_class *class_;
  xnor_pair *valid, *padded;
  int64_t valid_words, padded_words;
  /* Of the pixels of a block, which are listed once for all panels. */
  int64_t begin, group;
  const uint32_t **from; /* [XNOR_BLOCK] what the first tap of a pixel would read */
  char **to;             /* [XNOR_BLOCK + XNOR_PIXELS_AHEAD] the first result of its group */
#ifdef BNN_NIBBLE_TABLES
  xnor_nibbles nibbles;
#endif
} xnor_work;

static size_t xnor_fold_scratch(const bnn_product *p) {
  int64_t folded = xnor_folded(p), lanes = p->left_planes * XNOR_BLOCK + p->right_planes * BNN_PANEL;
  if (!folded) return 0;
  return (size_t)((folded + 1) * lanes) * 4 + (size_t)(p->schedule->taps * bnn_words(p->depth)) * sizeof(xnor_piece);
}

static size_t xnor_scratch(const bnn_product *product) {
  size_t nibbles = 0;
#ifdef BNN_NIBBLE_TABLES
  nibbles = xnor_nibbles_areas(product, NULL, &(xnor_nibbles){0});
#endif
  return nibbles + (size_t)(product->left_planes * product->right_planes) * sizeof(xnor_term) +
         (size_t)(product->schedule->taps * bnn_words(product->depth) / 2 + 2) * sizeof(xnor_pair) +
         xnor_fold_scratch(product) + XNOR_BLOCK * (sizeof(uint32_t *) + sizeof(int32_t)) +
         (XNOR_BLOCK + XNOR_PIXELS_AHEAD) * sizeof(char *);
}

BNN_APART void xnor_begin(const bnn_product *product, void *scratch, xnor_work *work) {
#ifdef BNN_NIBBLE_TABLES
  xnor_nibbles nibbles = {0};
  scratch = (char *)scratch + xnor_nibbles_areas(product, scratch, &nibbles);
#endif
  xnor_term *term = scratch;
  int64_t folded = xnor_folded(product), left = folded ? (folded + 1) * XNOR_BLOCK : xnor_left_plane(product);
  int64_t right = folded ? (folded + 1) * BNN_PANEL : xnor_right_plane(product);
  *work = (xnor_work){.term = term, .folded = folded, .right_plane = right};
  work->terms = xnor_terms(product, left, right, term);
#ifdef BNN_NIBBLE_TABLES
  work->nibbles = nibbles;
#endif
  work->last = term[work->terms - 1].left;
  for (int t = 0; t < work->terms; t++) term[t].left -= work->last;
  work->from = (const uint32_t **)(term + product->left_planes * product->right_planes);
  work->to = (char **)(work->from + XNOR_BLOCK);
  int32_t *rows = (int32_t *)(work->to + XNOR_BLOCK + XNOR_PIXELS_AHEAD);
  if (xnor_rows_count(product)) work->rows = rows;
  work->valid = (xnor_pair *)(rows + XNOR_BLOCK);
  if (!folded) return;
  work->pixels = (uint32_t *)work->valid;
  work->panel = work->pixels + product->left_planes * left;
  work->piece = (xnor_piece *)(work->panel + product->right_planes * right);
  work->valid = (xnor_pair *)(work->piece + product->schedule->taps * bnn_words(product->depth));
}

BNN_APART void xnor_begin_class(const bnn_product *product, const bnn_class *class_, xnor_work *work) {
  int64_t words = bnn_words(product->depth);
  work->class_ = class_;
  work->begin = -1;
  if (work->folded) {
    work->pieces = xnor_pieces(class_, product->depth, words * product->groups, work->piece);
    work->valid_words = bnn_words(class_->valid * product->depth);
    for (int64_t n = 0; n < work->valid_words; n++) {
      work->valid[n / 2].left[n % 2] = n * XNOR_BLOCK;
      work->valid[n / 2].right[n % 2] = n * BNN_PANEL;
    }
  } else {
    work->valid_words =
        xnor_pairs(class_->tap, class_->offset, class_->valid, words, words * product->groups, work->valid);
  }
  work->padded = work->valid + (work->valid_words + 1) / 2;
  work->padded_words =
      xnor_pairs(class_->tap + class_->valid, class_->offset + class_->valid, class_->padded, words, 0, work->padded);
}

/* The pixels of a block, those that lie equally far apart at a time. */
static void xnor_fold_pixels(const bnn_product *p, const xnor_work *work, int64_t pixels) {
  for (int64_t i = 0, lanes; i < pixels; i += lanes) {
    const uint32_t *const *from = work->from + i;
    int64_t step = i + 1 < pixels ? from[1] - from[0] : 1;
    for (lanes = 1; lanes < BNN_LANES && i + lanes < pixels && from[lanes] - from[lanes - 1] == step;) lanes++;
    for (int plane = 0; plane < p->left_planes; plane++) {
      const uint32_t *row = *from + plane * xnor_left_plane(p);
      uint32_t *to = work->pixels + plane * (work->folded + 1) * XNOR_BLOCK + i;
      if (step == 1)
        xnor_fold(work->piece, work->pieces, 0, row, 1, lanes, to, XNOR_BLOCK);
      else
        xnor_fold(work->piece, work->pieces, 0, row, step, lanes, to, XNOR_BLOCK);
    }
  }
}

/* The valid words of a panel, folded or not. */
static const uint32_t *xnor_fold_panel(const bnn_product *p, const xnor_work *work, const uint32_t *right) {
  if (!work->folded) return right;
  for (int plane = 0; plane < p->right_planes; plane++)
    for (int64_t lane = 0; lane < BNN_PANEL; lane += BNN_LANES)
      xnor_fold(work->piece, work->pieces, 1, right + plane * xnor_right_plane(p) + lane, 1, BNN_LANES,
                work->panel + plane * work->right_plane + lane, BNN_PANEL);
  return work->panel;
}

/* Lists the pixels `begin` .. of the class. */
BNN_APART void xnor_begin_block(const bnn_product *p, xnor_work *work, int64_t begin, int64_t pixels, int64_t group) {
  const bnn_class *class_ = work->class_;
  const bnn_schedule *schedule = p->schedule;
  int64_t words = bnn_words(p->depth), reach = words * p->groups, width = p->groups * p->columns;
  int64_t image = begin / class_->count, position = class_->first + begin % class_->count;
  int64_t last = work->folded ? 0 : work->last;
  const uint32_t *from = (const uint32_t *)p->left + last + group * words + image * schedule->sources * reach;
  int64_t size = bnn_size(p->out_type);
  char *to = (char *)p->out + (group * p->columns + image * schedule->pixels * width) * size;
  work->begin = begin, work->group = group;
  for (int64_t i = 0; i < pixels; i++) {
    work->from[i] = from + schedule->base[position] * reach;
    work->to[i] = to + schedule->pixel[position] * width * size;
    if (++position < class_->first + class_->count) continue;
    position = class_->first;
    from += schedule->sources * reach;
    to += schedule->pixels * width * size;
  }
  for (int64_t i = 0; i < XNOR_PIXELS_AHEAD; i++) work->to[pixels + i] = work->to[pixels - 1];
  for (int64_t i = 0; i < pixels && work->rows; i++) {
    work->rows[i] = 0;
    for (int plane = 0; plane < p->left_planes; plane++) {
      int32_t weight = xnor_alone(p->left_kind, plane, p->right_kind, p->right_planes);
      const uint32_t *row = work->from[i] - last + plane * xnor_left_plane(p);
      if (weight) work->rows[i] += weight * xnor_count_row(class_, row, words, reach);
    }
  }
  if (!work->folded) return;
  xnor_fold_pixels(p, work, pixels);
  for (int64_t i = 0; i < pixels; i++) work->from[i] = work->pixels + i + work->last;
}

/* Points the terms to a panel, whose words of all taps are `right`. `start` is what is the same for every pixel of the
 * class: products of constants, of columns with constants, and padded taps. */
BNN_APART void xnor_begin_panel(const bnn_product *p, const xnor_work *work, const uint32_t *right,
                                const uint32_t *panel, int64_t columns, int32_t *start) {
  int32_t factor = xnor_constant(p->right_kind, p->right_planes);
  int32_t padded = p->pad * (p->left_kind == BNN_TERNARY ? 1 : (1 << p->left_planes) - 1);
  int64_t constant = work->class_->valid * xnor_constant(p->left_kind, p->left_planes) + work->class_->padded * padded;
  for (int i = 0; i < XNOR_TILE; i++) start[i] = (int32_t)(constant * factor * p->depth);
  for (int plane = 0; plane < p->right_planes; plane++) {
    int32_t alone = xnor_alone(p->right_kind, plane, p->left_kind, p->left_planes);
    int32_t weight = padded * xnor_weight(p->right_kind, plane);
    const uint32_t *valid = panel + plane * work->right_plane, *skipped = right + plane * xnor_right_plane(p);
    if (alone) xnor_count_columns(work->valid, work->valid_words, valid, alone, start);
    if (weight) xnor_count_columns(work->padded, work->padded_words, skipped, weight, start);
  }
  xnor_term *last = work->term + work->terms - 1;
  for (xnor_term *term = work->term; term <= last; term++) {
    term->sum.pair = work->valid;
    term->sum.words = work->valid_words;
    term->sum.panel = panel + term->right;
    term->sum.across = p->schedule->taps * bnn_words(p->depth) * BNN_PANEL;
    term->sum.at = term == last ? p->columns - columns : 0;
    term->sum.columns = term == last ? columns : XNOR_TILE;
    term->sum.type = term == last ? p->out_type : BNN_INT32;
  }
}

/* Of products of several terms, or whose rows count: tile by tile, whose sums but for the last term are whole lanes of
 * integers. */
BNN_APART void xnor_sums(const xnor_work *work, int64_t pixels, const int32_t *start) {
  const xnor_term *last = work->term + work->terms - 1;
  int32_t sums[BNN_TILE_ROWS][XNOR_TILE];
  const int32_t *from_start[BNN_TILE_ROWS], *from_sums[BNN_TILE_ROWS];
  char *to_sums[BNN_TILE_ROWS + XNOR_PIXELS_AHEAD];
  for (int k = 0; k < BNN_TILE_ROWS; k++) from_start[k] = start, from_sums[k] = sums[k];
  for (int k = 0; k < BNN_TILE_ROWS + XNOR_PIXELS_AHEAD; k++) to_sums[k] = (char *)sums[k % BNN_TILE_ROWS];
  for (xnor_term *term = work->term; term <= last; term++)
    term->sum.from = term > work->term || work->rows ? from_sums : from_start;
  for (int64_t i = 0, count; i < pixels; i += count) {
    count = pixels - i < BNN_TILE_ROWS ? pixels - i : BNN_TILE_ROWS;
    for (int k = 0; k < count && work->rows; k++)
      for (int v = 0; v < XNOR_TILE; v += BNN_LANES)
        v_store(sums[k] + v, v_add(v_load(start + v), v_set((uint32_t)work->rows[i + k])));
    for (const xnor_term *term = work->term; term < last; term++) {
      const uint32_t *plane[BNN_TILE_ROWS];
      for (int k = 0; k < count; k++) plane[k] = work->from[i + k] + term->left;
      xnor_tiles[term->meeting](&term->sum, count, plane, to_sums);
    }
    xnor_tiles[last->meeting](&last->sum, count, work->from + i, work->to + i);
  }
}

static const uint32_t *xnor_right(const bnn_product *p, int64_t group, int64_t panel) {
  int64_t panels = bnn_panels(p->columns);
  return (const uint32_t *)p->right + (group * panels + panel) * p->schedule->taps * bnn_words(p->depth) * BNN_PANEL;
}

/* The listed pixels by some panels, as many as one tile takes; returns how many those are. */
BNN_APART int64_t xnor_some_panels(const bnn_product *product, const xnor_work *work, int64_t pixels, int64_t panel,
                                   int64_t panels) {
  int64_t columns = product->columns - panel * BNN_PANEL;
  const uint32_t *right = xnor_right(product, work->group, panel);
  const uint32_t *valid = xnor_fold_panel(product, work, right);
  xnor_term *last = work->term + work->terms - 1;
  int32_t start[BNN_TILE_PANELS * XNOR_TILE];
  const int32_t *from[BNN_TILE_ROWS];
  for (int k = 0; k < BNN_TILE_ROWS; k++) from[k] = start;
#if BNN_TILE_PANELS > 1
  int64_t together = BNN_TILE_PANELS / pixels; /* none of many pixels */
  if (last->meeting == XNOR_SIGNS && !work->folded && together > 1 && together <= panels &&
      columns >= together * BNN_PANEL) {
    for (int64_t k = together; k--;) {
      right = xnor_right(product, work->group, panel + k);
      xnor_begin_panel(product, work, right, right, columns - k * BNN_PANEL, start + k * XNOR_TILE);
    }
    last->sum.from = from;
    if (pixels == 1)
      xnor_tile_few_1(&last->sum, work->from, work->to);
    else
      xnor_tile_few_2(&last->sum, work->from, work->to);
    return together;
  }
#endif
  (void)panels;
  for (int64_t lane = 0; lane < BNN_PANEL && lane < columns; lane += XNOR_TILE) {
    xnor_begin_panel(product, work, right + lane, valid + lane, columns - lane, start);
    last->sum.from = from;
    if (work->terms > 1 || work->rows)
      xnor_sums(work, pixels, start);
    else
      xnor_tiles[last->meeting](&last->sum, pixels, work->from, work->to);
  }
  return 1;
}

#ifdef BNN_NIBBLE_TABLES
/* The same of one panel by tables. */
BNN_APART void xnor_nibbles_run(const bnn_product *p, const xnor_work *work, int64_t pixels, int64_t panel) {
  int64_t columns = p->columns - panel * BNN_PANEL;
  const uint32_t *right = xnor_right(p, work->group, panel), *valid = xnor_fold_panel(p, work, right);
  int32_t start[BNN_PANEL];
  for (int64_t lane = 0; lane < BNN_PANEL; lane += XNOR_TILE)
    xnor_begin_panel(p, work, right + lane, valid + lane, columns - lane, start + lane);
  xnor_nibbles_turn(work->valid, work->valid_words, valid, &work->nibbles);
  xnor_nibbles_panel(&work->nibbles, pixels, start, p->out_type, columns, work->to, panel * BNN_PANEL);
}
#endif

static void xnor_run(const bnn_product *product, int64_t begin, int64_t end, void *scratch) {
  int64_t panels = bnn_panels(product->columns), step = xnor_panels(product), across = xnor_across(product);
  const bnn_class *class_ = product->schedule->class_;
  int64_t skipped = 0; /* blocks of the classes before */
  xnor_work work;
  xnor_begin(product, scratch, &work);
  for (int64_t item = begin; item < end; item++) {
    int64_t block = item / across, group = item % across / (across / product->groups);
    int64_t panel = item % (across / product->groups) * step;
    while (block - skipped >= xnor_blocks(product, class_)) skipped += xnor_blocks(product, class_++);
    int64_t first = (block - skipped) * XNOR_BLOCK, pixels = class_->count * product->images - first;
    if (pixels > XNOR_BLOCK) pixels = XNOR_BLOCK;
    if (class_ != work.class_) xnor_begin_class(product, class_, &work);
    int64_t stop = panel + step < panels ? panel + step : panels;
    if (first != work.begin || group != work.group) {
      xnor_begin_block(product, &work, first, pixels, group);
#ifdef BNN_NIBBLE_TABLES
      if (pixels >= NIBBLE_LEAST && xnor_by_nibbles(product))
        xnor_nibbles_pair(work.valid, work.valid_words, work.from, pixels, &work.nibbles);
#endif
    }
#ifdef BNN_NIBBLE_TABLES
    for (; panel < stop && pixels >= NIBBLE_LEAST && xnor_by_nibbles(product); panel++)
      xnor_nibbles_run(product, &work, pixels, panel);
#endif
    while (panel < stop) panel += xnor_some_panels(product, &work, pixels, panel, stop - panel);
  }
}
