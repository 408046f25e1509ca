/* Float x bits where most of the floats are zero, as in the gradient of a layer behind which a maximum is pooled: in
 * every window one is not. Only those are listed, four of them make a register table as ever, and the nibbles that
 * choose from it are put together from the signs that each of the four meets.
 *
 * A unit is as many words of 32 signs as have room side by side: SPARSE_WORDS, of one tap or, where it has fewer, of
 * several. A lane of its signs holds eight nibbles of one sign each, of word j that of bit `lane` in nibble j and that
 * of bit 16 + `lane` in nibble 4 + j. */

#define SPARSE_WORDS 4
#define SPARSE_VECTORS (2 * SPARSE_WORDS)
#define SPARSE_UNITS 3 /* whose sums are in registers together */
#define SPARSE_GROUP (SPARSE_UNITS * SPARSE_WORDS)
#define SPARSE_LANES ((uint32_t)((UINT64_C(1) << BNN_LANES) - 1))

#if SIGNED_SPARSE

/* Whether every tap reads pixels, and no constant row, and what is put together serves `signs` enough. */
static int sparse_suits(const bnn_product *p, int64_t signs) {
  if (!p->few || signs < BNN_WORD || p->schedule->taps * bnn_words(signs) < 2) return 0;
  for (int64_t c = 0; c < p->schedule->classes; c++)
    if (p->schedule->class_[c].padded) return 0;
  return 1;
}

/* The words of a unit: about as many of each, since some are added together. */
static int64_t sparse_taken(int64_t words) { return bnn_ceil(words, bnn_ceil(words, SPARSE_WORDS)); }

/* `signs` with those of word j. */
BNN_INLINE vu32 sparse_put_word(vu32 signs, uint32_t word, const int j) {
  return v_xor_and(signs, v_rotate_left(v_set(word), v_sub(v_set(4 * j), v_lanes())),
                   v_set(UINT32_C(0x10001) << 4 * j));
}

/* What is not zero of `x`, with its places, one after another, of which up to BNN_LANES are written; returns how many
 * there are. */
BNN_INLINE int64_t sparse_list(vf32 x, vu32 places, float *value, uint32_t *place) {
  uint32_t bits = ~v_mask_bits(v_within_f32(x, v_set_f32(0))) & SPARSE_LANES;
  v_compress(value, v_bits_of(x), v_mask_of(bits));
  v_compress(place, places, v_mask_of(bits));
  return __builtin_popcount(bits);
}

/* Fills a list up to a multiple of four, with zeros at a place where signs are; without a branch, since nobody could
 * tell how many are missing. */
BNN_INLINE int64_t sparse_fill(int64_t count, float *value, uint32_t *place, uint32_t at) {
  v_store_f32(value + count, v_set_f32(0));
  v_store(place + count, v_set(at));
  return bnn_ceil(count, 4) * 4;
}

BNN_INLINE void sparse_tables(const float *value, int64_t count, float *tables) {
  for (int64_t k = 0; k < count; k += 4, tables += BNN_LANES)
    v_store_f32(tables, v_table_f32(value[k], value[k + 1], value[k + 2], value[k + 3]));
}

/* What is not zero, as tables of four: for each, where each of the four finds its signs in a unit. */
typedef struct {
  int64_t count;
  const float *tables;
  const uint32_t *place;
} sparse_terms;

/* Adds the terms to results of some units, of which each has its signs, and whose words lie that far behind `out`.
 * `columns` are left of the first one of each word; NULL: all are whole. */
BNN_INLINE void sparse_add(const sparse_terms *terms, const uint32_t *const *signs, float *out, const int64_t *behind,
                           const int64_t *columns, const int units, const int words) {
  const vf32 one = v_hidden_one();
  const float *tables = terms->tables;
  const uint32_t *place = terms->place, *from[SPARSE_UNITS];
  vf32 sum[SPARSE_UNITS][SPARSE_VECTORS];
  BNN_UNROLL
  for (int u = 0; u < units; u++) {
    from[u] = signs[u];
    BNN_UNROLL
    for (int v = 0; v < 2 * words; v++) sum[u][v] = v_set_f32(0);
  }
  for (int64_t count = terms->count; count > 0; count--, tables += BNN_LANES, place += 4) {
    vf32 table = v_load_f32(tables);
    BNN_UNROLL
    for (int u = 0; u < units; u++) {
      /* Short chains: as many terms as possible are under way at once. */
      vu32 b = v_load(from[u] + place[1]), d = v_load(from[u] + place[3]);
      vu32 low = v_xor(v_load(from[u] + place[0]), v_add(b, b)), high = v_xor(v_load(from[u] + place[2]), v_add(d, d));
      vu32 nibbles = v_nibbles(v_xor(low, v_shift_left(high, 2)));
      BNN_UNROLL
      for (int v = 0; v < 2 * words; v++)
        sum[u][v] =
            v_add_choice_f32(sum[u][v], table, v_choice(v_nibble(nibbles, v / 2 + v % 2 * SPARSE_WORDS)), one, v & 1);
    }
  }
  if (columns) {
    float kept[SPARSE_GROUP][BNN_WORD];
    BNN_UNROLL
    for (int u = 0; u < units; u++) {
      BNN_UNROLL
      for (int v = 0; v < 2 * words; v++) v_store_f32(kept[u * words + v / 2] + v % 2 * BNN_LANES, sum[u][v]);
    }
    for (int j = 0; j < units * words; j++)
      for (int64_t n = 0; n < BNN_WORD && n < columns[j]; n++) out[behind[j] + n] += kept[j][n];
    return;
  }
  BNN_UNROLL
  for (int u = 0; u < units; u++) {
    BNN_UNROLL
    for (int v = 0; v < 2 * words; v++) {
      float *at = out + behind[u * words + v / 2] + v % 2 * BNN_LANES;
      v_store_f32(at, v_add_f32(v_load_f32(at), sum[u][v]));
    }
  }
}

/* A function for each, since what a loop around them keeps would take registers from the sums. */
typedef void sparse_adder(const sparse_terms *terms, const uint32_t *const *signs, float *out, const int64_t *behind,
                          const int64_t *columns);
#define SPARSE_ADDER(units, words)                                                                                 \
  BNN_APART void sparse_add_##units##_##words(const sparse_terms *terms, const uint32_t *const *signs, float *out, \
                                              const int64_t *behind, const int64_t *columns) {                     \
    sparse_add(terms, signs, out, behind, columns, units, words);                                                  \
  }
SPARSE_ADDER(1, 1)
SPARSE_ADDER(1, 2)
SPARSE_ADDER(1, 3)
SPARSE_ADDER(1, 4)
SPARSE_ADDER(2, 1)
SPARSE_ADDER(2, 2)
SPARSE_ADDER(2, 3)
SPARSE_ADDER(2, 4)
SPARSE_ADDER(3, 1)
SPARSE_ADDER(3, 2)
SPARSE_ADDER(3, 3)
SPARSE_ADDER(3, 4)
#undef SPARSE_ADDER
static sparse_adder *const sparse_adders[SPARSE_UNITS][SPARSE_WORDS] = {
    {sparse_add_1_1, sparse_add_1_2, sparse_add_1_3, sparse_add_1_4},
    {sparse_add_2_1, sparse_add_2_2, sparse_add_2_3, sparse_add_2_4},
    {sparse_add_3_1, sparse_add_3_2, sparse_add_3_3, sparse_add_3_4},
};

#endif
