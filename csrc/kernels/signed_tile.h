/* The register tiles of the signed products: a few rows by a few vectors of results, all in registers.
 *
 * A tile adds, for each of its taps, a number of terms. With signs as +-1 floats a term is one multiply-add per vector,
 * exact because the product is; either operand may be the signs. With register tables (BNN_TABLE_VECTORS) a term is a
 * group of four: the left row holds their signed sums, a vector, and the right operand the nibbles that choose one per
 * lane.
 *
 * Each result is one running sum over taps, then terms. Where a result stands in a tile, and in which tile, cannot
 * change its bits. */

#define SIGNED_FLOAT_ROWS 6 /* 12 sums, two vectors and a broadcast: 15 of 16 registers */
#define SIGNED_WIDTH (2 * BNN_LANES)
#ifdef BNN_TABLE_VECTORS
#define SIGNED_TABLE 1
#define SIGNED_ROWS 8
#define SIGNED_TABLE_WIDTH (BNN_TABLE_VECTORS * BNN_LANES)
#else
#define SIGNED_TABLE 0
#define SIGNED_ROWS SIGNED_FLOAT_ROWS
#define SIGNED_TABLE_WIDTH SIGNED_WIDTH
#endif
#if defined BNN_SPARSE && !defined BNN_TILES
#define SIGNED_SPARSE 1
#else
#define SIGNED_SPARSE 0
#endif
#define SIGNED_MOST_WIDTH (SIGNED_TABLE_WIDTH > SIGNED_WIDTH ? SIGNED_TABLE_WIDTH : SIGNED_WIDTH)

typedef struct {
  int64_t taps;
  const int32_t *tap;    /* [taps] which block of the right operand */
  const int32_t *length; /* [taps] terms */
  const int32_t *row;    /* [taps][SIGNED_ROWS] where in `left` each row begins */
  const float *left;
  int64_t step; /* floats from a term of a row to the next */
  const void *right;
  int64_t tap_stride;   /* elements of the right operand per block */
  int64_t panel_stride; /* and from BNN_PANEL columns to the next; of tables */
  float *out[SIGNED_ROWS];
  int64_t out_stride;      /* floats in `out`, likewise */
  int rows;                /* the others may repeat the first, and are not stored */
  int64_t column, columns; /* where in `out` to begin, and how many to store */
  int add;                 /* to what `out` holds */
} signed_tile;

/* Where in each row of `out` the n-th column of the tile is. */
BNN_INLINE int64_t signed_at(const signed_tile *t, int64_t n) {
  uint64_t column = (uint64_t)(t->column + n);
  return (int64_t)(column / BNN_PANEL) * t->out_stride + (int64_t)(column % BNN_PANEL);
}

/* `sum` is [rows][vectors], from row `first` on. What is not whole goes through memory, so that the loops over sums in
 * registers have constant bounds and nothing else in them. */
BNN_INLINE void signed_store(const signed_tile *t, int first, const int rows, const int vectors, const vf32 *sum) {
  if (t->rows >= first + rows && t->columns >= vectors * BNN_LANES) {
    int64_t at[SIGNED_MOST_WIDTH / BNN_LANES]; /* a store might change `t`, for all that a compiler knows */
    const int add = t->add;
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) at[v] = signed_at(t, v * BNN_LANES);
    BNN_UNROLL
    for (int r = 0; r < rows; r++) {
      float *out = t->out[first + r];
      BNN_UNROLL
      for (int v = 0; v < vectors; v++) {
        vf32 x = sum[r * vectors + v];
        v_store_f32(out + at[v], add ? v_add_f32(v_load_f32(out + at[v]), x) : x);
      }
    }
    return;
  }
  float kept[SIGNED_ROWS][SIGNED_MOST_WIDTH];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vectors; v++) v_store_f32(kept[r] + v * BNN_LANES, sum[r * vectors + v]);
  for (int r = 0; r < rows && first + r < t->rows; r++)
    for (int64_t n = 0; n < vectors * BNN_LANES && n < t->columns; n += BNN_LANES) {
      float *out = t->out[first + r] + signed_at(t, n);
      vf32 result = v_load_f32(kept[r] + n);
      if (t->add) result = v_add_f32(v_load_part_f32(out, t->columns - n), result);
      v_store_part_f32(out, result, t->columns - n);
    }
}

