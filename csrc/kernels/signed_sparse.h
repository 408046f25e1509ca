/* Float x bits where most of the floats are zero, as in the gradient of a layer behind which a maximum is pooled: in
 * every window one is not. Only those are listed, four of them make a register table as ever, and the nibbles that
 * choose from it are put together from the signs that each of the four meets. */

#define SPARSE_VECTORS 8 /* of columns: as many as a word has nibbles */
#define SPARSE_WIDTH (SPARSE_VECTORS * BNN_LANES)
#define SPARSE_BLOCK 512 /* most elements of the depth that are staged together */
#define SPARSE_LANES ((uint32_t)((UINT64_C(1) << BNN_LANES) - 1))

/* Whether every tap reads pixels, and no constant row. */
static int sparse_suits(const bnn_product *p) {
  if (!SIGNED_SPARSE || !p->few) return 0;
  for (int64_t c = 0; c < p->schedule->classes; c++)
    if (p->schedule->class_[c].padded) return 0;
  return 1;
}

/* Whether rows are staged as lists: narrower ones take longer to list than they save. */
static int sparse_rows(const bnn_product *p) { return sparse_suits(p) && p->columns >= SPARSE_WIDTH; }

/* A staged row of what is not zero: the number of tables, and tables, values and places of `block` at most, with room
 * for a vector behind values and places. */
static int64_t sparse_room(int64_t block) { return bnn_ceil(block + BNN_LANES, BNN_LANES) * BNN_LANES; }
static int64_t sparse_stride(int64_t block) {
  return BNN_LANES + bnn_ceil(block, 4) * BNN_LANES + 2 * sparse_room(block);
}

#if SIGNED_SPARSE

/* Signs of SPARSE_WIDTH columns: bit 4 j of lane l is that of column j * BNN_LANES + l. `words` are packed bits. */
BNN_INLINE vu32 sparse_signs(const uint32_t *words, int64_t columns) {
  vu32 signs = v_set(0);
  BNN_UNROLL
  for (int v = 0; v < SPARSE_VECTORS; v++) {
    const unsigned n = v * BNN_LANES;
    if (n >= columns) break;
    vmask set = v_mask_of(words[n / BNN_WORD] >> n % BNN_WORD & SPARSE_LANES);
    signs = v_or_where(signs, set, v_set(UINT32_C(1) << 4 * v));
  }
  return signs;
}

/* What is not zero of `x`, with its places, one after another, of which up to BNN_LANES are written; returns how many
 * there are. */
BNN_INLINE int64_t sparse_list(vf32 x, vu32 places, float *value, uint32_t *place) {
  uint32_t bits = ~v_mask_bits(v_within_f32(x, v_set_f32(0))) & SPARSE_LANES;
  v_compress(value, v_bits_of(x), v_mask_of(bits));
  v_compress(place, places, v_mask_of(bits));
  return __builtin_popcount(bits);
}

/* Fills a list up to a multiple of four. */
BNN_INLINE int64_t sparse_fill(int64_t count, float *value, uint32_t *place) {
  for (; count % 4; count++) value[count] = 0, place[count] = place[count - 1];
  return count;
}

BNN_INLINE void sparse_tables(const float *value, int64_t count, float *tables) {
  for (int64_t k = 0; k < count; k += 4, tables += BNN_LANES)
    v_store_f32(tables, v_table_f32(value[k], value[k + 1], value[k + 2], value[k + 3]));
}

/* sum += the values of `count` tables, with signs from those places of `signs`. */
BNN_INLINE void sparse_look_up(const float *tables, const uint32_t *place, int64_t count, const uint32_t *signs,
                               const int vectors, vf32 *sum) {
  const vf32 one = v_hidden_one();
  for (; count > 0; count--, tables += BNN_LANES, place += 4) {
    /* Short chains: as many terms as possible are under way at once. */
    vu32 b = v_load(signs + place[1]), d = v_load(signs + place[3]);
    vu32 low = v_xor(v_load(signs + place[0]), v_add(b, b)), high = v_xor(v_load(signs + place[2]), v_add(d, d));
    vu32 nibbles = v_nibbles(v_xor(low, v_shift_left(high, 2)));
    vf32 table = v_load_f32(tables);
    BNN_UNROLL
    for (int v = 0; v < vectors; v++)
      sum[v] = v_add_choice_f32(sum[v], table, v_choice(v_nibble(nibbles, v)), one, v & 1);
  }
}

/* As many vectors as `columns` need: a constant in each branch. */
#define SPARSE_BY_WIDTH(columns, call)   \
  do {                                   \
    if ((columns) <= 2 * BNN_LANES)      \
      call(2);                           \
    else if ((columns) <= 4 * BNN_LANES) \
      call(4);                           \
    else                                 \
      call(SPARSE_VECTORS);              \
  } while (0)

#endif
