/* The register tiles of the signed products: a few rows by two vectors of results, all in registers.
 *
 * A tile adds, for each of its taps, a number of terms. With signs as +-1 floats a term is one multiply-add per vector,
 * exact because the product is; either operand may be the signs. With register tables (BNN_TABLE_ROWS) a term is a
 * group of four: the left row holds their signed sums, a vector, and the right operand the nibbles that choose one per
 * lane.
 *
 * Each result is one running sum over taps, then terms. Where a result stands in a tile, and in which tile, cannot
 * change its bits. */

#ifdef BNN_TABLE_ROWS
#define SIGNED_TABLE 1
#define SIGNED_ROWS BNN_TABLE_ROWS
#else
#define SIGNED_TABLE 0
#define SIGNED_ROWS 6 /* 12 sums, two vectors and a broadcast: 15 of 16 registers */
#endif
#define SIGNED_WIDTH (2 * BNN_LANES)

typedef struct {
  int64_t taps;
  const int32_t *tap;    /* [taps] which block of the right operand */
  const int32_t *length; /* [taps] terms */
  const int32_t *row;    /* [taps][SIGNED_ROWS] where in `left` each row begins */
  const float *left;
  int64_t step; /* floats from a term of a row to the next */
  const void *right;
  int64_t tap_stride; /* elements of the right operand per block */
  float *out[SIGNED_ROWS];
  int rows;                /* the others may repeat the first, and are not stored */
  int64_t column, columns; /* where in `out` to begin, and how many to store */
  int add;                 /* to what `out` holds */
} signed_tile;

/* Through memory, so that the loops over sums in registers have constant bounds and nothing else in them. */
BNN_INLINE void signed_store(const signed_tile *t, const int rows, vf32 sum[SIGNED_ROWS][2]) {
  float kept[SIGNED_ROWS][SIGNED_WIDTH];
  for (int r = 0; r < rows; r++) {
    v_store_f32(kept[r], sum[r][0]);
    v_store_f32(kept[r] + BNN_LANES, sum[r][1]);
  }
  for (int r = 0; r < rows && r < t->rows; r++)
    for (int64_t n = 0; n < SIGNED_WIDTH && n < t->columns; n += BNN_LANES) {
      float *out = t->out[r] + t->column + n;
      vf32 result = v_load_f32(kept[r] + n);
      if (t->add) result = v_add_f32(v_load_part_f32(out, t->columns - n), result);
      v_store_part_f32(out, result, t->columns - n);
    }
}

/* left: rows of [length] floats, right: [length][SIGNED_WIDTH] floats; one of them +-1. */
BNN_INLINE void signed_multiply_add(const signed_tile *t, const int rows) {
  vf32 sum[SIGNED_ROWS][2];
  for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = v_set_f32(0);
  for (int64_t i = 0; i < t->taps; i++) {
    const float *left[SIGNED_ROWS], *right = (const float *)t->right + t->tap[i] * t->tap_stride;
    int64_t length = t->length[i];
    for (int r = 0; r < rows; r++) left[r] = t->left + t->row[i * SIGNED_ROWS + r];
    for (int64_t k = 0, at = 0; k < length; k++, at += t->step, right += SIGNED_WIDTH) {
      vf32 low = v_load_f32(right), high = v_load_f32(right + BNN_LANES);
      for (int r = 0; r < rows; r++) {
        vf32 x = v_set_f32(left[r][at]);
        sum[r][0] = v_fma_f32(x, low, sum[r][0]);
        sum[r][1] = v_fma_f32(x, high, sum[r][1]);
      }
    }
  }
  signed_store(t, rows, sum);
}

static void signed_multiply_add_tile(const signed_tile *t) {
  if (t->rows == 1)
    signed_multiply_add(t, 1);
  else if (t->rows == 2)
    signed_multiply_add(t, 2);
  else if (t->rows <= 4)
    signed_multiply_add(t, 4);
  else
    signed_multiply_add(t, SIGNED_ROWS);
}

#if SIGNED_TABLE
/* left: rows of [length] tables, right: [length / 8][BNN_PANEL] words of 8 nibbles. */
BNN_INLINE void signed_look_up(const signed_tile *t, const int rows) {
  vf32 sum[SIGNED_ROWS][2];
  for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = v_set_f32(0);
  for (int64_t i = 0; i < t->taps; i++) {
    const float *left[SIGNED_ROWS];
    const uint32_t *right = (const uint32_t *)t->right + t->tap[i] * t->tap_stride;
    int64_t length = t->length[i];
    for (int r = 0; r < rows; r++) left[r] = t->left + t->row[i * SIGNED_ROWS + r];
    for (int64_t k = 0, at = 0; k < length; right += BNN_PANEL) {
      vu32 low = v_nibbles(v_load(right)), high = v_nibbles(v_load(right + BNN_LANES));
      for (int64_t end = k + 8 < length ? k + 8 : length; k < end; k++, at += t->step) {
        vchoice first = v_choice(low), second = v_choice(high);
        for (int r = 0; r < rows; r++) {
          vf32 table = v_load_f32(left[r] + at);
          sum[r][0] = v_add_choice_f32(sum[r][0], table, first);
          sum[r][1] = v_add_choice_f32(sum[r][1], table, second);
        }
        low = v_next_nibble(low);
        high = v_next_nibble(high);
      }
    }
  }
  signed_store(t, rows, sum);
}

static void signed_look_up_tile(const signed_tile *t) {
  if (t->rows == 1)
    signed_look_up(t, 1);
  else if (t->rows == 2)
    signed_look_up(t, 2);
  else if (t->rows <= 4)
    signed_look_up(t, 4);
  else
    signed_look_up(t, SIGNED_ROWS);
}
#endif

/* `count` sign bits as +-1 floats */
static void signed_expand(const uint32_t *words, int64_t count, float *floats) {
  const vf32 plus = v_set_f32(1), minus = v_set_f32(-1);
  for (int64_t k = 0; k < count; k += BNN_LANES) {
    vf32 signs = v_choose_f32(v_mask_of(words[k / BNN_WORD] >> k % BNN_WORD), minus, plus);
    if (count - k >= BNN_LANES)
      v_store_f32(floats + k, signs);
    else
      v_store_part_f32(floats + k, signs, count - k);
  }
}
