/* signed_right where most of the left operand is zero, and the right one has columns enough: a row is staged as the
 * list of what is not, and as tables of four of these. Chunks, tiles and blocks are those of signed_rows.h.
 *
 * Order of a sum, and so its bits: as there, but in blocks of SPARSE_BLOCK of the depth, and with groups of four of
 * what is not zero of a row and block. The error is below (taps * SPARSE_BLOCK / 4 + depth / SPARSE_BLOCK + 4) * 2^-24
 * * (sum of magnitudes), be most zero or not. */

#if SIGNED_SPARSE

#define SPARSE_ROWS_AHEAD 8

typedef struct {
  uint32_t *count;
  float *tables, *value;
  uint32_t *place;
} sparse_row;

BNN_INLINE sparse_row sparse_row_of(const signed_work *work, float *staged) {
  float *tables = staged + BNN_LANES, *value = tables + bnn_ceil(work->depth, 4) * BNN_LANES;
  return (sparse_row){(uint32_t *)staged, tables, value, (uint32_t *)(value + sparse_room(work->depth))};
}

/* Lists what is not zero of a row; its tables are made when all rows are listed, for what was just written in vectors
 * is slow to read in parts. */
static void sparse_list_row(const signed_work *work, const float *row, float *staged) {
  static const uint32_t lanes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const sparse_row at = sparse_row_of(work, staged);
  int64_t count = 0;
  fetch_ahead(row + SPARSE_ROWS_AHEAD * work->product->groups * work->product->depth, work->depth * sizeof *row);
  for (int64_t k = 0; k < work->depth; k += BNN_LANES) {
    vu32 places = v_mul(v_add(v_load(lanes), v_set((uint32_t)k)), v_set(BNN_LANES));
    count += sparse_list(v_load_part_f32(row + k, work->depth - k), places, at.value + count, at.place + count);
  }
  *at.count = (uint32_t)sparse_fill(count, at.value, at.place) / 4;
}

static void sparse_make_tables(const signed_work *work) {
  for (int64_t slot = 1; slot < work->rows; slot++) {
    const sparse_row row = sparse_row_of(work, work->areas.staged + slot * work->plan.stride);
    sparse_tables(row.value, *row.count * 4, row.tables);
  }
}

/* The signs of SPARSE_WIDTH columns, for this block of the depth. */
static void sparse_stage_right(const signed_work *work, int64_t column) {
  uint32_t *out = (uint32_t *)work->areas.panel;
  int64_t columns = work->end_column - column < SPARSE_WIDTH ? work->end_column - column : SPARSE_WIDTH;
  int64_t words = work->plan.words, panel = work->product->schedule->taps * words * BNN_PANEL;
  for (int64_t tap = 0; tap < work->product->schedule->taps; tap++)
    for (int64_t k = 0; k < work->depth; k++, out += BNN_LANES) {
      const uint32_t *right = signed_prepared(work, column / BNN_PANEL) + (tap * words + k / BNN_WORD) * BNN_PANEL;
      vu32 signs = v_set(0), bit = v_set(UINT32_C(1) << k % BNN_WORD);
      BNN_UNROLL
      for (int v = 0; v < SPARSE_VECTORS; v++) {
        const int n = v * BNN_LANES;
        if (n >= columns) break;
        vmask set = v_test(v_load(right + n / BNN_PANEL * panel + n % BNN_PANEL), bit);
        signs = v_or_where(signs, set, v_set(UINT32_C(1) << 4 * v));
      }
      v_store(out, signs);
    }
}

/* A row of a tile. */
BNN_INLINE void sparse_add_row(const signed_work *work, const signed_tile *tile, int r, int64_t column,
                               const int vectors) {
  const uint32_t *signs = (const uint32_t *)work->areas.panel;
  vf32 sum[SPARSE_VECTORS];
  BNN_UNROLL
  for (int v = 0; v < vectors; v++) sum[v] = v_set_f32(0);
  for (int64_t i = 0; i < tile->taps; i++) {
    const sparse_row row = sparse_row_of(work, work->areas.staged + tile->row[i * SIGNED_ROWS + r]);
    sparse_look_up(row.tables, row.place, *row.count, signs + tile->tap[i] * work->depth * BNN_LANES, vectors, sum);
  }
  float *out = tile->out[r] + column;
  int64_t columns = work->end_column - column;
  if (columns >= vectors * BNN_LANES && !work->block) {
    BNN_UNROLL
    for (int v = 0; v < vectors; v++) v_store_f32(out + v * BNN_LANES, sum[v]);
    return;
  }
  float kept[SPARSE_WIDTH];
  BNN_UNROLL
  for (int v = 0; v < vectors; v++) v_store_f32(kept + v * BNN_LANES, sum[v]);
  for (int64_t n = 0; n < vectors * BNN_LANES && n < columns; n++) out[n] = work->block ? out[n] + kept[n] : kept[n];
}

static void sparse_chunk(const signed_work *work) {
  sparse_make_tables(work);
  for (int64_t column = work->first_column; column < work->end_column; column += SPARSE_WIDTH) {
    sparse_stage_right(work, column);
    for (const signed_tile *tile = work->areas.tiles; tile < work->areas.tiles + work->tiles; tile++)
      for (int r = 0; r < tile->rows; r++) {
#define CALL(vectors) sparse_add_row(work, tile, r, column, vectors)
        SPARSE_BY_WIDTH(work->end_column - column, CALL);
#undef CALL
      }
  }
}

#endif