/* left: rows of [length] floats, right: [length][SIGNED_WIDTH] floats; one of them +-1. */
BNN_INLINE void signed_multiply_add(const signed_tile *t, const int rows) {
  vf32 sum[SIGNED_FLOAT_ROWS][2];
  for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = v_set_f32(0);
  for (int64_t i = 0; i < t->taps; i++) {
    const float *left[SIGNED_FLOAT_ROWS], *right = (const float *)t->right + t->tap[i] * t->tap_stride;
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
  signed_store(t, 0, rows, 2, sum[0]);
}

static void signed_multiply_add_tile(const signed_tile *t) {
  if (t->rows == 1)
    signed_multiply_add(t, 1);
  else if (t->rows == 2)
    signed_multiply_add(t, 2);
  else if (t->rows <= 4)
    signed_multiply_add(t, 4);
  else
    signed_multiply_add(t, SIGNED_FLOAT_ROWS);
}

#if SIGNED_TABLE
/* The next `count` nibbles of the tile's columns, with the next tables of each row. */
BNN_INLINE void signed_look_up_nibbles(const float **left, const uint32_t *right, int64_t panel_stride, const int rows,
                                       const int vectors, const int64_t count, vf32 *sum) {
  vu32 nibbles[BNN_TABLE_VECTORS];
  const vf32 one = v_hidden_one();
  for (int v = 0; v < vectors; v++)
    nibbles[v] = v_nibbles(v_load(right + v * BNN_LANES / BNN_PANEL * panel_stride + v * BNN_LANES % BNN_PANEL));
#if BNN_TABLE_VECTORS == 1 /* compilers keep the sums of more vectors in memory if it is unrolled */
  BNN_UNROLL
#endif
  for (int64_t k = 0; k < count; k++) {
    vchoice choice[BNN_TABLE_VECTORS];
    for (int v = 0; v < vectors; v++) choice[v] = v_choice(nibbles[v]);
    for (int r = 0; r < rows; r++) {
      vf32 table = v_load_f32(left[r] + k * BNN_LANES);
      for (int v = 0; v < vectors; v++)
        sum[r * vectors + v] = v_add_choice_f32(sum[r * vectors + v], table, choice[v], one, (r + v) & 1);
    }
    for (int v = 0; v < vectors; v++) nibbles[v] = v_next_nibble(nibbles[v]); /* late: a register less for each */
  }
  for (int r = 0; r < rows; r++) left[r] += count * BNN_LANES;
}

/* left: rows of [length] tables, right: [length / 8][BNN_PANEL] words of 8 nibbles. */
BNN_INLINE void signed_look_up(const signed_tile *t, int first, const int rows, const int vectors) {
  vf32 sum[SIGNED_ROWS * BNN_TABLE_VECTORS];
  BNN_UNROLL
  for (int i = 0; i < rows * vectors; i++) sum[i] = v_set_f32(0);
  for (int64_t i = 0; i < t->taps; i++) {
    const float *left[SIGNED_ROWS];
    const uint32_t *right = (const uint32_t *)t->right + t->tap[i] * t->tap_stride;
    int64_t length = t->length[i], stride = t->panel_stride;
    BNN_UNROLL
    for (int r = 0; r < rows; r++) left[r] = t->left + t->row[i * SIGNED_ROWS + first + r];
    for (; length >= 8; length -= 8, right += BNN_PANEL)
      signed_look_up_nibbles(left, right, stride, rows, vectors, 8, sum);
    if (length > 0) signed_look_up_nibbles(left, right, stride, rows, vectors, length, sum);
  }
  signed_store(t, first, rows, vectors, sum);
}

BNN_INLINE void signed_look_up_rows(const signed_tile *t, const int most, const int vectors) {
  for (int first = 0; first < t->rows; first += most) {
    int rows = t->rows - first;
    if (rows == 1)
      signed_look_up(t, first, 1, vectors);
    else if (rows == 2)
      signed_look_up(t, first, 2, vectors);
    else if (rows <= 4 || most == 4)
      signed_look_up(t, first, 4, vectors);
    else
      signed_look_up(t, first, SIGNED_ROWS, vectors);
  }
}

/* Sixteen sums with four vectors or two: the wider the tile, the fewer tables are read. */
static void signed_look_up_tile(const signed_tile *t) {
#if BNN_TABLE_VECTORS == 4
  if (t->columns > 2 * BNN_LANES)
    signed_look_up_rows(t, 4, 4);
  else
    signed_look_up_rows(t, SIGNED_ROWS, 2);
#else
  signed_look_up_rows(t, SIGNED_ROWS, BNN_TABLE_VECTORS);
#endif
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
