/* The register tiles of the signed products: a few rows by two vectors of results, all in registers.
 *
 * A tile adds, for each of its taps, `length` terms. With signs as +-1 floats a term is one multiply-add per vector,
 * exact because the product is; either operand may be the signs. With register tables (BNN_REGISTER_TABLE) a term is
 * a group of four: the left row holds their 16 signed sums, the right operand the nibbles that pick one per lane.
 *
 * Each result is one running sum over taps, then terms. Where a result stands in a tile, and in which tile, cannot
 * change its bits. */

#ifdef BNN_REGISTER_TABLE
#define SIGNED_TABLE 1
#define SIGNED_ROWS 8
#else
#define SIGNED_TABLE 0
#define SIGNED_ROWS 6 /* 12 sums, two vectors and a broadcast: 15 of 16 registers */
#endif
#define SIGNED_WIDTH (2 * BNN_LANES)

typedef struct {
  int64_t taps;
  const int32_t *tap; /* [taps] which block of the right operand */
  const float *left;
  const int32_t *row[SIGNED_ROWS]; /* [taps] where in `left` each row begins */
  int64_t length, step;            /* terms per tap, and floats from one to the next in a row */
  const void *right;
  int64_t tap_stride; /* elements of the right operand per tap */
  float *out[SIGNED_ROWS];
  int rows;        /* the others repeat the last row and are not stored */
  int64_t columns; /* at most SIGNED_WIDTH */
  int add;         /* to what `out` holds */
} signed_tile;

BNN_INLINE void signed_store(const signed_tile *t, const int rows, vf32 sum[SIGNED_ROWS][2]) {
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < 2; v++) {
      int64_t columns = t->columns - v * BNN_LANES;
      if (r >= t->rows || columns <= 0) continue;
      float *out = t->out[r] + v * BNN_LANES;
      if (columns >= BNN_LANES)
        v_store_f32(out, t->add ? v_add_f32(v_load_f32(out), sum[r][v]) : sum[r][v]);
      else
        v_store_part_f32(out, t->add ? v_add_f32(v_load_part_f32(out, columns), sum[r][v]) : sum[r][v], columns);
    }
}

/* left: rows of [length] floats, right: [taps][length][SIGNED_WIDTH] floats; one of them +-1. */
BNN_INLINE void signed_multiply_add(const signed_tile *t, const int rows) {
  vf32 sum[SIGNED_ROWS][2];
  for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = v_set_f32(0);
  for (int64_t i = 0; i < t->taps; i++) {
    const float *left[SIGNED_ROWS], *right = (const float *)t->right + t->tap[i] * t->tap_stride;
    for (int r = 0; r < rows; r++) left[r] = t->left + t->row[r][i];
    for (int64_t k = 0, at = 0; k < t->length; k++, at += t->step, right += SIGNED_WIDTH) {
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
/* left: rows of [length] tables of 16 floats, right: [taps][words of 8 nibbles][SIGNED_WIDTH]. */
BNN_INLINE void signed_look_up(const signed_tile *t, const int rows) {
  vf32 sum[SIGNED_ROWS][2];
  for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = v_set_f32(0);
  for (int64_t i = 0; i < t->taps; i++) {
    const float *left[SIGNED_ROWS];
    const uint32_t *right = (const uint32_t *)t->right + t->tap[i] * t->tap_stride;
    for (int r = 0; r < rows; r++) left[r] = t->left + t->row[r][i];
    for (int64_t k = 0, at = 0; k < t->length; right += SIGNED_WIDTH) {
      vu32 low = v_load(right), high = v_load(right + BNN_LANES);
      for (int64_t end = k + 8 < t->length ? k + 8 : t->length; k < end; k++, at += t->step) {
        for (int r = 0; r < rows; r++) {
          vf32 table = v_load_f32(left[r] + at);
          sum[r][0] = v_add_f32(sum[r][0], v_look_up_f32(table, low));
          sum[r][1] = v_add_f32(sum[r][1], v_look_up_f32(table, high));
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
